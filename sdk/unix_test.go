package sdk

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func mustListen(t *testing.T, u UnixSocket) net.Listener {
	t.Helper()
	l, err := ListenUnix(u)
	if err != nil {
		t.Fatalf("ListenUnix: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// stale leaves a socket at path on which nobody listens.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// mustAccept fails unless whoever dials path gets to l.
func mustAccept(t *testing.T, l net.Listener, path string) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer c.Close()
	got, err := l.Accept()
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	_ = got.Close()
}

// onlyHas fails unless dir has nothing in it but what is called names.
func onlyHas(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, names) {
		t.Errorf("%s has %q in it, want %q", dir, got, names)
	}
}

func TestListenUnix(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "sub", "dir", "p.sock")
	l := mustListen(t, UnixSocket{Path: path})
	if got := l.Addr().String(); got != path {
		t.Errorf("address %q", got)
	}
	mustAccept(t, l, path)
	onlyHas(t, filepath.Dir(path), "p.sock")
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	onlyHas(t, filepath.Dir(path))
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(socketDir(t), "p.sock")
	stale(t, path)
	l := mustListen(t, UnixSocket{Path: path})
	mustAccept(t, l, path)
	onlyHas(t, filepath.Dir(path), "p.sock")
}

func TestLiveSocketIsNotTaken(t *testing.T) {
	path := filepath.Join(socketDir(t), "p.sock")
	l := mustListen(t, UnixSocket{Path: path})
	for range 2 {
		_, err := ListenUnix(UnixSocket{Path: path})
		if !errors.Is(err, errdefs.ErrInUse) || len(errdefs.Hints(err)) == 0 {
			t.Errorf("a second listener: %v, hints %q", err, errdefs.Hints(err))
		}
		if c, err := l.Accept(); err != nil { // the one that asked
			t.Error(err)
		} else {
			_ = c.Close()
		}
	}
	mustAccept(t, l, path)
	onlyHas(t, filepath.Dir(path), "p.sock")
}

// A listener that has no room for one more caller is alive all the same.
func TestBusySocketIsNotTaken(t *testing.T) {
	path := filepath.Join(socketDir(t), "p.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if l, err := ListenUnix(UnixSocket{Path: path}); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("listener %v, %v", l, err)
	}
}

func TestRacingStarters(t *testing.T) {
	for _, before := range []string{"nothing", "stale"} {
		t.Run(before, func(t *testing.T) {
			dir := socketDir(t)
			path := filepath.Join(dir, "p.sock")
			for range 20 {
				if before == "stale" {
					stale(t, path)
				}
				var won atomic.Int32
				var winner atomic.Value
				var all sync.WaitGroup
				begin := make(chan struct{})
				for range 8 {
					all.Go(func() {
						<-begin
						l, err := ListenUnix(UnixSocket{Path: path})
						switch {
						case err == nil:
							won.Add(1)
							winner.Store(l)
						case !errors.Is(err, errdefs.ErrInUse):
							t.Errorf("a loser: %v", err)
						}
					})
				}
				close(begin)
				all.Wait()
				l, _ := winner.Load().(net.Listener)
				if won.Load() != 1 {
					t.Fatalf("%d listeners on one socket", won.Load())
				}
				onlyHas(t, dir, "p.sock")
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestSocketModeAndOwner(t *testing.T) {
	dir := socketDir(t)
	tests := []struct {
		socket   UnixSocket
		mode     fs.FileMode
		uid, gid uint32
	}{
		{UnixSocket{}, 0o600, uint32(os.Getuid()), uint32(os.Getgid())},
		{UnixSocket{Mode: 0o660}, 0o660, uint32(os.Getuid()), uint32(os.Getgid())},
		{UnixSocket{Mode: 0o666, Owner: "root", Group: "root"}, 0o666, 0, 0},
		{UnixSocket{Mode: 0o660, Group: "4321"}, 0o660, uint32(os.Getuid()), 4321},
		{UnixSocket{Owner: "1234", Group: "0"}, 0o600, 1234, 0},
	}
	for _, tt := range tests {
		if tt.socket.Owner+tt.socket.Group != "" {
			testenv.Require(t, testenv.Root)
		}
		tt.socket.Path = filepath.Join(dir, "p.sock")
		l := mustListen(t, tt.socket)
		fi, err := os.Lstat(tt.socket.Path)
		if err != nil {
			t.Fatal(err)
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok || fi.Mode().Perm() != tt.mode || st.Uid != tt.uid || st.Gid != tt.gid {
			t.Errorf("%+v: %v %d:%d", tt.socket, fi.Mode(), st.Uid, st.Gid)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever looks while a socket appears never sees it with rights it shall not have.
func TestSocketIsNeverWider(t *testing.T) {
	testenv.Require(t, testenv.Root)
	path := filepath.Join(socketDir(t), "p.sock")
	done := make(chan struct{})
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if fi, err := os.Lstat(path); err == nil {
					st, ok := fi.Sys().(*syscall.Stat_t)
					if !ok || fi.Mode().Perm() != 0o640 || st.Uid != 1234 || st.Gid != 4321 {
						t.Errorf("seen as %v %d:%d", fi.Mode(), st.Uid, st.Gid)
						return
					}
				}
			}
		})
	}
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	for range 200 {
		l, err := ListenUnix(UnixSocket{Path: path, Mode: 0o640, Owner: "1234", Group: "4321"})
		if err != nil {
			t.Error(err)
			break
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	close(done)
	all.Wait()
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "p.sock")
	for what, replace := range map[string]func() error{
		"another socket": func() error { stale(t, path); return nil },
		"a file":         func() error { return os.WriteFile(path, []byte("x"), 0o600) },
		"nothing":        func() error { return nil },
	} {
		l := mustListen(t, UnixSocket{Path: path})
		if err := errors.Join(os.Remove(path), replace()); err != nil {
			t.Fatal(err)
		}
		_, before := os.Lstat(path)
		if err := l.Close(); err != nil {
			t.Errorf("%s in its place: Close: %v", what, err)
		}
		if _, after := os.Lstat(path); (before == nil) != (after == nil) {
			t.Errorf("%s in its place has gone: %v", what, after)
		}
		_ = os.Remove(path)
	}
}

func TestSocketPathsThatAreRefused(t *testing.T) {
	dir := socketDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", maxSocketPath-len(dir)))
	for _, tt := range []struct {
		name   string
		socket UnixSocket
		class  error
	}{
		{"neither", UnixSocket{}, errdefs.ErrInvalid},
		{"relative", UnixSocket{Path: "p.sock"}, errdefs.ErrInvalid},
		{"too long", UnixSocket{Path: long}, errdefs.ErrInvalid},
		{"name with slash", UnixSocket{Name: "../p"}, errdefs.ErrInvalid},
		{"hidden name", UnixSocket{Name: ".p"}, errdefs.ErrInvalid},
		{"file", UnixSocket{Path: file}, errdefs.ErrExists},
		{"directory", UnixSocket{Path: dir}, errdefs.ErrExists},
		{"symbolic link", UnixSocket{Path: link}, errdefs.ErrExists},
		{"below a file", UnixSocket{Path: filepath.Join(file, "p.sock")}, nil},
		{"nobody's user", UnixSocket{Path: filepath.Join(dir, "p"), Owner: "no such user"}, errdefs.ErrInvalid},
		{"nobody's group", UnixSocket{Path: filepath.Join(dir, "p"), Group: "no such group"}, errdefs.ErrInvalid},
		{"negative", UnixSocket{Path: filepath.Join(dir, "p"), Owner: "-1"}, errdefs.ErrInvalid},
	} {
		l, err := ListenUnix(tt.socket)
		if err == nil {
			t.Errorf("%s: listens: %v", tt.name, l.Close())
		} else if tt.class != nil && !errors.Is(err, tt.class) {
			t.Errorf("%s: %v, want class %q", tt.name, err, errdefs.Name(tt.class))
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("the file in the way: %q, %v", b, err)
	}
	onlyHas(t, dir, "file", "link")
	// The longest that the kernel takes works, although the way there is longer.
	l := mustListen(t, UnixSocket{Path: long[:maxSocketPath]})
	mustAccept(t, l, long[:maxSocketPath])
}
