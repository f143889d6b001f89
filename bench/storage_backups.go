package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The peers of backups, and what each does in its turn.
const (
	restic        = "restic"
	gzipped       = "tar+gzip"
	tarred        = "tar+zstd"
	benchPassword = "correct horse battery staple"
)

var (
	backupPeers = []string{remora, restic, gzipped, tarred}
	// backupGoals are the peers that a backup is to be as fast as.
	backupGoals = []string{restic, gzipped}
	phases      = []string{"first", "unchanged", "1 % changed", "restore"}
)

// keeper backs up one directory, and restores it.
type keeper interface {
	// backup makes a backup, and restore gets the newest into a new directory.
	backup() (used, error)
	restore() (used, string, error)
	// repository is where the backups lie.
	repository() string
	// forget removes what restore has made.
	forget() error
}

// used is what the processes of a peer used.
type used struct {
	cpu  time.Duration
	peak int64
}

func (u *used) add(ru *syscall.Rusage) {
	u.cpu += time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// follow looks at the peak of memory of a process that has started until its end. What
// wait4(2) tells of it is no use: in that counts what the bench held when it forked.
func (u *used) follow(pid int) (stop func()) {
	ended, done := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		for {
			if n, err := peakOf(pid); err == nil {
				most = max(most, n)
			}
			select {
			case <-ended:
				done <- most
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() { close(ended); u.peak += <-done }
}

// peakOf returns the most memory that a process has held since it began, or since that was
// reset (proc(5), VmHWM).
func peakOf(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.Join(err, errors.New("no VmHWM"))
}

// backups measures backups of the same data by several programs, to a directory each on the
// same file system.
func (s *storageSuite) backups() error {
	s.results.Backups = nil
	at, err := s.disk("ext4", "ext4")
	if err != nil {
		return err
	}
	pool := filepath.Join(at, "pool")
	if err := os.Mkdir(pool, 0o755); err != nil {
		return err
	}
	tables := fmt.Sprintf("[pool.p]\npath = %q\n", pool)
	for round := range s.backupRounds {
		tables += fmt.Sprintf("[repository.r%d]\nurl = %q\npassword_env = \"BENCH_PASSWORD\"\n", round, fmt.Sprintf("%s/remora-%d", at, round))
	}
	h, err := s.serve("backup", tables)
	if err != nil {
		return err
	}
	data, err := s.volume(h, "p", "data")
	if err != nil {
		return err
	}
	if err := s.step("backups: write %d MiB", s.backupSize>>20); err != nil {
		return err
	}
	m := newMix(data, s.backupSize)
	if err := m.write(); err != nil {
		return err
	}
	s.results.BackupBytes, s.results.BackupFiles = m.bytes, len(m.all)
	for round := range s.backupRounds {
		keepers := map[string]keeper{
			remora:  &remoraKeeper{h: h, repo: "r" + strconv.Itoa(round), dir: fmt.Sprintf("%s/remora-%d", at, round)},
			restic:  &resticKeeper{data: data, dir: fmt.Sprintf("%s/restic-%d", at, round), cache: fmt.Sprintf("%s/cache-%d", at, round), to: at + "/restic-restored"},
			gzipped: &gzipKeeper{tarball: s.tarball, data: data, dir: fmt.Sprintf("%s/gzip-%d", at, round), to: at + "/gzip-restored"},
			tarred:  &tarKeeper{data: data, dir: fmt.Sprintf("%s/tar-%d", at, round), to: at + "/tar-restored"},
		}
		if err := s.backupRound(at, data, round, keepers, m); err != nil {
			return err
		}
		for _, name := range backupPeers {
			if err := os.RemoveAll(keepers[name].repository()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *storageSuite) backupRound(at, data string, round int, keepers map[string]keeper, m *mix) error {
	if _, _, err := keepers[remora].(*remoraKeeper).h.run("backup", "init", keepers[remora].(*remoraKeeper).repo); err != nil {
		return err
	}
	if err := keepers[restic].(*resticKeeper).init(); err != nil {
		return err
	}
	for _, name := range []string{gzipped, tarred} {
		if err := os.Mkdir(keepers[name].repository(), 0o700); err != nil {
			return err
		}
	}
	for i, phase := range phases {
		if i == 2 {
			if err := m.change(); err != nil {
				return err
			}
			s.results.Changed = m.changed
		}
		order := slices.Clone(backupPeers)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, name := range order {
			k := keepers[name]
			if err := flushed(at); err != nil {
				return err
			}
			var u used
			var to string
			var err error
			begin := time.Now()
			if phase == "restore" {
				u, to, err = k.restore()
			} else {
				u, err = k.backup()
			}
			if err = errors.Join(err, flushed(at)); err != nil {
				return fmt.Errorf("%s, %s: %w", name, phase, err)
			}
			sample := BackupSample{Peer: name, Phase: phase, Round: round, Seconds: time.Since(begin).Seconds(), CPU: u.cpu.Seconds(), Peak: u.peak}
			if sample.Stored, err = sizeOf(k.repository()); err != nil {
				return err
			}
			s.results.Backups = append(s.results.Backups, sample)
			if err := s.step("backups: round %d of %d: %s, %s: %.1f s", round+1, s.backupRounds, name, phase, sample.Seconds); err != nil {
				return err
			}
			if to == "" {
				continue
			}
			if round == 0 {
				if err := command("diff", "--recursive", "--brief", "--no-dereference", data, to); err != nil {
					return fmt.Errorf("%s restored something else: %w", name, err)
				}
			}
			if err := k.forget(); err != nil {
				return err
			}
		}
	}
	return nil
}

func sizeOf(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// remoraKeeper counts the daemon, and of the command its processor time.
type remoraKeeper struct {
	h         *host
	repo, dir string
	id        string
}

func (k *remoraKeeper) repository() string { return k.dir }

// watch runs a command with what the daemon uses meanwhile. Its peak of memory is counted anew
// (proc(5), clear_refs).
func (k *remoraKeeper) watch(args ...string) (out string, u used, err error) {
	proc := fmt.Sprintf("/proc/%d/", k.h.cmd.Process.Pid)
	if err := os.WriteFile(proc+"clear_refs", []byte("5"), 0); err != nil {
		return "", u, err
	}
	before, err := k.h.cpu()
	if err != nil {
		return "", u, err
	}
	out, ru, err := k.h.run(args...)
	if err != nil {
		return "", u, err
	}
	u.add(ru)
	after, err1 := k.h.cpu()
	most, err2 := peakOf(k.h.cmd.Process.Pid)
	u.cpu += after - before
	u.peak = most
	return out, u, errors.Join(err1, err2)
}

func (k *remoraKeeper) backup() (u used, err error) {
	k.id, u, err = k.watch("backup", "create", "--repo", k.repo, "--pool", "p", "data")
	return u, err
}

func (k *remoraKeeper) restore() (u used, to string, err error) {
	if _, u, err = k.watch("backup", "restore", "--repo", k.repo, k.id, "--to", "restored"); err != nil {
		return u, "", err
	}
	to, _, err = k.h.run("volume", "path", "--pool", "p", "restored")
	return u, to, err
}

func (k *remoraKeeper) forget() error {
	_, _, err := k.h.run("volume", "rm", "--yes", "--pool", "p", "restored")
	return err
}

type resticKeeper struct{ data, dir, cache, to string }

func (k *resticKeeper) repository() string { return k.dir }

func (k *resticKeeper) run(args ...string) (u used, err error) {
	cmd := exec.Command("restic", append([]string{"--quiet", "--repo", k.dir, "--cache-dir", k.cache}, args...)...)
	cmd.Env, cmd.Dir = append(os.Environ(), "RESTIC_PASSWORD="+benchPassword), k.data
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return u, err
	}
	stop := u.follow(cmd.Process.Pid)
	err = cmd.Wait()
	stop()
	if err != nil {
		return u, fmt.Errorf("restic %s: %w: %s", args[0], err, out.Bytes())
	}
	u.add(cmd.ProcessState.SysUsage().(*syscall.Rusage))
	return u, nil
}

func (k *resticKeeper) init() error {
	_, err := k.run("init", "--repository-version", "2") // which compresses, as the others do
	return err
}

func (k *resticKeeper) backup() (used, error) { return k.run("backup", ".") }

func (k *resticKeeper) restore() (u used, to string, err error) {
	u, err = k.run("restore", "latest", "--target", k.to)
	return u, k.to, err
}

func (k *resticKeeper) forget() error {
	return errors.Join(os.RemoveAll(k.to), os.RemoveAll(k.cache))
}

// gzipKeeper does what docker-volume-backup does without settings of its own: an archive of
// everything each time, compressed by gzip. It encrypts nothing.
type gzipKeeper struct {
	tarball, data, dir, to string
	n                      int
}

func (k *gzipKeeper) repository() string { return k.dir }

func (k *gzipKeeper) archive() string { return filepath.Join(k.dir, strconv.Itoa(k.n)+".tar.gz") }

func (k *gzipKeeper) backup() (u used, err error) {
	k.n++
	c := exec.Command(k.tarball, k.data, k.archive())
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return u, err
	}
	stop := u.follow(c.Process.Pid)
	err = c.Wait()
	stop()
	if err == nil {
		u.add(c.ProcessState.SysUsage().(*syscall.Rusage))
	}
	return u, err
}

func (k *gzipKeeper) restore() (u used, to string, err error) {
	if err := os.Mkdir(k.to, 0o700); err != nil {
		return u, "", err
	}
	u, err = pipe(exec.Command("gzip", "-d", "-c", k.archive()), exec.Command("tar", "-C", k.to, "-xf", "-"))
	return u, k.to, err
}

func (k *gzipKeeper) forget() error { return os.RemoveAll(k.to) }

// tarKeeper makes the same archive with zstd on all processors.
type tarKeeper struct {
	data, dir, to string
	n             int
}

func (k *tarKeeper) repository() string { return k.dir }

// pipe runs two programs, the output of the first being the input of the second.
func pipe(first, second *exec.Cmd) (u used, err error) {
	if second.Stdin, err = first.StdoutPipe(); err != nil {
		return u, err
	}
	if err := errors.Join(second.Start(), first.Start()); err != nil {
		return u, err
	}
	stops := []func(){u.follow(first.Process.Pid), u.follow(second.Process.Pid)}
	err = errors.Join(second.Wait(), first.Wait())
	for _, stop := range stops {
		stop()
	}
	if err != nil {
		return u, err
	}
	u.add(first.ProcessState.SysUsage().(*syscall.Rusage))
	u.add(second.ProcessState.SysUsage().(*syscall.Rusage))
	return u, nil
}

func (k *tarKeeper) archive() string { return filepath.Join(k.dir, strconv.Itoa(k.n)+".tar.zst") }

func (k *tarKeeper) backup() (used, error) {
	k.n++
	return pipe(exec.Command("tar", "-C", k.data, "-cf", "-", "."), exec.Command("zstd", "-q", "-T0", "-3", "-o", k.archive()))
}

func (k *tarKeeper) restore() (u used, to string, err error) {
	if err := os.Mkdir(k.to, 0o700); err != nil {
		return u, "", err
	}
	u, err = pipe(exec.Command("zstd", "-q", "-d", "-c", k.archive()), exec.Command("tar", "-C", k.to, "-xf", "-"))
	return u, k.to, err
}

func (k *tarKeeper) forget() error { return os.RemoveAll(k.to) }
