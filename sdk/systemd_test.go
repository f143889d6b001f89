package sdk

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// activatedEnv makes a process that was activated out of the tests' own program.
const activatedEnv = "REMORA_SDK_ACTIVATED"

func TestMain(m *testing.M) {
	if os.Getenv(activatedEnv) == "" {
		os.Exit(m.Run())
	}
	// systemd sets LISTEN_PID between fork and exec; a test can only do so afterwards.
	if os.Getenv("LISTEN_PID") == "self" {
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	all, err := SystemdListeners()
	fmt.Printf("error %v\n", err)
	for _, l := range all {
		c, err := l.Accept()
		fmt.Printf("%s %s %v\n", l.Name, l.Addr(), err)
		if err == nil {
			_ = c.Close()
		}
		_ = l.Close()
	}
	again, err := SystemdListeners()
	fmt.Printf("again %d %v %q%q%q\n", len(again), err, os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES"))
	os.Exit(0)
}

// activate runs a process with files from descriptor 3 on.
func activate(t *testing.T, env []string, files ...*os.File) (wait func() string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	c.Env = append(append(os.Environ(), activatedEnv+"=1"), env...)
	c.ExtraFiles = files
	var out strings.Builder
	c.Stdout, c.Stderr = &out, os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string {
		if err := c.Wait(); err != nil {
			t.Errorf("the activated process: %v", err)
		}
		return out.String()
	}
}

func file(t *testing.T, l interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestSystemdHandsOverSockets(t *testing.T) {
	path := filepath.Join(socketDir(t), "p.sock")
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	wait := activate(t, []string{"LISTEN_PID=self", "LISTEN_FDS=2", "LISTEN_FDNAMES=plugin.socket:web"}, file(t, u), file(t, tcp))
	for _, addr := range []net.Addr{u.Addr(), tcp.Addr()} {
		c, err := new(net.Dialer).DialContext(t.Context(), addr.Network(), addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	want := "error <nil>\nplugin.socket " + path + " <nil>\nweb " + tcp.Addr().String() + " <nil>\nagain 0 <nil> \"\"\"\"\"\"\n"
	if got := wait(); got != want {
		t.Errorf("the activated process said\n%swant\n%s", got, want)
	}
	// It is systemd's socket, and it stays.
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket has gone with the process: %v", err)
	}
}

func TestWhatIsNoActivation(t *testing.T) {
	notSocket, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer notSocket.Close()
	for _, tt := range []struct {
		name string
		env  []string
		want string
	}{
		{"nothing", nil, "error <nil>\n"},
		{"another process", []string{"LISTEN_PID=1", "LISTEN_FDS=1"}, "error <nil>\n"},
		{"no sockets", []string{"LISTEN_PID=self", "LISTEN_FDS=0"}, "error <nil>\n"},
		{"no number", []string{"LISTEN_PID=self", "LISTEN_FDS=x"}, `error systemd: LISTEN_FDS is "x"` + "\n"},
		{"negative", []string{"LISTEN_PID=self", "LISTEN_FDS=-1"}, `error systemd: LISTEN_FDS is "-1"` + "\n"},
		{"no socket", []string{"LISTEN_PID=self", "LISTEN_FDS=1", "LISTEN_FDNAMES=n"}, `error systemd: socket 0 "n": `},
	} {
		wait := activate(t, tt.env, notSocket)
		if got := wait(); !strings.HasPrefix(got, tt.want) || !strings.Contains(got, "again 0 <nil>") {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
