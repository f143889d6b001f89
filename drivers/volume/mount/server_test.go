package mount

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/remote/remotetest"
	"github.com/remora-plugins/remora/internal/testenv"
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
	s := &server{t: t, dir: t.TempDir(), host: host, port: remotetest.FreePort(t)}
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
	remotetest.WaitFor(s.t, "the server listens", func() bool {
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
	return remotetest.With(map[string]string{
		"type": "rclone", "device": ":webdav:" + name, "webdav-url": s.url(), "username": username, "password": password,
		"low-level-retries": "1", "contimeout": "2s",
	}, more...)
}

func (s *server) davfs(name string, more ...string) map[string]string {
	s.mkdir(name)
	return remotetest.With(map[string]string{
		"type": "davfs", "device": s.url() + "/" + name, "o": "username=" + username + ",gui_optimize=0,retry=1,max_retry=2,dir_refresh=0", "password": password,
	}, more...)
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

func create(t testing.TB, d *driver, name string, opts map[string]string) {
	t.Helper()
	if err := d.Create(t.Context(), name, opts); err != nil {
		t.Fatal(err)
	}
}
