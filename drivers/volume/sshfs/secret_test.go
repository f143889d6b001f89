package sshfs

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/internal/remote/remotetest"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// safeBuffer is a log that is written to from many goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestPasswordIsShownNowhere plays the flow that everybody knows, password on the command
// line and all, right and wrong, and searches for the password in all that others can see.
func TestPasswordIsShownNowhere(t *testing.T) {
	s := startServer(t)
	dir := t.TempDir()
	log := new(safeBuffer)
	d, err := openPool(t, dir, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), s.table(nil))
	if err != nil {
		t.Fatal(err)
	}
	mounts := filepath.Join(t.TempDir(), "mounts")
	h, err := volume.NewHandler(t.Context(), d, volume.Options{
		Logger: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), MountRoot: mounts, Ledger: dir + "/ledger", Refresh: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.Close(t.Context())
		remotetest.Detach(mounts + "/right")
		remotetest.Detach(mounts + "/wrong")
	})

	const wrong = "wrong horse, right battery"
	var errs []string
	for name, p := range map[string]string{"right": password, "wrong": wrong} {
		opts := s.options(name, "identity_file", "-", "password", p)
		if err := h.Create(t.Context(), name, opts); err != nil {
			t.Fatal(err)
		}
		if err := h.Create(t.Context(), name, opts); err != nil {
			t.Errorf("the same once more: %v", err)
		}
		opts["password"] = p + "x"
		err := h.Create(t.Context(), name, opts)
		remotetest.WantErr(t, err, errdefs.ErrExists, "another password")
		errs = append(errs, err.Error())
	}
	at, err := h.Mount(t.Context(), "right", "id")
	if err != nil {
		t.Fatalf("mount with the password: %v", err)
	}
	if err := os.WriteFile(at+"/f", []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
	_, err = h.Mount(t.Context(), "wrong", "id")
	remotetest.WantErr(t, err, errdefs.ErrDenied, "does not take the password")
	errs = append(errs, err.Error())
	errs = append(errs, errdefs.Hints(err)...)

	for _, secret := range []string{password, wrong} {
		cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		environs, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, path := range append(cmdlines, environs...) {
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s shows the password", path)
			}
		}
		var seen []any
		for v, err := range h.List(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, v)
		}
		inspected, err := json.Marshal(seen)
		if err != nil || !bytes.Contains(inspected, []byte(`"in a file"`)) {
			t.Errorf("inspected as %s, %v", inspected, err)
		}
		for what, text := range map[string]string{
			"log": log.String(), "error": strings.Join(errs, "\n"), "inspect": string(inspected),
			"ledger": s.read(dir + "/ledger"), "mount table": s.read("/proc/self/mountinfo"),
		} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s shows the password: %s", what, text)
			}
		}
	}
	found := 0
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if fi.Mode().Perm()&0o077 != 0 && filepath.Base(path) != "ledger" {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		b, err := os.ReadFile(path)
		if has := bytes.Contains(b, []byte(password)) || bytes.Contains(b, []byte(wrong)); has && e.Name() != passwordName {
			t.Errorf("%s has the password", path)
		} else if has {
			found++
		}
		return err
	})
	if err != nil || found != 2 {
		t.Errorf("passwords are in %d files, want 2: %v", found, err)
	}
	if fi, err := os.Stat(dir + "/state/sshfs/test/volumes"); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the directory of the volumes: %v, %v", fi, err)
	}
	if err := h.Unmount(t.Context(), "right", "id"); err != nil {
		t.Error(err)
	}
	if err := h.Remove(t.Context(), "right"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/state/sshfs/test/volumes/right"); err == nil {
		t.Error("the password outlived its volume")
	}
	if got := s.read(s.data("right/f")); got != "x" {
		t.Errorf("to remove the volume changed the server's data to %q", got)
	}
}

func TestPasswordFromFileAndEnvironment(t *testing.T) {
	s := startServer(t)
	secrets := t.TempDir()
	if err := os.WriteFile(secrets+"/pw", []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REMORA_TEST_PASSWORD", password)
	d := s.pool(t, t.TempDir(), map[string]any{"secrets": secrets})
	for name, opts := range map[string]map[string]string{
		"name":         s.options("d", "identity_file", "-", "password_file", "pw"),
		"path":         s.options("d", "identity_file", "-", "password_file", secrets+"/pw"),
		"environment":  s.options("d", "identity_file", "-", "password_env", "REMORA_TEST_PASSWORD"),
		"key":          s.options("d"),
		"IdentityFile": s.options("d", "identity_file", "-", "identityfile", s.key, "IdentitiesOnly", "yes"),
	} {
		if err := d.Create(t.Context(), name, opts); err != nil {
			t.Fatal(err)
		}
		at, err := remotetest.MountAt(t, d, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := d.Unmount(t.Context(), name, at); err != nil {
			t.Error(err)
		}
	}
	for name, tt := range map[string]struct {
		opts map[string]string
		want string
	}{
		"nofile": {s.options("d", "identity_file", "-", "password_file", "absent"), "password file: "},
		"noenv":  {s.options("d", "identity_file", "-", "password_env", "REMORA_TEST_ABSENT"), `has no "REMORA_TEST_ABSENT"`},
		"nokey":  {s.options("d", "identity_file", "absent"), "identity file: "},
	} {
		if err := d.Create(t.Context(), name, tt.opts); err != nil {
			t.Fatal(err)
		}
		_, err := remotetest.MountAt(t, d, name)
		remotetest.WantErr(t, err, errdefs.ErrInvalid, tt.want)
	}
}
