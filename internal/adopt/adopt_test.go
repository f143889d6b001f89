package adopt

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// told is volumes as a line each, with the folder of the test left out.
func told(dir string, all []Volume) []string {
	var lines []string
	for _, v := range all {
		line := v.Name + " " + v.Path
		if v.Err != nil {
			line += " " + errdefs.Name(errdefs.Class(v.Err)) + ": " + v.Err.Error()
		}
		lines = append(lines, strings.ReplaceAll(line, dir, "/t"))
	}
	return lines
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestPropose(t *testing.T) {
	for name, want := range map[string]string{
		"my volume": "my-volume", "a/b": "a-b", "_x": "x", "..": "", "": "", "größe": "gr--e", "---a": "a", "ü": "",
		strings.Repeat("a", 300): strings.Repeat("a", 255),
	} {
		got := Propose(name)
		if got != want {
			t.Errorf("Propose(%q) = %q, want %q", name, got, want)
		}
		if got != "" && volume.CheckName(got) != nil {
			t.Errorf("Propose(%q) = %q is no name", name, got)
		}
	}
}

func TestTooLarge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.json")
	write(t, file, "")
	if err := os.Truncate(file, maxState+1); err != nil {
		t.Fatal(err)
	}
	if _, err := LocalPersist(file); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("LocalPersist of 16 MiB and a byte: %v", err)
	}
}
