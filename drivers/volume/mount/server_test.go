package mount

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

const (
	username = "somebody"
	password = `correct "horse\ battery`
)

// server is a real server of WebDAV on a port of loopback.
type server struct {
	t    testing.TB
	dir  string
	host string // of loopback, and nobody else's: a port of 127.0.0.1 may be taken while it is not listened at
	port int
	cmd  *exec.Cmd
}

var servers atomic.Int64

func startServer(t testing.TB) *server {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Rclone)
	host := fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()>>8%250, os.Getpid()%256, servers.Add(1))
	s := &server{t: t, dir: t.TempDir(), host: host, port: freePort(t)}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command("rclone", "serve", "webdav", s.dir, "--config", "", "--addr", s.address(), "--user", username, "--dir-cache-time", "0s")
	s.cmd.Env = append(os.Environ(), "RCLONE_PASS="+password)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &out, &out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	waitFor(s.t, "the server listens", func() bool {
		c, err := net.Dial("tcp", s.address())
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) address() string         { return fmt.Sprintf("%s:%d", s.host, s.port) }
func (s *server) url() string             { return "http://" + s.address() }
func (s *server) data(name string) string { return filepath.Join(s.dir, name) }

func (s *server) mkdir(name string) {
	s.t.Helper()
	if err := os.MkdirAll(s.data(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// rclone are the options of a volume that rclone mounts, and davfs of one of davfs2's.
func (s *server) rclone(name string, more ...string) map[string]string {
	s.mkdir(name)
	return withMore(map[string]string{
		"type": "rclone", "device": ":webdav:" + name, "webdav-url": s.url(), "username": username, "password": password,
		"low-level-retries": "1", "contimeout": "2s",
	}, more)
}

func (s *server) davfs(name string, more ...string) map[string]string {
	s.mkdir(name)
	return withMore(map[string]string{
		"type": "davfs", "device": s.url() + "/" + name, "o": "username=" + username + ",gui_optimize=0,retry=1,max_retry=2,dir_refresh=0", "password": password,
	}, more)
}

func withMore(opts map[string]string, more []string) map[string]string {
	for i := 0; i < len(more); i += 2 {
		opts[more[i]] = more[i+1]
		if more[i+1] == "-" {
			delete(opts, more[i])
		}
	}
	return opts
}

func openPool(t testing.TB, dir string, log *slog.Logger, table map[string]any) (*driver, error) {
	t.Helper()
	if log == nil {
		log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	d, err := Driver().Open(t.Context(), table, catalog.Env{PoolName: "test", StateDir: dir + "/state", RunDir: dir + "/run", Logger: log})
	if err != nil {
		return nil, err
	}
	x := d.(*driver)
	t.Cleanup(sync.OnceFunc(func() { _ = x.Close() }))
	return x, nil
}

func pool(t testing.TB, dir string, table map[string]any) *driver {
	t.Helper()
	d, err := openPool(t, dir, nil, table)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// mountAt mounts and has it taken away at the end of the test.
func mountAt(t testing.TB, d volume.Driver, name string) (string, error) {
	t.Helper()
	target := filepath.Join(t.TempDir(), "target")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { detach(target) })
	return d.Mount(t.Context(), name, target)
}

func create(t testing.TB, d *driver, name string, opts map[string]string) {
	t.Helper()
	if err := d.Create(t.Context(), name, opts); err != nil {
		t.Fatal(err)
	}
}

func detach(target string) {
	for syscall.Unmount(target, syscall.MNT_DETACH) == nil { //nolint:revive // until nothing is mounted there
	}
}

// serving returns the process that serves a mountpoint.
func serving(t testing.TB, target string) int {
	t.Helper()
	for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range lines {
			b, err := os.ReadFile(path)
			name := filepath.Base(strings.Split(string(b), "\x00")[0])
			if err == nil && (name == "rclone" || name == "mount.davfs") && strings.Contains(string(b), "\x00"+target+"\x00") {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
				return pid
			}
		}
	}
	t.Fatalf("nothing serves %s", target)
	return 0
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// waitFor waits for other processes and the kernel, who have no clock to fake.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// within fails where f takes longer than limit, or never ends.
func within(t testing.TB, limit time.Duration, what string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- f() }()
	select {
	case err := <-done:
		if took := time.Since(start); took > limit {
			t.Errorf("%s took %v, of at most %v", what, took, limit)
		}
		return err
	case <-time.After(3 * limit):
		t.Fatalf("%s hangs", what)
		return errors.New("hangs")
	}
}

func wantErr(t testing.TB, err, class error, text string) {
	t.Helper()
	if !errors.Is(errdefs.Class(err), class) || !strings.Contains(fmt.Sprint(err), text) || strings.Contains(fmt.Sprint(err), "\n") {
		t.Errorf("error is %q of class %v, want one line with %q of class %v", err, errdefs.Class(err), text, class)
	}
}
