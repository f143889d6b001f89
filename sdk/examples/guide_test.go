// Package examples_test holds the guide for plugin authors to what compiles.
package examples_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

const guide = "../../docs/guide/write-a-plugin.md"

// TestGuideCompiles compiles each Go block of the guide as a package of this module that
// lies nowhere but in an overlay.
func TestGuideCompiles(t *testing.T) {
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllSubmatch(text, -1)
	if len(blocks) < 5 {
		t.Fatalf("%d blocks", len(blocks))
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := map[string]string{}
	args := []string{"build", "-overlay=" + filepath.Join(dir, "overlay.json")} // several packages: nothing is linked
	for i, b := range blocks {
		pkg := fmt.Sprintf("guide%d", i)
		file := filepath.Join(dir, pkg+".go")
		if err := os.WriteFile(file, b[1], 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "./"+pkg)
		overlay[filepath.Join(here, pkg, "guide.go")] = file
		if formatted, err := exec.CommandContext(t.Context(), "gofmt", "-l", file).CombinedOutput(); err != nil || len(formatted) > 0 {
			t.Errorf("block %d is not formatted: %s, %v", i, formatted, err)
		}
	}
	replace, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), replace, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// TestGuideLinks looks whether what the guide points to is there.
func TestGuideLinks(t *testing.T) {
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	links := regexp.MustCompile(`\]\((\.\.[^)#]+)\)`).FindAllSubmatch(text, -1)
	if len(links) == 0 {
		t.Fatal("no links")
	}
	for _, l := range links {
		if _, err := os.Stat(filepath.Join(filepath.Dir(guide), string(l[1]))); err != nil {
			t.Error(err)
		}
	}
}
