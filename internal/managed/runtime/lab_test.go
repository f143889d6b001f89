package runtime

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
)

func TestMain(m *testing.M) {
	if os.Args[0] == "/plugin" || os.Getenv("REMORA_TEST_PLUGIN") != "" {
		testPlugin()
		return
	}
	if dir := os.Getenv("REMORA_RUNTIME_DAEMON"); dir != "" {
		daemon(dir)
		return
	}
	code := m.Run()
	if scratch := scratchDir; scratch != "" {
		_ = os.RemoveAll(scratch)
	}
	os.Exit(code)
}

var (
	scratchDir string

	// thePlugin is the path of a static plugin for tests: this program, which is one as /plugin.
	thePlugin = sync.OnceValues(func() (string, error) {
		self, err := os.Executable()
		if err == nil && static(self) {
			return self, nil
		}
		return compile("plugin", "test", "-c")
	})
	theMobyfs = sync.OnceValues(func() (string, error) {
		return compile("mobyfs", "build", "github.com/remora-plugins/remora/sdk/examples/mobyfs")
	})
)

func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

func compile(name, verb string, args ...string) (string, error) {
	if scratchDir == "" {
		var err error
		if scratchDir, err = os.MkdirTemp("", "remora-runtime-"); err != nil {
			return "", err
		}
	}
	path := filepath.Join(scratchDir, name)
	cmd := exec.Command("go", append([]string{verb, "-o", path}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w: %s", verb, err, out)
	}
	return path, nil
}

// lab is directories for a Runtime, with what looks at them from outside.
type lab struct {
	dir string
	log *syncBuffer
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newLab(t testing.TB) *lab {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Runc)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	noErr(t, err)
	l := &lab{dir: dir, log: &syncBuffer{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", l.log)
		}
	})
	return l
}

func (l *lab) options() Options {
	return Options{
		Dir: l.dir + "/lib", RunDir: l.dir + "/run", Discovery: l.dir + "/plugins",
		Logger: slog.New(slog.NewTextHandler(l.log, nil)),
	}
}

// fast are limits for tests.
func fast() limits {
	l := defaultLimits()
	l.ready, l.stop, l.first, l.last = 5*time.Second, 2*time.Second, 10*time.Millisecond, 200*time.Millisecond
	return l
}

// open returns a Runtime whose plugins are stopped at the test's end.
func (l *lab) open(t testing.TB) *Runtime {
	t.Helper()
	noErr(t, os.MkdirAll(l.dir+"/plugins", 0o755))
	r, err := Open(l.options())
	noErr(t, err)
	r.limits = fast()
	t.Cleanup(func() {
		if r.isClosed() {
			return
		}
		for _, id := range l.ids() {
			if err := r.Stop(context.WithoutCancel(t.Context()), id, time.Second); err != nil {
				t.Error(err)
			}
		}
		noErr(t, r.Close())
		l.clean(t)
	})
	return r
}

func (r *Runtime) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (l *lab) ids() (ids []string) {
	entries, _ := os.ReadDir(l.dir + "/run")
	for _, e := range entries {
		if e.Name() != "runc" {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// plugin returns a plugin called name with a rootfs of its own.
func (l *lab) plugin(t testing.TB, name string, env ...string) Plugin {
	t.Helper()
	sum := sha256.Sum256([]byte(l.dir + name))
	id := hex.EncodeToString(sum[:])
	home := filepath.Join(l.dir, "store", id)
	noErr(t, os.MkdirAll(home+"/rootfs", 0o755))
	program, err := thePlugin()
	noErr(t, err)
	link(t, program, home+"/rootfs/plugin")
	return Plugin{
		ID: id, Name: name, Rootfs: home + "/rootfs", Propagated: home + "/propagated-mount",
		Config: plugin.Config{
			Entrypoint: []string{"/plugin"}, PropagatedMount: "/volumes",
			Interface: plugin.Interface{Socket: "test.sock"},
			Linux:     plugin.LinuxConfig{Capabilities: []string{"CAP_SYS_ADMIN"}},
		},
		Settings: plugin.Settings{Env: env, Args: []string{name}},
	}
}

// link makes one file of two names, or two files where that cannot be.
func link(t testing.TB, from, to string) {
	t.Helper()
	if os.Link(from, to) == nil {
		return
	}
	data, err := os.ReadFile(from)
	noErr(t, err)
	noErr(t, os.WriteFile(to, data, 0o755))
}

// clean fails the test unless nothing is left of any plugin.
func (l *lab) clean(t testing.TB) {
	t.Helper()
	for _, e := range l.left() {
		t.Errorf("left behind: %s", e)
	}
}

func (l *lab) left() (left []string) {
	mounts, err := mount.List(l.dir)
	if err != nil {
		return []string{err.Error()}
	}
	for _, m := range mounts {
		if m.Mountpoint == l.dir+"/plugins" {
			continue // the test's own
		}
		left = append(left, "mount "+m.Mountpoint)
	}
	for _, id := range append(l.ids(), l.stored()...) {
		dirs, _ := cgroupDirs(cgroupOf(id))
		left = append(left, dirs...)
	}
	entries, _ := filepath.Glob(l.dir + "/run/*")
	inside, _ := filepath.Glob(l.dir + "/run/runc/*")
	names, _ := filepath.Glob(l.dir + "/plugins/*")
	hidden, _ := filepath.Glob(l.dir + "/plugins/.*")
	for _, path := range slices.Concat(entries, inside, names, hidden) {
		if base := filepath.Base(path); base != "runc" && base != "." && base != ".." {
			left = append(left, path)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		if l.owns(p) {
			left = append(left, p)
		}
	}
	return left
}

func (l *lab) stored() (ids []string) {
	entries, _ := os.ReadDir(l.dir + "/store")
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids
}

// owns tells whether a process writes to a log in the lab.
func (l *lab) owns(proc string) bool {
	out, err := os.Readlink(proc + "/fd/1")
	return err == nil && strings.HasPrefix(out, l.dir)
}

func noErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants fails the test unless err is there and has every part, in one line.
func wants(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q lacks %q", err, p)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than one line", err)
	}
}

// until waits until ok, and fails the test after a while.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// caller calls a plugin by the path of a socket.
type caller struct{ socket string }

func (l *lab) caller(name string) caller { return caller{l.dir + "/plugins/" + name + ".sock"} }

func (c caller) call(ctx context.Context, path string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialAny(ctx, c.socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// dialAny connects to a socket by a path of any length, following links.
func dialAny(ctx context.Context, path string) (net.Conn, error) {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return (&net.Dialer{}).DialContext(ctx, "unix", shortPath(d, filepath.Base(path)))
}

func (c caller) get(t testing.TB, path string) string {
	t.Helper()
	body, err := c.call(t.Context(), path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return body
}

func (c caller) env(t testing.TB) (env []string) {
	t.Helper()
	noErr(t, json.Unmarshal([]byte(c.get(t, "env")), &env))
	return env
}

func mounts(name string, source *string, destination string) []plugin.Mount {
	return []plugin.Mount{{Name: name, Source: source, Destination: destination, Type: "bind", Options: []string{"rbind"}}}
}

func devices(path string) []plugin.Device { return []plugin.Device{{Name: "dev", Path: &path}} }

func killPid(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }

func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	noErr(t, mount.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { noErr(t, mount.Unmount(dir)) })
}
