package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// writeDocument puts the tables between their marks in performance.md, and the plots
// beside it. What is not between marks is written by hand and stays.
func writeDocument(r *Results, out string) error {
	err := fillDocument(out, []section{
		{"targets", r.targets()}, {"machine", r.machine()}, {"calls", r.calls()}, {"rest", r.rest()}, {"all", r.all()},
	})
	if err != nil {
		return err
	}
	for name, svg := range map[string]string{"calls.svg": r.callsPlot(), "docker-run.svg": r.runsPlot()} {
		if err := os.WriteFile(filepath.Join(out, "performance", name), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fill replaces what stands between the two marks of a name.
func fill(text, name, with string) (string, error) {
	begin, end := "<!-- bench: "+name+" -->\n", "<!-- bench: end "+name+" -->"
	before, rest, ok1 := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return "", fmt.Errorf("the marks of %q are missing", name)
	}
	return before + begin + strings.TrimRight(with, "\n") + "\n" + end + after, nil
}

// targets sets what was aimed at against what was measured.
func (r *Results) targets() string {
	volumes, clients := r.scales()
	small, large := volumes[0], volumes[len(volumes)-1]
	var rows [][]string
	row := func(goal, got string, met bool) {
		verdict := "**missed**"
		if met {
			verdict = "met"
		}
		rows = append(rows, []string{goal, got, verdict})
	}
	for _, verb := range []string{get, mount} {
		for _, c := range clients {
			x := r.compare(remora, floor, key{verb, large, c}, p50)
			row(fmt.Sprintf("%s of %s, %s: at most 1.3× the floor's p50", verb, commas(large), callers(c)), x.times(), x.mid <= 1.3)
		}
	}
	if small != large {
		// The two were measured minutes apart, and the floor tells how much the machine
		// itself had changed by then.
		for _, verb := range []string{get, mount} {
			a, b := r.compare(remora, floor, key{verb, small, 1}, p50), r.compare(remora, floor, key{verb, large, 1}, p50)
			row(fmt.Sprintf("%s flat from %s to %s volumes: p50 to the floor's, within a tenth", verb, commas(small), commas(large)),
				fmt.Sprintf("%.2f× → %.2f×", a.mid, b.mid), b.mid/a.mid <= 1.1)
		}
	}
	middle := volumes[len(volumes)/2]
	for _, c := range clients {
		x := r.compare(remora, helpers, key{create, middle, c}, rate)
		row(fmt.Sprintf("Create with %s volumes, %s: at least 10× the rate of helpers", commas(middle), callers(c)), x.times(), x.mid >= 10)
		if len(r.samples(synced, key{create, middle, c})) > 0 {
			x = r.compare(remora, synced, key{create, middle, c}, rate)
			rows = append(rows, []string{"— the same against helpers that flush their file, as Remora does", x.times(), ""})
		}
	}
	for _, c := range clients {
		x := r.compare(remora, floor, key{list, large, c}, p50)
		row(fmt.Sprintf("List of %s, %s: at most 2× encoding the answer", commas(large), callers(c)), x.times(), x.mid <= 2)
	}
	if x := r.compare(remora, floor, key{listAnew, large, 1}, p50); !math.IsNaN(x.mid) {
		rows = append(rows, []string{"— the same right after a volume was made or removed", x.times(), ""})
	}
	start := median(r.startsOf(remora, large))
	row(fmt.Sprintf("Start with %s volumes: under 1 s", commas(large)), span(start*1e6), start < 1)
	idle := r.memory(remora, 0).Idle
	row("Idle memory: under 25 MiB", mib(idle), idle < 25<<20)
	if x, ok := r.runRatio(); ok {
		row("`docker run --rm -v`: at most 1.03× the built-in `local`", fmt.Sprintf("%.3f× (%.3f–%.3f)", x.mid, x.low, x.high), x.mid <= 1.03)
	}
	return table([]string{"Goal", "Measured", ""}, rows)
}

func callers(n int) string {
	if n == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%d clients", n)
}

func (r *Results) startsOf(peer string, volumes int) []float64 {
	var s []float64
	for _, x := range r.Starts {
		if x.Peer == peer && x.Volumes == volumes {
			s = append(s, x.Seconds)
		}
	}
	return s
}

func (r *Results) runRatio() (ratio, bool) {
	var pairs []float64
	for _, x := range r.Runs {
		pairs = append(pairs, x.Remora/x.Local)
	}
	return ratioOf(pairs), len(pairs) > 0
}

// machine says what it was measured on.
func (r *Results) machine() string {
	m := r.Machine
	rows := [][]string{
		{"Processor", fmt.Sprintf("%s, %d cores", m.CPU, m.Cores)},
		{"Memory", fmt.Sprintf("%d GiB", m.MemoryGiB)},
		{"Kernel", "Linux " + m.Kernel},
		{"File system", fmt.Sprintf("%s; a small file in a new directory, both flushed: %s", m.FileSystem, span(m.FlushMicros))},
		{"In the place of `/run`", m.Run},
		{"Go", strings.TrimPrefix(m.Go, "go")},
		{"Remora", m.Commit + ", " + m.Date},
		{"go-plugins-helpers", m.Helpers},
	}
	if m.Engine != "" {
		rows = append(rows, []string{"Docker Engine", m.Engine})
	}
	return table([]string{"", ""}, rows)
}

// calls is the short table: what one client waits for, at each scale.
func (r *Results) calls() string {
	volumes, clients := r.scales()
	head := []string{"p50, " + callers(clients[0]), ""}
	for _, n := range volumes {
		head = append(head, commas(n)+" volumes:")
	}
	var rows [][]string
	for _, verb := range verbs {
		title := "**" + verb + "**"
		for _, peer := range shown {
			cells := []string{title, peer}
			for _, n := range volumes {
				s, ok := r.of(peer, key{verb, n, clients[0]})
				if !ok {
					cells = append(cells, "")
					continue
				}
				cells = append(cells, span(s.p50))
			}
			rows, title = append(rows, cells), ""
		}
	}
	return table(head, rows)
}

// The verbs as tables show them, and the peers that are in all of them.
var (
	verbs = []string{create, get, list, listAnew, mount, mountPair, remove}
	shown = []string{remora, helpers, floor}
)

// rest is memory, start and docker run.
func (r *Results) rest() string {
	var rows [][]string
	for _, m := range r.Memory {
		if m.Peer == synced {
			continue
		}
		start := "–"
		if s := r.startsOf(m.Peer, m.Volumes); len(s) > 0 {
			start = span(median(s) * 1e6)
		}
		rows = append(rows, []string{commas(m.Volumes), m.Peer, start, mib(m.Idle), mib(m.Loaded)})
	}
	text := table([]string{"Volumes:", "", "Start:", "Idle memory:", "After the load:"}, rows)
	if len(r.Runs) == 0 {
		return text
	}
	var local, ours []float64
	for _, x := range r.Runs {
		local, ours = append(local, x.Local), append(ours, x.Remora)
	}
	line := func(name string, ms []float64) []string {
		return []string{name, span(median(ms) * 1e3), span(slices.Min(ms) * 1e3), span(slices.Max(ms) * 1e3)}
	}
	head := []string{fmt.Sprintf("`docker run`, %d pairs", len(r.Runs)), "Median:", "Fastest:", "Slowest:"}
	return text + "\n" + table(head, [][]string{line("local", local), line(remora, ours)})
}

// all is every number, folded away.
func (r *Results) all() string {
	volumes, clients := r.scales()
	var b strings.Builder
	for _, n := range volumes {
		for _, c := range clients {
			var rows [][]string
			for _, verb := range verbs {
				title := "**" + verb + "**"
				for _, peer := range append(slices.Clone(shown), synced) {
					k := key{verb, n, c}
					s, ok := r.of(peer, k)
					if !ok {
						continue
					}
					cells := []string{title, peer, count(s.rate), span(s.p50), span(s.p99), "–", ""}
					if s.cpuKnown {
						cells[5] = span(s.cpu)
					}
					if verb == mount || verb == listAnew {
						cells[2] = "–" // part of a batch has no rate of its own
					}
					if peer != floor {
						cells[6] = r.compare(peer, floor, k, p50).times()
					}
					rows, title = append(rows, cells), ""
				}
			}
			fmt.Fprintf(&b, "<details>\n<summary>%s volumes, %s</summary>\n\n", commas(n), callers(c))
			b.WriteString(table([]string{"", "", "Calls/s:", "p50:", "p99:", "CPU per call:", "p50 to the floor's:"}, rows))
			b.WriteString("\n</details>\n\n")
		}
	}
	return b.String()
}
