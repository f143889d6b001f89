package volume

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func mustOpen(t *testing.T, path string) *ledger {
	t.Helper()
	l, err := openLedger(path)
	if err != nil {
		t.Fatalf("openLedger: %v", err)
	}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// counted is a record in which one ID counts n.
func counted(volume string, n int) record {
	return record{Volume: volume, Mountpoint: "/m/" + volume, Refs: map[string]ref{"id": {n, time.Unix(1e9, 0).UTC()}}}
}

// mustHold fails unless the ledger says how often each volume is mounted.
func mustHold(t *testing.T, l *ledger, want map[string]int) {
	t.Helper()
	got := map[string]int{}
	for _, r := range l.all() {
		got[r.Volume] = r.Refs["id"].Count
	}
	if !maps.Equal(got, want) {
		t.Errorf("ledger %v, want %v", got, want)
	}
}

func reopen(t *testing.T, l *ledger) *ledger {
	t.Helper()
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, l.path)
}

func TestLedgerRemembers(t *testing.T) {
	l := mustOpen(t, filepath.Join(t.TempDir(), "new", "ledger"))
	for _, r := range []record{counted("a", 1), counted("b", 1), counted("a", 2), {Volume: "b"}, counted("c", 3)} {
		if err := l.set(r); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int{"a": 2, "c": 3}
	mustHold(t, l, want)
	for range 2 {
		l = reopen(t, l)
		mustHold(t, l, want)
	}
	if r := l.live["a"]; r.Mountpoint != "/m/a" || !r.Refs["id"].Since.Equal(time.Unix(1e9, 0)) {
		t.Errorf("record came back as %+v", r)
	}
	if fi, err := os.Stat(l.path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("ledger's mode is %v, %v", fi.Mode(), err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if err := l.set(counted("a", 1)); err == nil {
		t.Error("a closed ledger takes a record")
	}
}

func TestLedgerOfOtherTimes(t *testing.T) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	now := strings.TrimSpace(string(boot))
	head := fmt.Sprintf(`{"remora_ledger":1,"boot":%q}`+"\n", now)
	line := `{"volume":"a","mountpoint":"/m/a","refs":{"id":{"count":1,"since":"2001-09-09T01:46:40Z"}}}` + "\n"
	tests := []struct {
		name, content string
		want          map[string]int // nil is an error
	}{
		{"empty", "", map[string]int{}},
		{"header alone", head, map[string]int{}},
		{"whole", head + line, map[string]int{"a": 1}},
		{"torn last line", head + line + line[:20], map[string]int{"a": 1}},
		{"last line without newline", head + line + strings.ReplaceAll(strings.TrimSpace(line), `"a"`, `"b"`), map[string]int{"a": 1}},
		{"other boot", strings.Replace(head, now, "00000000-0000-0000-0000-000000000000", 1) + line, map[string]int{}},
		{"other boot and version", `{"remora_ledger":7,"boot":"x"}` + "\n" + "who knows\n", map[string]int{}},
		{"other version", strings.Replace(head, ":1", ":2", 1) + line, nil},
		{"unknown fields", head + `{"volume":"a","later":{"x":1},"refs":{"id":{"count":1,"x":0}}}` + "\n", map[string]int{"a": 1}},
		{"garbage", "\x00\x01garbage\n", nil},
		{"garbage header", "{}\n" + line, nil},
		{"garbage in the midst", head + "garbage\n" + line, nil},
		{"torn line in the midst", head + line[:20] + line, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := openLedger(path)
			if tt.want == nil {
				after, _ := os.ReadFile(path)
				if err == nil || !strings.Contains(err.Error(), path) || len(errdefs.Hints(err)) == 0 || string(after) != tt.content {
					t.Errorf("error %v, hints %q, file %q: want both, and the file as it was", err, errdefs.Hints(err), after)
				}
				// It is not locked by a start that failed.
				_, again := openLedger(path)
				if errors.Is(again, errdefs.ErrInUse) {
					t.Errorf("a second try: %v", again)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			mustHold(t, l, tt.want)
			if err := l.set(counted("z", 1)); err != nil {
				t.Error(err)
			}
			l = reopen(t, l)
			tt.want["z"] = 1
			mustHold(t, l, tt.want)
		})
	}
}

func TestLedgerIsCompacted(t *testing.T) {
	l := mustOpen(t, filepath.Join(t.TempDir(), "ledger"))
	for i := range 3 * compactAfter {
		if err := l.set(counted("a", 1+i%7)); err != nil {
			t.Fatal(err)
		}
	}
	fi, err := os.Stat(l.path)
	if err != nil || fi.Size() > 150*compactAfter {
		t.Errorf("%d lines leave %d bytes, %v", 3*compactAfter, fi.Size(), err)
	}
	mustHold(t, reopen(t, l), map[string]int{"a": 1 + (3*compactAfter-1)%7})
}

func TestLedgerOnAFullDisk(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	l := mustOpen(t, filepath.Join(dir, "ledger"))
	want := map[string]int{}
	set := func(i int) error {
		name := fmt.Sprintf("v%d", i%50)
		err := l.set(counted(name, i+1))
		if err == nil {
			want[name] = i + 1
		}
		return err
	}
	n := 0
	var err error
	for err == nil && n < 10_000 {
		err = set(n)
		n++
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), l.path) {
		t.Fatalf("after %d records: %v", n, err)
	}
	for range 5 {
		_ = set(n)
	}
	mustHold(t, l, want)
	// Making it shorter fails for want of room, and leaves nothing.
	filler := filepath.Join(dir, "filler")
	_ = os.WriteFile(filler, make([]byte, 64<<10), 0o600)
	if err := l.rewrite(l.header); err == nil {
		t.Error("rewriting on a full disk succeeds")
	}
	if _, err := os.Stat(l.path + ".new"); err == nil {
		t.Error("a rewrite that failed left its file")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	// What was said to be written is what the next process reads.
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(b, []byte{'\n'}) == 0 || b[len(b)-1] != '\n' {
		t.Errorf("a line is torn: …%q", b[max(0, len(b)-40):])
	}
	live, err := readLedger(b, l.header)
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range want {
		if live[name].Refs["id"].Count != n {
			t.Errorf("%s counts %d, want %d", name, live[name].Refs["id"].Count, n)
		}
	}
}

// childEnv makes a child of this test out of the test's own program.
const childEnv = "REMORA_LEDGER_CHILD"

func child(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, args...)
	c.Env = append(os.Environ(), childEnv+"="+what)
	c.Stderr = os.Stderr
	return c
}

func TestLedgerIsKeptFromOthers(t *testing.T) {
	l := mustOpen(t, filepath.Join(t.TempDir(), "ledger"))
	if err := l.set(counted("a", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := openLedger(l.path); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("a second time in one process: %v", err)
	}
	out, err := child(t, "lock", l.path).Output()
	if err != nil || string(out) != "in-use\n" {
		t.Errorf("another process: %q, %v", out, err)
	}
	mustHold(t, l, map[string]int{"a": 1})
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if out, err := child(t, "lock", l.path).Output(); err != nil || string(out) != "\n" {
		t.Errorf("another process, after close: %q, %v", out, err)
	}
}

// lockChild opens the ledger and says what comes of it.
func lockChild() int {
	_, err := openLedger(os.Args[1])
	fmt.Println(errdefs.Name(err))
	return 0
}

func TestLedgerNames(t *testing.T) {
	// Every name that the Handler lets through comes back as it went.
	l := mustOpen(t, filepath.Join(t.TempDir(), "ledger"))
	names := []string{"a", strings.Repeat("n", MaxName), "A.b_c-d"}
	for _, name := range names {
		if err := l.set(counted(name, 1)); err != nil {
			t.Fatal(err)
		}
	}
	l = reopen(t, l)
	slices.Sort(names)
	if got := slices.Sorted(maps.Keys(l.live)); !slices.Equal(got, names) {
		t.Errorf("names %q", got)
	}
}
