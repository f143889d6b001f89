package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/remora-plugins/remora/internal/state"
)

// TestLeft: what was written is there again, what was being written is gone, and what makes no sense is told beside the rest.
func TestLeft(t *testing.T) {
	type note struct {
		N int `json:"n"`
	}
	dir := filepath.Join(t.TempDir(), "notes")
	if all, err := state.Left[note](dir, 1); err != nil || len(all) != 0 {
		t.Errorf("no directory: %v, %v", all, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root := openRoot(t, dir)
	for name, n := range map[string]int{"a.json": 1, "b.json": 2} {
		if err := state.Write(root, name, 1, note{n}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"c.json": "{", "other": "{}", ".remora-tmp-1": "{"} {
		if err := root.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := state.Left[note](dir, 1)
	if len(all) != 2 || all["a.json"].N != 1 || all["b.json"].N != 2 {
		t.Errorf("left are %v", all)
	}
	if !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("c.json: %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"a.json", "b.json", "c.json", "other"}) {
		t.Errorf("there are %v", got)
	}
}
