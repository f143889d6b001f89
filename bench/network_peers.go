package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Nebula is built beside the project, and is in no go.mod of it. The proxy serves the newest that the project's Go
// builds, but not the fork of a package that it has for small changes: the original stands in its place.
const (
	nebulaModule, nebulaVersion = "github.com/slackhq/nebula", "v1.11.2"
	netlinkFork                 = "github.com/DefinedNet/netlink"
	netlinkOrigin, netlinkAt    = "github.com/vishvananda/netlink", "v1.3.1"
)

// buildNebula builds its two programs in the directory of the suite.
func (s *networkSuite) buildNebula() error {
	ctx, stop := context.WithTimeout(s.ctx, 5*time.Minute)
	defer stop()
	dir := filepath.Join(s.dir, "nebula-build")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, leftOut{fmt.Errorf("it cannot be built: go %s: %w: %.300s", args[0], err, stderr.String())}
		}
		return out, nil
	}
	if _, err := run("mod", "init", "nebula-build"); err != nil {
		return err
	}
	out, err := run("mod", "download", "-json", netlinkOrigin+"@"+netlinkAt)
	if err != nil {
		return err
	}
	var origin struct{ Dir string }
	if err := json.Unmarshal(out, &origin); err != nil {
		return err
	}
	if err := renamed(origin.Dir, filepath.Join(dir, "netlink"), netlinkOrigin, netlinkFork); err != nil {
		return err
	}
	if _, err := run("mod", "edit", "-require", nebulaModule+"@"+nebulaVersion, "-replace", netlinkFork+"=./netlink"); err != nil {
		return err
	}
	for _, program := range []string{"nebula", "nebula-cert"} {
		if _, err := run("build", "-o", filepath.Join(s.dir, program), nebulaModule+"/cmd/"+program); err != nil {
			return err
		}
	}
	return nil
}

// renamed copies a module without its tests, under another name.
func renamed(from, to, old, name string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if strings.HasSuffix(path, "_test.go") {
			return os.Remove(path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(text), old, name)), 0o600)
	})
}

// nebulaWay routes containers' subnets through Nebula, as its "unsafe routes".
func (s *networkSuite) nebulaWay() (*way, error) {
	if err := s.buildNebula(); err != nil {
		return nil, err
	}
	const mtu = 1300 // its default
	h, c, err := s.connected("n", mtu)
	if err != nil {
		return nil, err
	}
	cert := func(args ...string) error {
		cmd := exec.CommandContext(s.ctx, "./nebula-cert", args...)
		cmd.Dir = s.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nebula-cert: %w: %s", err, out)
		}
		return nil
	}
	if err := cert("ca", "-name", "bench"); err != nil {
		return nil, err
	}
	var pids []int
	for i := range h {
		name := fmt.Sprintf("host%d", i)
		if err := cert("sign", "-name", name, "-networks", fmt.Sprintf("10.77.0.%d/24", i+1), "-unsafe-networks", fmt.Sprintf("10.66.%d.0/24", i+1)); err != nil {
			return nil, err
		}
		config := strings.NewReplacer("DIR", s.dir, "NAME", name, "PEER", fmt.Sprint(2-i), "MTU", fmt.Sprint(mtu)).Replace(`
pki: {ca: DIR/ca.crt, cert: DIR/NAME.crt, key: DIR/NAME.key}
static_host_map: {"10.77.0.PEER": ["10.9.0.PEER:4242"]}
lighthouse: {am_lighthouse: false}
listen: {host: 0.0.0.0, port: 4242}
tun: {dev: nebula, mtu: MTU, unsafe_routes: [{route: 10.66.PEER.0/24, via: 10.77.0.PEER, mtu: MTU}]}
firewall: {outbound: [{port: any, proto: any, host: any, local_cidr: any}], inbound: [{port: any, proto: any, host: any, local_cidr: any}]}
logging: {level: error, format: text}
`)
		path := filepath.Join(s.dir, name+".yml")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			return nil, err
		}
		pid, err := h[i].start(filepath.Join(s.dir, "nebula"), "-config", path)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return &way{hosts: h, from: c[0], to: c[1], address: "10.66.2.2", tunnels: func() []int { return pids }}, nil
}

// swarmWay is the overlay of Docker's Swarm, of two engines on two hosts.
func (s *networkSuite) swarmWay() (*way, error) {
	if err := missing(); err != nil {
		return nil, leftOut{err}
	}
	h, err := s.pair("s", false)
	if err != nil {
		return nil, err
	}
	var engines [2]*engine
	for i := range h {
		if engines[i], err = s.engineIn(h[i]); err != nil {
			return nil, err
		}
	}
	s.results.Machine.Engine = said("docker", "--host", "unix://"+engines[0].dir+"/run/docker.sock", "version", "--format", "{{.Server.Version}}")
	if err := engines[0].docker("swarm", "init", "--advertise-addr", hostAddress(0, false), "--default-addr-pool", "10.70.0.0/16"); err != nil {
		return nil, err
	}
	token, err := engines[0].said("swarm", "join-token", "-q", "worker")
	if err != nil {
		return nil, err
	}
	if err := engines[1].docker("swarm", "join", "--token", token, hostAddress(0, false)+":2377"); err != nil {
		return nil, err
	}
	if err := engines[0].docker("network", "create", "--driver", "overlay", "--attachable", "--subnet", "10.66.0.0/16", "bench"); err != nil {
		return nil, err
	}
	w := &way{hosts: h}
	for i, e := range engines {
		var id string
		err := until(30*time.Second, time.Second, func() (err error) {
			id, err = e.said("run", "-d", "--network", "bench", image, "/bin/busybox", "sleep", "100000")
			return err
		})
		if err != nil {
			return nil, err
		}
		s.undo = append(s.undo, func() error { return e.docker("rm", "-f", id) })
		pid, err := e.said("inspect", "--format", "{{.State.Pid}}", id)
		if err != nil {
			return nil, err
		}
		address, err := e.said("inspect", "--format", `{{(index .NetworkSettings.Networks "bench").IPAddress}}`, id)
		if err != nil {
			return nil, err
		}
		box := &node{s, fmt.Sprintf("%s-sc%d", s.prefix, i)}
		if err := command("ip", "netns", "attach", box.ns, pid); err != nil {
			return nil, err
		}
		s.undo = append(s.undo, func() error { return command("ip", "netns", "del", box.ns) })
		if i == 0 {
			w.from = box
		} else {
			w.to, w.address = box, address
		}
	}
	return w, nil
}

// said runs docker and returns what it printed.
func (e *engine) said(args ...string) (string, error) {
	out, err := e.command(args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("docker %s: %w: %s", args[0], err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// engineIn starts an engine in a host, until the end of the part.
func (s *networkSuite) engineIn(n *node) (*engine, error) {
	e := &engine{dir: filepath.Join(s.dir, n.ns), ended: make(chan error, 1)}
	if err := os.MkdirAll(e.pluginDir(), 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(e.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	// /run is its own, as the namespaces of an overlay lie there, and so is the place where they are mounted.
	script := `mount --bind "$0/run" /run && mkdir -p /run/netns && exec dockerd --host=unix:///run/docker.sock --data-root="$0/data" ` +
		`--exec-root="$0/exec" --pidfile="$0/pid" --bridge=none --iptables=true --cgroup-parent="/remora-$1"`
	e.cmd = n.command(context.WithoutCancel(s.ctx), "unshare", "--mount", "--propagation", "private", "sh", "-c", script, e.dir, n.ns)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { e.ended <- e.cmd.Wait() }()
	s.undo = append(s.undo, e.stop)
	if err := until(time.Minute, 100*time.Millisecond, func() error { return e.docker("version") }); err != nil {
		b, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("dockerd: %w: %s", err, b)
	}
	archive := filepath.Join(e.dir, "image.tar")
	return e, errors.Join(writeImage(archive), e.docker("import", archive, image))
}
