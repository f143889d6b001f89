// Package lab makes hosts on this machine for end-to-end tests: each has its own mount,
// network and host name namespaces and its own /run, /etc/docker and /var/lib, so that an
// engine and a Remora daemon live in it as on a machine of their own, and find each
// other where they look for each other.
//
// It needs root and the programs of an engine; a test asks internal/testenv first. What a
// host started ends with the test, by process ID.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Lab is what the hosts of one test binary share: the binary under test and the image
// that containers are made of.
type Lab struct {
	// Remora is the path of the binary under test.
	Remora string
	// Image is the path of a tar that "docker import" takes.
	Image string
}

// New builds the binary and the image in dir, which the caller removes.
func New(dir, busybox string) (*Lab, error) {
	l := &Lab{Remora: filepath.Join(dir, "remora"), Image: filepath.Join(dir, "image.tar")}
	build := exec.Command("go", "build", "-trimpath", "-o", l.Remora, "github.com/remora-plugins/remora/cmd/remora")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w: %s", err, out)
	}
	return l, writeImage(l.Image, busybox)
}

// Host is one host. Its methods fail the test where the set-up goes wrong, and leave to
// the test what is the matter of the test.
type Host struct {
	lab  *Lab
	t    testing.TB
	Name string
	// Dir holds the host's own directories: Dir/run is its /run, and so on.
	Dir string
	pid int

	mu      sync.Mutex
	started []*Process
}

// private are the directories that a host has for itself.
var private = []string{"run", "etc/docker", "etc/containers", "etc/cni", "var/lib/cni", "var/lib/docker", "var/lib/remora", "etc/remora"}

// boot is run by sh as the first process of a host. It ends with the pipe of its input.
const boot = `set -e
mount --make-rprivate /
mount -t tmpfs -o mode=0755 run "$1/run"
for d in $2; do mkdir -p "/$d" "$1/$d"; mount --bind "$1/$d" "/$d"; done
case "$1" in
/dev/shm/*) ;; # here is all that the host has
*) mount -t tmpfs -o mode=1777 shm /dev/shm ;; # podman's locks, which are not for two hosts
esac
mount --make-rshared /
mkdir -p /run/lock /run/docker/plugins
if [ ! -e /sys/fs/cgroup/cgroup.controllers ] && [ ! -d /sys/fs/cgroup/memory ]; then
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
hostname "$3"
ip link set lo up
echo ready
exec cat >/dev/null
`

// Host makes a host. share are directories of the machine that are the same in every
// host, such as storage that two hosts share; all else outside the private directories
// is shared as well, so this only documents the test.
func (l *Lab) Host(t testing.TB, name string) *Host {
	t.Helper()
	h := &Host{lab: l, t: t, Name: name, Dir: t.TempDir()}
	for _, d := range private {
		must(t, os.MkdirAll(filepath.Join(h.Dir, d), 0o755))
	}
	in, hold, err := os.Pipe()
	must(t, err)
	out, ready, err := os.Pipe()
	must(t, err)
	cmd := exec.Command("unshare", "--mount", "--net", "--uts", "--ipc", "sh", "-c", boot, "boot", h.Dir, strings.Join(private, " "), name)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, ready, &stderr
	must(t, cmd.Start())
	must(t, errors.Join(in.Close(), ready.Close()))
	h.pid = cmd.Process.Pid
	t.Cleanup(func() {
		h.Destroy()
		_ = hold.Close()
		_ = cmd.Wait() // ended by the closed pipe or by Destroy
		h.unmount()
	})
	word := make([]byte, 5)
	if _, err := out.Read(word); err != nil || string(word) != "ready" {
		t.Fatalf("host %s: boot: %v: %s", name, err, stderr.String())
	}
	must(t, out.Close())
	return h
}

// unmount takes down what the host mounted below its directory, seen from outside. The
// namespace is gone by then, so this is only for what leaked out of it.
func (h *Host) unmount() {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		h.t.Errorf("host %s: %v", h.Name, err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], h.Dir+"/") {
			h.t.Errorf("host %s: mount leaked to the machine: %s", h.Name, f[4])
			_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
	// The mountpoints of a daemon that was killed cannot be removed as they are.
	_ = exec.Command("chattr", "-R", "-f", "-i", filepath.Join(h.Dir, "run")).Run()
}

// Command returns a command that runs in the host.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(h.pid), "--mount", "--net", "--uts", "--ipc", "--wd=/", "--", name,
	}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix:///run/docker.sock", "HOME=/run")
	return cmd
}

// Run runs a command in the host and returns what it printed, with the error text in the
// error.
func (h *Host) Run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.t.Context()), 2*time.Minute)
	defer cancel()
	cmd := h.Command(ctx, name, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Must runs a command in the host and fails the test where it fails.
func (h *Host) Must(name string, args ...string) string {
	h.t.Helper()
	out, err := h.Run(name, args...)
	must(h.t, err)
	return out
}

// Fails runs a command that must fail, and returns the text of its error.
func (h *Host) Fails(name string, args ...string) string {
	h.t.Helper()
	out, err := h.Run(name, args...)
	if err == nil {
		h.t.Fatalf("%s %s: succeeded, and must not: %s", name, strings.Join(args, " "), out)
	}
	return err.Error()
}

// Path returns where a file of the host lies on the machine.
func (h *Host) Path(p string) string {
	return fmt.Sprintf("/proc/%d/root%s", h.pid, p)
}

// Write writes a file in the host.
func (h *Host) Write(path, content string) {
	h.t.Helper()
	must(h.t, os.MkdirAll(filepath.Dir(h.Path(path)), 0o755))
	must(h.t, os.WriteFile(h.Path(path), []byte(content), 0o600))
}

// Process is a daemon that runs in a host.
type Process struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
	err  error
}

// Start starts a daemon in the host; its output goes to a file that is shown when the test
// fails. env has more "KEY=VALUE" pairs.
func (h *Host) Start(env []string, name string, args ...string) *Process {
	h.t.Helper()
	log, err := os.CreateTemp(h.Dir, filepath.Base(name)+"-*.log")
	must(h.t, err)
	cmd := h.Command(context.WithoutCancel(h.t.Context()), name, args...)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(h.t, cmd.Start())
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.started = append(h.started, p)
	return p
}

// PID returns the process ID: nsenter becomes the daemon.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process at once, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.done
}

// Stop asks the process to end, and kills it when it has not after d and [Patience]. It returns how it
// ended.
func (p *Process) Stop(d time.Duration) error {
	d = max(d, Patience)
	_ = p.Signal(syscall.SIGTERM) // it may be gone already
	select {
	case <-p.done:
		return p.err
	case <-time.After(d):
		p.Kill()
		return fmt.Errorf("did not end within %s", d)
	}
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.done }

// Log returns what the process has printed.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Destroy ends everything that runs in the host, at once, as if its power had failed.
func (h *Host) Destroy() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.t.Failed() {
		for _, p := range h.started {
			h.t.Logf("host %s: %s:\n%s", h.Name, filepath.Base(p.log.Name()), tail(p.Log(), 25))
		}
	}
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/uts", h.pid))
	if err != nil {
		return
	}
	// Containers have namespaces of their own, their shims have the host's: kill these
	// first, again and again until nobody is left who could start another.
	for range 100 {
		left := inNamespace(ns, h.pid)
		if len(left) == 0 {
			break
		}
		for _, pid := range left {
			for _, child := range append(children(pid), pid) {
				_ = syscall.Kill(child, syscall.SIGKILL)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, p := range h.started {
		<-p.done
	}
	h.started = nil
}

// inNamespace returns the processes in a UTS namespace, without one.
func inNamespace(ns string, without int) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == without {
			continue
		}
		if link, err := os.Readlink("/proc/" + e.Name() + "/ns/uts"); err == nil && link == ns {
			pids = append(pids, pid)
		}
	}
	return pids
}

// children returns the children of a process.
func children(pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for f := range strings.FieldsSeq(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
