package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The verbs of managed plugins, in the order in which a round runs them.
const (
	installVerb = "install"
	enableVerb  = "enable, to the first answer"
	disableVerb = "disable"
)

var pluginVerbs = []string{installVerb, enableVerb, disableVerb}

// dockerd is the peer of managed plugins.
const dockerd = "dockerd"

// PluginSample is how long one verb took on one side of a round.
type PluginSample struct {
	Peer   string  `json:"peer"`
	Verb   string  `json:"verb"`
	Round  int     `json:"round"`
	Millis float64 `json:"ms"`
}

// PluginMemory is what an engine's process holds while it runs so many plugins.
type PluginMemory struct {
	Peer    string `json:"peer"`
	Plugins int    `json:"plugins"`
	Bytes   int64  `json:"bytes"`
}

// pluginPlan says how much is measured.
type pluginPlan struct {
	rounds  int
	plugins int // that run at once, for the memory
	bytes   int // of the plugin, beside its program
}

// side is an engine that runs managed plugins, driven by the docker command.
type side struct {
	name string
	host string // its API's socket
	pid  int
	// sockets is the directory of the socket of a plugin, and the socket's name in it.
	sockets func(plugin string) (dir, name string, err error)
}

// pluginSuite measures managed plugins.
type pluginSuite struct {
	pluginPlan
	bin     binaries
	scratch string
	say     func(format string, args ...any)
	results *PluginResults
}

func (s *pluginSuite) run() (err error) {
	if err := missing(); err != nil {
		return err
	}
	registry, stop, err := s.registry()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	e, err := startEngine(filepath.Join(s.scratch, "e"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	theirs := side{name: dockerd, host: e.dir + "/run/docker.sock", pid: e.cmd.Process.Pid, sockets: func(plugin string) (string, string, error) {
		id, err := docker(e.dir+"/run/docker.sock", "plugin", "inspect", "--format", "{{.ID}}", plugin)
		return filepath.Join(e.pluginDir(), id), "s", err
	}}
	s.results.Machine.Engine, err = docker(theirs.host, "version", "--format", "{{.Server.Version}}")
	if err != nil {
		return err
	}
	p := newPeer(s.bin, remora, filepath.Join(s.scratch, "r"), 0)
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	if _, err := p.start(""); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	ours := side{name: remora, host: s.bin.run + p.dir + "/engine.sock", pid: p.cmd.Process.Pid, sockets: func(plugin string) (string, string, error) {
		return p.dir, plugin + ".sock", nil
	}}
	reference := registry + "/floor:1"
	s.say("make the plugin and push it")
	if err := s.push(theirs, reference); err != nil {
		return err
	}
	sides := []side{ours, theirs}
	for round := range s.rounds + 1 { // the first one warms up
		s.say("round %d of %d", round, s.rounds)
		for i := range sides {
			if err := s.round(sides[(i+round)%2], reference, round); err != nil {
				return err
			}
		}
	}
	for _, x := range sides {
		if err := s.memory(x, reference); err != nil {
			return err
		}
	}
	return nil
}

// round installs, enables, disables and removes the plugin.
func (s *pluginSuite) round(x side, reference string, round int) error {
	const name = "bench"
	timed := func(verb string, do func() error) error {
		begin := time.Now()
		err := do()
		if round > 0 {
			s.results.Samples = append(s.results.Samples, PluginSample{x.name, verb, round, float64(time.Since(begin)) / float64(time.Millisecond)})
		}
		return err
	}
	verb := func(args ...string) func() error {
		return func() error {
			_, err := docker(x.host, append([]string{"plugin"}, args...)...)
			return err
		}
	}
	if err := timed(installVerb, verb("install", "--disable", "--grant-all-permissions", "--alias", name, reference)); err != nil {
		return err
	}
	dir, socket, err := x.sockets(name)
	if err != nil {
		return err
	}
	err = timed(enableVerb, func() error {
		if err := verb("enable", name)(); err != nil {
			return err
		}
		return answers(dir, socket)
	})
	if err == nil {
		err = timed(disableVerb, verb("disable", name))
	}
	return errors.Join(err, verb("rm", "--force", name)())
}

// memory runs many plugins at once.
func (s *pluginSuite) memory(x side, reference string) error {
	look := func(n int) error {
		time.Sleep(3 * time.Second)
		bytes, err := rssOf(x.pid)
		s.results.Memory = append(s.results.Memory, PluginMemory{x.name, n, bytes})
		return err
	}
	if err := look(0); err != nil {
		return err
	}
	s.say("%s: %d plugins at once", x.name, s.plugins)
	for i := range s.plugins {
		if _, err := docker(x.host, "plugin", "install", "--grant-all-permissions", "--alias", fmt.Sprint("p", i), reference); err != nil {
			return err
		}
	}
	err := look(s.plugins)
	for i := range s.plugins {
		_, rerr := docker(x.host, "plugin", "rm", "--force", fmt.Sprint("p", i))
		err = errors.Join(err, rerr)
	}
	return err
}

// push has dockerd make the plugin and push it, and forget it.
func (s *pluginSuite) push(x side, reference string) error {
	dir := filepath.Join(s.scratch, "bundle")
	program, err := os.ReadFile(s.bin.floor)
	if err != nil {
		return err
	}
	filler := make([]byte, s.bytes) // half of it can be compressed
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(filler[:len(filler)/2]) // never fails
	config, err := json.Marshal(map[string]any{
		"interface":  map[string]any{"types": []string{"docker.volumedriver/1.0"}, "socket": "s"},
		"entrypoint": []string{"/floor", "-socket", "/run/docker/plugins/s", "-dir", "/data"},
		"network":    map[string]string{"type": "none"},
	})
	err = errors.Join(
		err, os.MkdirAll(dir+"/rootfs/data", 0o755), os.MkdirAll(dir+"/rootfs/run/docker/plugins", 0o755), os.WriteFile(dir+"/config.json", config, 0o644),
		os.WriteFile(dir+"/rootfs/floor", program, 0o755), os.WriteFile(dir+"/rootfs/filler", filler, 0o644),
	)
	for _, args := range [][]string{{"create", reference, dir}, {"push", reference}, {"rm", reference}} {
		if err == nil {
			_, err = docker(x.host, append([]string{"plugin"}, args...)...)
		}
	}
	s.results.PluginBytes = int64(len(program) + len(filler))
	return err
}

// registry starts Debian's docker-registry on loopback.
func (s *pluginSuite) registry() (addr string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr = l.Addr().String()
	dir := filepath.Join(s.scratch, "registry")
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s/data}\nhttp: {addr: %s}\n", dir, addr)
	if err := errors.Join(l.Close(), os.MkdirAll(dir, 0o755), os.WriteFile(dir+"/config.yml", []byte(conf), 0o600)); err != nil {
		return "", nil, err
	}
	cmd := exec.Command("docker-registry", "serve", dir+"/config.yml")
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() error {
		err := cmd.Process.Signal(syscall.SIGKILL) // it keeps nothing
		_ = cmd.Wait()
		return err
	}
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return addr, stop, c.Close()
		}
		if time.Since(begin) > 20*time.Second {
			return "", nil, errors.Join(err, stop())
		}
	}
}

// docker runs the docker command against an engine, and returns what it printed.
func docker(socket string, args ...string) (string, error) {
	out, err := exec.Command("docker", append([]string{"--host", "unix://" + socket}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// answers waits for the first answer of a plugin. The path of a socket is short, and that of a
// directory need not be.
func answers(dir, socket string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	p := peer{socket: fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), socket)}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if err = p.ask(""); err == nil || time.Since(begin) > 20*time.Second {
			return err
		}
	}
}
