package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// varies is what differs from one host or run to the next.
var varies = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d+ (second|minute)s? ago`), "AGO"},
	{regexp.MustCompile(`(\s)(\?|\d[\d.]*[kmgtp]? \(AGO\))(\s)`), "${1}USED$3"}, // counted already, or not yet
	{regexp.MustCompile(`version \S+, process \d+`), "version V, process N"},
	{regexp.MustCompile(`docker: \S+, API \d\.\d+`), "docker: V, API N"},
	{regexp.MustCompile(`project quota is o.*\n( +mend: .*\n)?`), "project quota\n"},
	{regexp.MustCompile(` {2,}`), "  "},
}

// TestTour types the tour of the README and wants what it shows. The image is the only thing
// that it fetches, so here it is put there before. The host has podman, too.
func TestTour(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	noErr(t, err)
	h := newLab(t, append([]testenv.Need{testenv.Podman}, engine...)...).Host(t, "h1")
	bin := t.TempDir()
	noErr(t, os.Symlink(build.lab.Remora, filepath.Join(bin, "remora")))
	h.Dockerd()
	h.MustDocker("tag", lab.ImageName, "busybox")
	var daemon *lab.Process
	typed := 0
	for _, block := range regexp.MustCompile("(?ms)^```text\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		for _, step := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			command, shown, _ := strings.Cut(strings.TrimSuffix(step, "\n"), "\n")
			typed++
			switch command {
			case "sudo remora daemon &":
				daemon = h.Remora("")
				continue
			case "sudo kill -9 $(pidof remora)":
				daemon.Kill()
				continue
			}
			command = strings.TrimPrefix(command, "sudo ") // it is root who types here
			out, err := h.Run("sh", "-c", "PATH="+bin+":$PATH; exec 2>&1; "+strings.ReplaceAll(command, "docker run ", "docker run --network=none "))
			if err != nil && !strings.Contains(shown, "rror") {
				t.Errorf("%s: %v", command, err)
			}
			if got, want := same(out), same(shown); got != want {
				t.Errorf("$ %s\n%s\nthe README shows\n%s", command, got, want)
			}
		}
	}
	if typed < 8 {
		t.Errorf("%d commands were typed: is the tour still found?", typed)
	}
	noErr(t, daemon.Stop(10*time.Second))
}

func same(s string) string {
	for _, v := range varies {
		s = v.what.ReplaceAllString(s, v.with)
	}
	return strings.TrimSpace(s)
}
