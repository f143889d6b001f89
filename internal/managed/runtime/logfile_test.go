package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLogGone: a log that somebody deleted is begun anew.
func TestLogGone(t *testing.T) {
	dir := t.TempDir()
	f, err := openLog(dir, 1000)
	noErr(t, err)
	defer func() { f.close() }()
	noErr(t, os.Remove(filepath.Join(dir, logName)))
	for i := range 100 {
		if err := f.write([]Line{{time.Now(), Stdout, fmt.Sprint("line ", i)}}); err != nil {
			t.Fatalf("line %d: %v", i, err)
		}
	}
	lines, err := readLog(dir, 1)
	noErr(t, err)
	if len(lines) != 1 || lines[0].Text != "line 99" {
		t.Errorf("the last is %+v", lines)
	}
}

// TestLogTorn: half a line, from a crash or a full disk, does not become one with the next.
func TestLogTorn(t *testing.T) {
	l := newLab(t)
	dir := l.dir + "/small"
	noErr(t, os.Mkdir(dir, 0o755))
	mountTmpfs(t, dir)
	f, err := openLog(dir, 1<<30)
	noErr(t, err)
	defer func() { f.close() }()
	first := Line{time.Now(), Stdout, "the first"}
	noErr(t, f.write([]Line{first}))
	noErr(t, os.WriteFile(dir+"/filler", make([]byte, 900<<10), 0o600))
	many := slices.Repeat([]Line{{time.Now(), Stdout, strings.Repeat("x", 100)}}, 4000)
	if err := f.write(many); err == nil {
		t.Fatal("the disk is not full")
	}
	noErr(t, os.Remove(dir+"/filler"))
	check := func(want ...string) {
		t.Helper()
		lines, err := readLog(dir, -1)
		noErr(t, err)
		var got []string
		for _, line := range lines {
			if line.Text != many[0].Text {
				got = append(got, line.Text)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the log has %q, want %q", got, want)
		}
	}
	noErr(t, f.write([]Line{{time.Now(), Stdout, "after a full disk"}}))
	check("the first", "after a full disk")
	f.close()
	torn, err := os.OpenFile(filepath.Join(dir, logName), os.O_WRONLY|os.O_APPEND, 0)
	noErr(t, err)
	_, err = torn.WriteString("2026-01-02T03:04:05Z stdout half a li")
	noErr(t, err)
	noErr(t, torn.Close())
	f, err = openLog(dir, 1<<30)
	noErr(t, err)
	noErr(t, f.write([]Line{{time.Now(), Stdout, "after a crash"}}))
	check("the first", "after a full disk", "after a crash")
}
