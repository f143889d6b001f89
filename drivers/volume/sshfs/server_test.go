package sshfs

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/remote/remotetest"
	"github.com/remora-plugins/remora/internal/testenv"
)

// password is that of root on the test's server, and shadow what the server knows of it
// (crypt(5)).
const (
	password = "correct horse"
	shadow   = "$6$remoratest$drtpx.b7SAbQuY7KyqwKB4DTrTGP7gsrliO9WRL.2KMr97pqefVtDomKaijP/tmm5zZ85s71w.D2nZFe483rK."
)

// server is a real sshd on a port of loopback, with keys of its own, and users and
// passwords of its own: it has them in a mount namespace, and the host's stay as they are.
type server struct {
	t          testing.TB
	dir        string
	port       int
	key        string // a private key that it takes
	hostKey    string // "type key"
	knownHosts string
	cmd        *exec.Cmd
}

func startServer(t testing.TB) *server {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Netns, testenv.Sshfs)
	s := &server{t: t, dir: t.TempDir(), port: remotetest.FreePort(t)}
	s.key, s.knownHosts = s.file("id"), s.file("known_hosts")
	for _, name := range []string{"host", "id", "other"} {
		s.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", s.file(name))
	}
	pub := strings.Fields(s.read(s.file("host.pub")))
	s.hostKey = pub[0] + " " + pub[1]
	s.write("known_hosts", fmt.Sprintf("[127.0.0.1]:%d %s\n", s.port, s.hostKey))
	s.write("authorized", s.read(s.file("id.pub")))
	s.write("passwd", "root:x:0:0:root:/root:/bin/sh\nsshd:x:65533:65534::/run/sshd:/bin/false\nnobody:x:65534:65534::/:/bin/false\n")
	s.write("shadow", "root:"+shadow+":19000:0:99999:7:::\n")
	s.write("config", fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\n"+
		"PermitRootLogin yes\nPasswordAuthentication yes\nUsePAM no\nSubsystem sftp internal-sftp\nPidFile none\nMaxStartups 500\n",
		s.port, s.file("host"), s.file("authorized")))
	if err := os.Mkdir(s.file("data"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	script := `mount --bind passwd /etc/passwd && mount --bind shadow /etc/shadow && mount -t tmpfs none /run &&
		mkdir /run/sshd && exec /usr/sbin/sshd -D -E log -f config`
	s.cmd = exec.Command("unshare", "--mount", "sh", "-c", script)
	s.cmd.Dir = s.dir
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var out bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &out, &out
	s.cmd.WaitDelay = time.Second
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	remotetest.WaitFor(s.t, "sshd listens", func() bool {
		c, err := net.Dial("tcp", s.address())
		if err != nil {
			return false
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, err = c.Read(make([]byte, 4))
		_ = c.Close()
		return err == nil
	})
}

// kill ends the server with all its sessions.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	s.signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// signal sends a signal to the server and all its sessions. The server itself is stopped
// first, or it would begin sessions that are not on the list.
func (s *server) signal(sig syscall.Signal) {
	if sig != syscall.SIGCONT {
		_ = syscall.Kill(s.cmd.Process.Pid, syscall.SIGSTOP)
		remotetest.WaitFor(s.t, "sshd stands still", func() bool {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
			return err != nil || strings.Contains(string(b), ") T ")
		})
	}
	for _, pid := range descendants(s.cmd.Process.Pid) {
		_ = syscall.Kill(pid, sig)
	}
}

func (s *server) address() string         { return fmt.Sprintf("127.0.0.1:%d", s.port) }
func (s *server) file(name string) string { return filepath.Join(s.dir, name) }
func (s *server) data(name string) string { return filepath.Join(s.dir, "data", name) }

// sshcmd names a directory below the server's data, which it makes.
func (s *server) sshcmd(name string) string {
	s.t.Helper()
	if err := os.MkdirAll(s.data(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return "root@127.0.0.1:" + s.data(name)
}

func (s *server) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) read(path string) string {
	s.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

func (s *server) run(name string, args ...string) {
	s.t.Helper()
	if out, err := exec.CommandContext(s.t.Context(), name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// options are those of a volume on the server, with a key.
func (s *server) options(name string, more ...string) map[string]string {
	s.t.Helper()
	return remotetest.With(map[string]string{"sshcmd": s.sshcmd(name), "port": strconv.Itoa(s.port), "identity_file": s.key}, more...)
}

// quick has the link be given up within seconds.
var quick = []any{"ConnectTimeout=2", "ServerAliveInterval=1", "ServerAliveCountMax=2"}

// pool opens a pool whose state is in dir, which trusts the server.
func (s *server) pool(t testing.TB, dir string, table map[string]any) *driver {
	t.Helper()
	d, err := openPool(t, dir, slog.New(slog.NewTextHandler(t.Output(), nil)), s.table(table))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *server) table(more map[string]any) map[string]any {
	table := map[string]any{"known_hosts": s.knownHosts, "options": quick}
	for key, val := range more {
		if val == nil {
			delete(table, key)
			continue
		}
		table[key] = val
	}
	return table
}

func openPool(t testing.TB, dir string, log *slog.Logger, table map[string]any) (*driver, error) {
	t.Helper()
	d, err := Driver().Open(t.Context(), table, catalog.Env{PoolName: "test", StateDir: dir + "/state", RunDir: dir + "/run", Logger: log})
	if err != nil {
		return nil, err
	}
	x := d.(*driver)
	t.Cleanup(sync.OnceFunc(func() { _ = x.Close() }))
	return x, nil
}

// descendants returns the process and all that come from it, the eldest first.
func descendants(pid int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], child)
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}
