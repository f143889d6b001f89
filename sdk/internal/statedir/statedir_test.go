package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	d := New(dir)
	for key, data := range map[string]string{"a": "1", "b": "2", "c": "3"} {
		if err := d.Save(t.Context(), key, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Save(t.Context(), "b", []byte("22")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Delete(t.Context(), "c"); err != nil {
			t.Fatalf("Delete: %v", err)
		}
	}
	got, err := New(dir).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"a": []byte("1"), "b": []byte("22")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("loaded (-want +got):\n%s", diff)
	}
	fi, err := os.Stat(filepath.Join(dir, "a.json"))
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", fi.Mode().Perm())
	}
}

func TestRestOfACrashIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.json.new"), []byte("ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := New(dir)
	got, err := d.Load(t.Context())
	if err != nil || len(got) != 0 {
		t.Errorf("Load = %q, %v; want nothing of a file that was never finished", got, err)
	}
	if err := d.Save(t.Context(), "a", []byte("whole")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "a.json" {
		t.Errorf("directory has %v, want a.json alone", entries)
	}
}

func TestKeysThatWouldLeaveTheDirectory(t *testing.T) {
	d := New(t.TempDir())
	for _, key := range []string{"", ".", "..", "../a", "a/b", ".hidden", "a\x00b"} {
		if err := d.Save(t.Context(), key, nil); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("Save(%q) = %v, want ErrInvalid", key, err)
		}
		if err := d.Delete(t.Context(), key); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("Delete(%q) = %v, want ErrInvalid", key, err)
		}
	}
}

func TestRelativePathIsRefused(t *testing.T) {
	if _, err := New("here").Load(t.Context()); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("Load = %v, want ErrInvalid", err)
	}
}
