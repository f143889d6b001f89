package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// host is a daemon with a configuration, and what is asked of it.
type host struct {
	peer
	config string
	client *http.Client
}

// serve runs a daemon with tables of the configuration, until the end of the part.
func (s *storageSuite) serve(name, tables string) (*host, error) {
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	h := &host{config: filepath.Join(dir, "remora.toml")}
	config := fmt.Sprintf("version = 1\nplugin_dir = %q\nrun_dir = %q\nstate_dir = %q\n[trash]\nkeep = \"0s\"\n%s",
		dir+"/plugins", dir+"/run", dir+"/state", tables)
	if err := errors.Join(os.WriteFile(h.config, []byte(config), 0o600), os.MkdirAll(dir+"/plugins", 0o755)); err != nil {
		return nil, err
	}
	control := dir + "/run/control.sock"
	h.peer = peer{
		name: remora, dir: dir, socket: dir + "/none", log: dir + "/log",
		args: []string{s.remora, "daemon", "--config", h.config}, env: []string{"BENCH_PASSWORD=" + benchPassword},
	}
	h.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", control)
	}}}
	log, err := os.Create(h.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	h.cmd = exec.Command(h.args[0], h.args[1:]...)
	h.cmd.Env = append(os.Environ(), h.env...)
	h.cmd.Stdout, h.cmd.Stderr = log, log
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the bench, which ends it last
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	h.ended = make(chan error, 1)
	go func() { h.ended <- h.cmd.Wait() }()
	s.undo = append(s.undo, func() error {
		h.client.CloseIdleConnections()
		return errors.Join(h.stop(), os.RemoveAll(dir))
	})
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		resp, err := h.client.Get("http://remora/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return h, nil
			}
		}
		if len(h.ended) > 0 || time.Since(begin) > 30*time.Second {
			b, _ := os.ReadFile(h.log)
			return nil, fmt.Errorf("the daemon is not ready: %w: %s", err, b)
		}
	}
}

// run runs a command of remora, and returns what it printed and what it used.
func (h *host) run(args ...string) (string, *syscall.Rusage, error) {
	cmd := exec.Command(h.args[0], append([]string{"--config", h.config}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", nil, fmt.Errorf("remora %s: %w: %s", strings.Join(args, " "), err, errs.Bytes())
	}
	return strings.TrimSpace(out.String()), cmd.ProcessState.SysUsage().(*syscall.Rusage), nil
}

// volume makes a volume, mounts it until the end of the part, and returns where.
func (s *storageSuite) volume(h *host, pool, name string, opts ...string) (string, error) {
	args := []string{"volume", "create", "--pool", pool, name}
	for _, o := range opts {
		args = append(args, "-o", o)
	}
	if _, _, err := h.run(args...); err != nil {
		return "", err
	}
	at, _, err := h.run("volume", "mount", "--pool", pool, "--id", "bench", name)
	s.undo = append(s.undo, func() error {
		_, _, err := h.run("volume", "unmount", "--pool", pool, "--id", "bench", name)
		return err
	})
	return at, err
}

// call calls a method of the control API, and returns the answer as it came.
func (h *host) call(method string, request any) ([]byte, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	resp, err := h.client.Post("http://remora/"+method, "application/json", bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", method, answer)
	}
	return answer, err
}
