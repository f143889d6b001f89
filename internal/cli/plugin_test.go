package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/plugin"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/managed/registry"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// wire is a daemon's control socket that writes down what it is asked and gives the answers of a test.
type wire struct {
	dir     string
	answers map[string]any // by the method
	asked   map[string][]byte
}

func newWire(t *testing.T, answers map[string]any) *wire {
	t.Helper()
	dir, err := os.MkdirTemp("", "rmc") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", dir+"/control.sock")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{dir, answers, map[string][]byte{}}
	s := &http.Server{Handler: w}
	go func() { _ = s.Serve(l) }() // it returns when it is closed
	t.Cleanup(func() { _ = s.Close() })
	return w
}

func (w *wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/")
	w.asked[method], _ = io.ReadAll(r.Body) // what is cut off is what came
	_ = json.NewEncoder(rw).Encode(w.answers[method])
}

// remora runs a command and returns its exit status and what it printed.
func (w *wire) remora(t *testing.T, args ...string) (status int, out string) {
	t.Helper()
	var b strings.Builder
	status = Main(t.Context(), args, Env{Stdin: strings.NewReader(""), Stdout: &b, Stderr: &b, Environ: []string{"REMORA_RUN_DIR=" + w.dir}})
	return status, b.String()
}

// ended is the answer of a method that tells of its progress.
func ended(v any) map[string]any { return map[string]any{"Result": v} }

// TestPrivilegesAsTheyAre has a plugin ask for the whole host, and wipe that off the terminal on which it is granted.
func TestPrivilegesAsTheyAre(t *testing.T) {
	wipe := "/\x1b[2K\x1b[1A\r - network: [none]\n\u009b2J\u202e"
	w := newWire(t, map[string]any{
		control.MethodPluginPrivileges: control.PluginPrivileges{Privileges: plugin.Privileges{{Name: "mount", Description: wipe, Value: []string{wipe}}}},
	})
	_, asked := w.remora(t, "plugin", "install", "a/b")
	_, listed := w.remora(t, "plugin", "privileges", "a/b")
	for _, out := range []string{asked, listed} {
		if strings.ContainsAny(out, "\x1b\r\u009b\u202e") || strings.Contains(out, "\n - network") || !strings.Contains(out, `/\x1b[2K\x1b[1A\r - network: [none]\n\u009b2J\u202e`) {
			t.Errorf("shown is %q", out)
		}
	}
}

// TestErrorsAsTheyAre: what a registry or a plugin says stands in errors too.
func TestErrorsAsTheyAre(t *testing.T) {
	var b strings.Builder
	(&app{Env: Env{Stderr: &b}}).tell(errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "it says \x1b[2K\rall is well"), "wait\x07"))
	if want := "remora: it says \\x1b[2K\\rall is well\nhint: wait\\a\n"; b.String() != want {
		t.Errorf("told is %q, want %q", b.String(), want)
	}
}

// TestInstallSecretFile: the daemon reads the file, and does not stand where the command does.
func TestInstallSecretFile(t *testing.T) {
	w := newWire(t, map[string]any{
		control.MethodPluginPrivileges: control.PluginPrivileges{},
		control.MethodPluginInstall:    ended(control.Plugin{}),
	})
	t.Chdir(t.TempDir())
	if status, out := w.remora(t, "plugin", "install", "--secret", "TOKEN=token", "a/b"); status != 0 {
		t.Fatal(out)
	}
	var req control.PluginInstallRequest
	if err := json.Unmarshal(w.asked[control.MethodPluginInstall], &req); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := req.Secrets["TOKEN"], filepath.Join(here, "token"); got != want {
		t.Errorf("the file of the secret is %q, want %q", got, want)
	}
}

// TestPushByID: who is logged in at the plugin's registry is so, however the plugin is named.
func TestPushByID(t *testing.T) {
	const name = "registry.lan:5000/a/b:1"
	dir := t.TempDir()
	login := `{"auths":{"registry.lan:5000":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("me:secret")) + `"}}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(login), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	for _, id := range []string{strings.Repeat("ab", 32), "abab", name} {
		w := newWire(t, map[string]any{
			control.MethodPluginInspect: control.Plugin{Plugin: plugin.Plugin{Name: name}},
			control.MethodPluginPush:    ended(control.PluginPushed{Name: name}),
		})
		if status, out := w.remora(t, "plugin", "push", id); status != 0 {
			t.Errorf("%s: %s", id, out)
			continue
		}
		var req control.PluginPushRequest
		if err := json.Unmarshal(w.asked[control.MethodPluginPush], &req); err != nil {
			t.Fatal(err)
		}
		if a, err := registry.DecodeAuth(req.Auth); err != nil || a.Username != "me" || req.Name != name {
			t.Errorf("%s: pushed is %q by %v, %v", id, req.Name, a, err)
		}
	}
}

// TestCreateThatCannotBeRead: a file that cannot be read is no fault of the daemon's socket.
func TestCreateThatCannotBeRead(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	unread := filepath.Join(dir, "rootfs/unread")
	if err := os.WriteFile(unread, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Nobody can read the first page of his memory, be he root.
	if err := syscall.Mount("/proc/self/mem", unread, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(unread, syscall.MNT_DETACH) })
	w := newWire(t, map[string]any{control.MethodPluginCreate: control.Plugin{}})
	status, out := w.remora(t, "plugin", "create", "a", dir)
	if status == exitUnreachable || status == 0 || !strings.Contains(out, "remora: directory "+strconv.Quote(dir)+": ") || !strings.Contains(out, "input/output error") {
		t.Errorf("%d, %s", status, out)
	}
}

// said is what is printed while a command runs.
type said struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// terminal returns the two ends of a terminal.
func terminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return user, program
}

// TestInterruptedQuestion: who interrupts instead of answering is let go.
func TestInterruptedQuestion(t *testing.T) {
	w := newWire(t, map[string]any{
		control.MethodPluginPrivileges: control.PluginPrivileges{Privileges: plugin.Privileges{{Name: "network", Value: []string{"host"}}}},
		control.MethodPluginInstall:    ended(control.Plugin{}),
	})
	user, program := terminal(t)
	run := func(ctx context.Context) (out *said, status chan int) {
		out, status = &said{}, make(chan int, 1)
		go func() {
			status <- Main(ctx, []string{"plugin", "install", "a/b"}, Env{Stdin: program, Stdout: out, Stderr: out, Environ: []string{"REMORA_RUN_DIR=" + w.dir}})
		}()
		for !strings.Contains(out.String(), "Do you grant the above permissions? [y/N] ") {
			time.Sleep(time.Millisecond)
		}
		return out, status
	}
	for answer, want := range map[string]int{"y\n": exitOK, "n\n": exitDenied} {
		out, status := run(t.Context())
		if _, err := user.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		if got := <-status; got != want {
			t.Errorf("%q: exit status %d, %s", answer, got, out)
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	out, status := run(ctx)
	interrupt()
	select {
	case got := <-status:
		if got != exitInterrupted {
			t.Errorf("exit status %d, %s", got, out)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("it still waits for an answer")
		_, _ = user.WriteString("\n")
		<-status
	}
}

// TestBundleElsewhere: the rootfs of a bundle may be a link to where it is built.
func TestBundleElsewhere(t *testing.T) {
	dir, built := t.TempDir(), t.TempDir()
	for file, text := range map[string]string{filepath.Join(dir, "config.json"): "{}", filepath.Join(built, "x"): "x"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(built, filepath.Join(dir, "rootfs")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := packBundle(dir, &b); err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err != nil {
			break // the end: a bundle that is cut off has not all the names
		}
		names = append(names, h.Name)
	}
	if want := []string{"config.json", "rootfs/", "rootfs/x"}; !slices.Equal(names, want) {
		t.Errorf("packed are %q, want %q", names, want)
	}
}
