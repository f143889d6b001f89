package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// engine is a dockerd of our own: its data, its sockets and its /run are directories of
// the bench, so no other engine of the machine knows of it. It has no bridge and changes
// no firewall.
type engine struct {
	dir   string
	cmd   *exec.Cmd
	ended chan error
}

const image = "remora-bench"

// missing says what the machine lacks to run an engine, nil if nothing.
func missing() error {
	if os.Geteuid() != 0 {
		return errors.New("an engine needs root")
	}
	for _, name := range []string{"dockerd", "docker", "unshare", "busybox"} {
		if _, err := exec.LookPath(name); err != nil {
			return err
		}
	}
	return nil
}

// pluginDir is where the engine looks for plugins, seen from here.
func (e *engine) pluginDir() string { return filepath.Join(e.dir, "run/docker/plugins") }

// startEngine starts an engine in dir, and gives it an image.
func startEngine(dir string) (*engine, error) {
	e := &engine{dir: dir, ended: make(chan error, 1)}
	if err := os.MkdirAll(e.pluginDir(), 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	// A mount namespace of its own, because the place of plugins is a constant in the
	// engine; exec keeps the process ours to end.
	script := `mount --bind "$0/run" /run && exec dockerd --host=unix:///run/docker.sock --data-root="$0/data" ` +
		`--exec-root="$0/exec" --pidfile="$0/pid" --bridge=none --iptables=false --ip-masq=false`
	e.cmd = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, dir)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { e.ended <- e.cmd.Wait() }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if err = e.docker("version"); err == nil {
			break
		}
		select {
		case err := <-e.ended:
			b, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("dockerd ended: %w: %s", err, b)
		default:
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(err, e.stop())
		}
	}
	archive := filepath.Join(dir, "image.tar")
	if err := errors.Join(writeImage(archive), e.docker("import", archive, image)); err != nil {
		return nil, errors.Join(err, e.stop())
	}
	return e, nil
}

func (e *engine) command(args ...string) *exec.Cmd {
	ctx := context.Background()
	return exec.CommandContext(ctx, "docker", append([]string{"--host", "unix://" + e.dir + "/run/docker.sock"}, args...)...)
}

func (e *engine) docker(args ...string) error {
	if out, err := e.command(args...).CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s: %w: %s", args[0], err, out)
	}
	return nil
}

func (e *engine) stop() error {
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-e.ended:
		return nil
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("dockerd does not stop"), e.cmd.Process.Kill())
	}
}

// writeImage writes the file system of an image that can do one thing: end.
func writeImage(path string) (err error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o755},
		{Typeflag: tar.TypeSymlink, Name: "bin/true", Linkname: "busybox"},
		{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(b))},
	} {
		if err := w.WriteHeader(h); err != nil {
			return err
		}
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Close()
}

// dockerRun times containers that do nothing, each with a volume, on both drivers in turn.
func (s *suite) dockerRun() (err error) {
	if err := missing(); err != nil {
		s.say("docker run is left out: %v", err)
		return nil
	}
	e, err := startEngine(filepath.Join(s.scratch, "engine"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	s.results.Machine.Engine = said("docker", "--host", "unix://"+e.dir+"/run/docker.sock", "version", "--format", "{{.Server.Version}}")
	p := newPeer(s.bin, remora, filepath.Join(s.scratch, "engine-remora"), 0)
	p.socket = filepath.Join(e.pluginDir(), "remora.sock")
	p.env = append(p.env, "REMORA_PLUGIN_DIR="+e.pluginDir())
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	if _, err := p.start(""); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	for _, driver := range []string{"local", remora} {
		if err := e.docker("volume", "create", "--driver", driver, "bench-"+driver); err != nil {
			return err
		}
	}
	once := func(driver string) (float64, error) {
		begin := time.Now()
		err := e.docker("run", "--rm", "--network=none", "--volume", "bench-"+driver+":/data", image, "true")
		return float64(time.Since(begin)) / float64(time.Millisecond), err
	}
	const warm = 2
	for i := range s.runs + warm {
		s.say("docker run, pair %d of %d", max(i-warm+1, 0), s.runs)
		var r Run
		var err1, err2 error
		if i%2 == 0 {
			r.Local, err1 = once("local")
			r.Remora, err2 = once(remora)
		} else {
			r.Remora, err1 = once(remora)
			r.Local, err2 = once("local")
		}
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if i >= warm {
			s.results.Runs = append(s.results.Runs, r)
		}
	}
	return nil
}
