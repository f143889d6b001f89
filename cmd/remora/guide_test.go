package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/testenv"
)

// TestGuides types the console blocks of the guides, page by page, each at a daemon of its
// own, and wants what the page shows. A block of TOML that begins with the path of the
// configuration is written there when its turn comes.
func TestGuides(t *testing.T) {
	pages, err := filepath.Glob("../../docs/guide/*.md")
	if err != nil {
		t.Fatal(err)
	}
	typed := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(page) == "write-a-plugin.md" {
			continue // which has a test of its own, below sdk/examples
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			if filepath.Base(page) == "backup.md" && testing.Short() {
				t.Skip("short: it opens repositories")
			}
			typed += typePage(t, string(text))
		})
	}
	if typed < 20 {
		t.Errorf("%d commands were typed: are the blocks still found?", typed)
	}
}

var fence = regexp.MustCompile("(?ms)^```(console|toml)\n(.*?)^```$")

const confPath = "/etc/remora/remora.toml"

func typePage(t *testing.T, text string) (typed int) {
	blocks := fence.FindAllStringSubmatch(text, -1)
	if len(blocks) == 0 {
		return 0
	}
	g := startGuide(t)
	for _, b := range blocks {
		kind, body := b[1], b[2]
		if kind == "toml" {
			if strings.HasPrefix(body, "# "+confPath+"\n") {
				g.write(g.dir+confPath, g.here(body))
			}
			continue
		}
		for _, step := range strings.Split("\n"+body, "\n$ ")[1:] {
			command, want, _ := strings.Cut(strings.TrimSuffix(step, "\n"), "\n")
			typed++
			g.step(command, want)
		}
	}
	return typed
}

// guide is a scratch folder in place of the host's root, with a daemon.
type guide struct {
	t       *testing.T
	dir     string
	aliases string
}

func startGuide(t *testing.T) *guide {
	t.Helper()
	testenv.Require(t, testenv.Root)    // the guides choose the owners of volumes
	dir, err := os.MkdirTemp("", "rmg") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g := &guide{t: t, dir: dir}
	g.write(dir+confPath, "")
	var log strings.Builder
	cmd := exec.Command("remora", "daemon")
	cmd.Env, cmd.Stderr = g.env(), &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
		if err != nil || t.Failed() {
			t.Errorf("daemon: %v, it said:\n%s", err, log.String())
		}
	})
	c := control.NewClient(dir + "/run/remora/control.sock")
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, ok, err := c.Page(ctx, "/readyz")
		if ok {
			return g
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the daemon does not answer: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (g *guide) env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "REMORA_CONFIG=" + g.dir + confPath, "REMORA_PLUGIN_DIR=" + g.dir + "/run/docker/plugins",
		"REMORA_RUN_DIR=" + g.dir + "/run/remora", "REMORA_STATE_DIR=" + g.dir + "/var/lib/remora",
		"GORACE=atexit_sleep_ms=0", // a program built with the race detector sleeps when it exits
	}
}

func (g *guide) write(path, text string) {
	g.t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

var (
	hostPath = regexp.MustCompile(`/(srv|etc/remora|var/lib/remora|run/docker/plugins|run/remora)\b`)
	spaces   = regexp.MustCompile(`  +`)
)

// here moves the paths of the page into the scratch folder.
func (g *guide) here(text string) string {
	return hostPath.ReplaceAllStringFunc(text, func(p string) string { return g.dir + p })
}

// step types a command and compares what it says, on both its outputs.
func (g *guide) step(command, want string) {
	g.t.Helper()
	if strings.HasPrefix(command, "alias ") {
		g.aliases += g.here(command) + "\n"
		return
	}
	cmd := exec.Command("/bin/sh", "-c", g.aliases+g.here(command)) // a POSIX shell has aliases on later lines
	cmd.Env = g.env()
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		g.t.Fatalf("%s: %v", command, err)
	} else if ok && !strings.Contains(want, "remora: ") {
		g.t.Errorf("%s: %v, and the page shows no error\n%s", command, exit, out)
	}
	got := strings.TrimRight(strings.ReplaceAll(string(out), g.dir, ""), "\n")
	plain := func(s string) []byte {
		s = spaces.ReplaceAllString(s, "  ")
		for _, e := range equal {
			s = e.what.ReplaceAllString(s, e.with)
		}
		return []byte(s + "\n")
	}
	if d := diff.Diff("the page", plain(want), "the command", plain(got)); d != nil {
		g.t.Errorf("$ %s\n%s", command, d)
	}
}
