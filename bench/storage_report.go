package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// goals are the least rates of volumes, to that of the bare file system; 0 is shown, and no goal.
var goals = []struct {
	driver string
	least  float64
	to     string
}{{"dir", 0.98, "ext4"}, {"btrfs", 0.98, "btrfs"}, {limited, 0, "a btrfs without quota"}, {"loop", 0.90, "xfs below it"}, {wholly, 0, "xfs below it"}, {"sshfs", 0.98, "sshfs by hand"}}

// runStorage measures the storage suite, or renders what it measured before.
func runStorage(quick, render bool, part, out, daemon, scratch string) error {
	p := wholeStorage
	if quick {
		p = quickStorage
	}
	return runSuite("storage", render, part, out, func(old *StorageResults) (*StorageResults, error) {
		return measureStorage(p, part, daemon, scratch, old)
	})
}

// section is what stands between two marks of the document.
type section struct{ name, text string }

func (r *StorageResults) parts() []section {
	return []section{
		{"storage-targets", r.targets()}, {"storage-machine", r.machine()}, {"fio", r.fioTable()},
		{"snapshots", r.snapshotTable()}, {"lists", r.listTable()}, {"backups", r.backupTable()},
	}
}

// fillDocument puts sections between their marks in performance.md.
func fillDocument(out string, parts []section) error {
	path := filepath.Join(out, "performance.md")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(b)
	for _, part := range parts {
		if text, err = fill(text, part.name, part.text); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func (r *StorageResults) targets() string {
	var rows [][]string
	row := func(goal, got string, met bool) {
		verdict := "**missed**"
		if met {
			verdict = "met"
		}
		rows = append(rows, []string{goal, got, verdict})
	}
	for _, g := range goals {
		if g.least == 0 {
			continue
		}
		by := map[string][]string{}
		for _, j := range jobs {
			if x, ok := r.fioRatio(g.driver, j.name); ok {
				v := verdict(x, g.least)
				by[v] = append(by[v], j.name+" "+x.times())
			}
		}
		for _, v := range []string{"met", "within the noise", "**missed**"} {
			if len(by[v]) > 0 {
				rows = append(rows, []string{fmt.Sprintf("fio on %s: at least %.2f× %s", g.driver, g.least, g.to), strings.Join(by[v], "; "), v})
			}
		}
	}
	for _, storage := range r.storages() {
		ms := slices.Concat(r.snapshotTimes(storage, false), r.snapshotTimes(storage, true))
		row(fmt.Sprintf("Snapshot of %d GiB, %s: under 100 ms", r.Snapshots[0].Bytes>>30, storage),
			fmt.Sprintf("%s, slowest %s", span(median(ms)*1e3), span(slices.Max(ms)*1e3)), median(ms) < 100)
	}
	for _, phase := range phases {
		ours := r.backup(remora, phase, seconds)
		if len(ours) == 0 {
			continue
		}
		best, name := r.bestBackup(phase)
		x := r.backupRatio(phase, name, seconds)
		row(fmt.Sprintf("Backup, %s: as fast as the best other", phase),
			fmt.Sprintf("%s; %s %s; %s the time", span(median(ours)*1e6), name, span(best*1e6), x.times()), x.mid <= 1)
		if x := r.backupRatio(phase, tarred, seconds); !math.IsNaN(x.mid) {
			rows = append(rows, []string{"— the same against tar with zstd on all processors", fmt.Sprintf("%s; %s the time", span(median(r.backup(tarred, phase, seconds))*1e6), x.times()), ""})
		}
	}
	for _, phase := range phases {
		if x := r.backupRatio(phase, restic, peak); !math.IsNaN(x.mid) {
			row(fmt.Sprintf("Backup, %s: memory at most 1.5× restic's", phase),
				fmt.Sprintf("%s; restic %s; %s", mib(int64(median(r.backup(remora, phase, peak)))), mib(int64(median(r.backup(restic, phase, peak)))), x.times()), x.mid <= 1.5)
		}
	}
	for _, driver := range []string{"dir", "loop", "btrfs"} {
		ms := r.listTimes(driver, "remora volume ls")
		if len(ms) > 0 {
			row(fmt.Sprintf("`remora volume ls` of %s volumes of %s: under 200 ms", commas(r.Lists[0].Volumes), driver), span(median(ms)*1e3), median(ms) < 200)
		}
	}
	return table([]string{"Goal", "Measured", ""}, rows)
}

// verdict tells whether a ratio is at least what was aimed at. Where its bounds reach the goal
// and its middle does not, it may be either.
func verdict(x ratio, least float64) string {
	switch {
	case x.mid >= least:
		return "met"
	case x.high >= least:
		return "within the noise"
	}
	return "**missed**"
}

// bestBackup is the shortest time of the peers that are to be reached, and whose it is.
func (r *StorageResults) bestBackup(phase string) (best float64, name string) {
	for _, peer := range backupGoals {
		if t := median(r.backup(peer, phase, seconds)); name == "" || t < best {
			best, name = t, peer
		}
	}
	return best, name
}

// backupRatio divides a value of remora by that of another peer, round by round.
func (r *StorageResults) backupRatio(phase, peer string, value func(BackupSample) float64) ratio {
	ours, theirs := r.backup(remora, phase, value), r.backup(peer, phase, value)
	var pairs []float64
	for i := range min(len(ours), len(theirs)) {
		pairs = append(pairs, ours[i]/theirs[i])
	}
	return ratioOf(pairs)
}

func (r *StorageResults) machine() string {
	m := r.Machine
	first := func(text string) string {
		line, _, _ := strings.Cut(text, "\n")
		return strings.TrimSuffix(line, ".")
	}
	return table([]string{"", ""}, [][]string{
		{"Processor", fmt.Sprintf("%s, %d cores", m.CPU, m.Cores)}, {"Memory", fmt.Sprintf("%d GiB", m.MemoryGiB)}, {"Kernel", "Linux " + m.Kernel},
		{"Below the file systems", m.FileSystem}, {"Remora", m.Commit + ", " + m.Date}, {"fio", strings.TrimPrefix(r.Tools["fio"], "fio-")},
		{"restic", first(r.Tools["restic"])}, {"tar", first(r.Tools["tar"])}, {"zstd", strings.Trim(first(r.Tools["zstd"]), "* ")}, {"sshfs", first(r.Tools["sshfs"])},
	})
}

func (r *StorageResults) fioTable() string {
	var rows [][]string
	for _, g := range goals {
		title := "**" + g.driver + "**"
		for _, j := range jobs {
			x, ok := r.fioRatio(g.driver, j.name)
			if !ok {
				continue
			}
			middle := func(side string) string {
				var all []float64
				for _, v := range r.fio(g.driver, j.name, side) {
					all = append(all, v)
				}
				if strings.HasPrefix(j.name, "4k") {
					return count(median(all)/4) + " /s"
				}
				return count(median(all)/1024) + " MiB/s"
			}
			rows, title = append(rows, []string{title, j.name, middle(remora), middle(bare), x.times()}), ""
		}
	}
	return table([]string{"", "", "Volume:", "Bare:", "Ratio:"}, rows)
}

func (r *StorageResults) snapshotTable() string {
	var rows [][]string
	for _, storage := range r.storages() {
		for _, dirty := range []bool{false, true} {
			ms := r.snapshotTimes(storage, dirty)
			when := "at rest"
			if dirty {
				when = "4 MiB just written"
			}
			stall := "–"
			if stalls := r.snapshotStalls(storage, dirty); len(stalls) > 0 {
				stall = span(median(stalls) * 1e3)
			}
			rows = append(rows, []string{storage, when, span(median(ms) * 1e3), span(slices.Min(ms) * 1e3), span(slices.Max(ms) * 1e3), stall})
		}
	}
	return table([]string{"", "", "Median:", "Fastest:", "Slowest:", "A write waits:"}, rows)
}

func (r *StorageResults) listTable() string {
	var rows [][]string
	for _, driver := range []string{"dir", "loop", "btrfs"} {
		api, ls := r.listTimes(driver, "API"), r.listTimes(driver, "remora volume ls")
		if len(api) == 0 {
			continue
		}
		rows = append(rows, []string{driver, span(median(api) * 1e3), span(slices.Max(api) * 1e3), span(median(ls) * 1e3), span(slices.Max(ls) * 1e3)})
	}
	return table([]string{"", "API, median:", "Slowest:", "`remora volume ls`, median:", "Slowest:"}, rows)
}

func (r *StorageResults) backupTable() string {
	var rows [][]string
	for _, phase := range phases {
		title := "**" + phase + "**"
		for _, peer := range backupPeers {
			t := r.backup(peer, phase, seconds)
			if len(t) == 0 {
				continue
			}
			rows, title = append(rows, []string{
				title, peer, span(median(t) * 1e6), span(slices.Min(t) * 1e6), span(slices.Max(t) * 1e6), span(median(r.backup(peer, phase, cpu)) * 1e6),
				mib(int64(median(r.backup(peer, phase, peak)))), mib(int64(median(r.backup(peer, phase, stored)))),
			}), ""
		}
	}
	return table([]string{"", "", "Median:", "Fastest:", "Slowest:", "CPU:", "Peak memory:", "Repository:"}, rows)
}
