package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The names of the peers, in the order in which they are shown.
const (
	remora  = "remora"
	helpers = "helpers"
	synced  = "helpers+fsync"
	floor   = "floor"
)

// The size of one tick of the processor times in /proc/PID/stat (proc_pid_stat(5),
// USER_HZ), which is the same on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// nameFormat makes the name of the volume with a number; it is as long as a name that
// Compose makes.
const nameFormat = "project_data-%06d"

func nameOf(i int) string { return fmt.Sprintf(nameFormat, i) }

// binaries are the programs under test, and the directory that stands for /run.
type binaries struct{ remora, helpers, floor, tarball, run string }

// build makes the programs under test, each from its own module.
func build(dir, daemon string) (binaries, error) {
	b := binaries{remora: daemon, helpers: filepath.Join(dir, "helpers"), floor: filepath.Join(dir, "floor"), tarball: filepath.Join(dir, "tarball")}
	type program struct{ dir, pkg, out string }
	programs := []program{{".", "./peers/onefile", b.helpers}, {".", "./peers/floor", b.floor}, {".", "./peers/tarball", b.tarball}}
	if daemon == "" {
		b.remora = filepath.Join(dir, "remora")
		programs = append(programs, program{"..", "./cmd/remora", b.remora})
	}
	for _, p := range programs {
		c := exec.Command("go", "build", "-C", p.dir, "-trimpath", "-o", p.out, p.pkg)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return b, fmt.Errorf("build %s: %w\n%s", p.pkg, err, out)
		}
	}
	return b, nil
}

// peer is one plugin: a program, its directory and its socket.
type peer struct {
	name   string
	dir    string
	socket string
	log    string
	args   []string
	env    []string

	cmd   *exec.Cmd
	ended chan error
}

// newPeer describes a peer that serves n volumes and has its files in dir.
func newPeer(b binaries, name, dir string, n int) *peer {
	p := &peer{name: name, dir: dir, socket: filepath.Join(dir, "s"), log: filepath.Join(b.run, filepath.Base(dir)+".log")}
	switch name {
	case remora:
		p.socket = filepath.Join(dir, "remora.sock")
		p.args = []string{b.remora, "daemon"}
		p.env = []string{"REMORA_PLUGIN_DIR=" + dir, "REMORA_RUN_DIR=" + b.run + dir, "REMORA_STATE_DIR=" + dir + "/state"}
	case helpers, synced:
		p.args = []string{b.helpers, "-socket", p.socket, "-dir", dir}
		if name == synced {
			p.args = append(p.args, "-fsync")
		}
	case floor:
		p.args = []string{b.floor, "-socket", p.socket, "-dir", dir, "-volumes", strconv.Itoa(n), "-name", nameFormat}
	}
	return p
}

// start runs the peer, its log in a file that is in memory too, and returns how long it took from then to its
// first answer about a volume; an empty volume asks for the list.
func (p *peer) start(volume string) (time.Duration, error) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	if err := os.Remove(p.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		return 0, err
	}
	p.ended = make(chan error, 1)
	go func() { p.ended <- p.cmd.Wait() }()
	for time.Since(begin) < time.Minute {
		if err := p.ask(volume); err == nil {
			return time.Since(begin), nil
		}
		select {
		case err := <-p.ended:
			b, _ := os.ReadFile(p.log)
			return 0, fmt.Errorf("%s ended: %w: %s", p.name, err, b)
		case <-time.After(time.Millisecond):
		}
	}
	return 0, errors.Join(fmt.Errorf("%s does not answer", p.name), p.stop())
}

func (p *peer) ask(volume string) error {
	c, err := dial(p.socket)
	if err != nil {
		return err
	}
	defer c.close()
	if volume == "" {
		_, err = c.call("VolumeDriver.List", []byte("{}"))
		return err
	}
	return c.volume("Get", volume, "", volume)
}

// stop ends the peer. Those that do not know SIGTERM die of it.
func (p *peer) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(20 * time.Second):
		return errors.Join(fmt.Errorf("%s does not stop", p.name), p.cmd.Process.Kill())
	}
}

// cpu returns the processor time that the peer has used, in ticks of 10 ms.
func (p *peer) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The fields after the name of the program, which may hold anything, begin with
	// the third; utime and stime are the 14th and 15th.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err1 := strconv.Atoi(f[14-3])
	system, err2 := strconv.Atoi(f[15-3])
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// rss returns the peer's resident memory in bytes.
func (p *peer) rss() (int64, error) { return rssOf(p.cmd.Process.Pid) }

// rssOf returns the resident memory of a process in bytes.
func rssOf(pid int) (int64, error) { return memoryOf(pid, "VmRSS:") }

// ownOf returns the resident memory of a process without the pages of files, which are the page cache's too: how
// many of a program's are mapped depends on the file system that it lies on.
func ownOf(pid int) (int64, error) { return memoryOf(pid, "RssAnon:") }

func memoryOf(pid int, line string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, line); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no %s in the status of process %d", line, pid)
}

// seed gives a peer that does not run yet its n volumes. The helpers peer gets its state
// file written, since to make them by calls would take it hours; remora makes its own,
// once it runs.
func (p *peer) seed(n int) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	if p.name != helpers && p.name != synced {
		return nil
	}
	type entry struct{ Mountpoint, CreatedAt string }
	state := struct{ Volumes map[string]entry }{make(map[string]entry, n)}
	for i := range n {
		e := entry{filepath.Join(p.dir, "volumes", nameOf(i)), time.Now().UTC().Format(time.RFC3339)}
		if err := os.MkdirAll(e.Mountpoint, 0o755); err != nil {
			return err
		}
		state.Volumes[nameOf(i)] = e
	}
	b, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.dir, "state.json"), b, 0o600)
}

// fill makes the volumes from from to n by calls.
func (p *peer) fill(n int) error {
	const clients = 32
	cs, err := hire(p.socket, clients)
	if err != nil {
		return err
	}
	defer cs.close()
	_, _, err = cs.run(limit{least: n, most: (n + clients - 1) / clients}, func(w, i int, c *client) error {
		if at := i*clients + w; at < n {
			return c.volume("Create", nameOf(at), "", "")
		}
		return nil
	})
	return err
}
