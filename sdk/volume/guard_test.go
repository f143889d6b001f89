package volume

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
)

// flags returns those of a directory, as lsattr shows them.
func flags(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "lsattr", "-d", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))[0]
}

// TestNothingIsWrittenBelowAMount: a container sees the directory of all mountpoints, as one that
// gets it with -v and rslave does, and writes to a volume that is unmounted under it. Root of the
// host does, too. Neither write comes to the host's disk.
func TestNothingIsWrittenBelowAMount(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns, testenv.Immutable)
	_, d, o := newMounting(t, nil)
	o.GuardMountpoints, o.Ledger = true, ""
	h := newTestHandler(t, d, o)
	if err := syscall.Mount(o.MountRoot, o.MountRoot, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Unmount(o.MountRoot, syscall.MNT_DETACH)
		_ = exec.Command("chattr", "-i", o.MountRoot+"/a").Run() // where the test failed
	})
	if err := syscall.Mount("", o.MountRoot, "", syscall.MS_SHARED|syscall.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	p := mustMount(t, h, "a", id(1))
	seen := t.TempDir()
	c := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "slave", "sh", "-c",
		`mount --rbind "$1" "$2" && echo x >"$2/a/before" && echo ready && read x; echo x >"$2/a/f"; echo end`, "sh", o.MountRoot, seen)
	var out strings.Builder
	c.Stderr = &out
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	if n, err := stdout.Read(buf); err != nil || string(buf[:n]) != "ready\n" {
		t.Fatalf("the container says %q, %v; %s", buf[:n], err, out.String())
	}
	if err := syscall.Unmount(p, syscall.MNT_DETACH); err != nil { // what served it is gone
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(stdout); err != nil || string(rest) != "end\n" {
		t.Errorf("the container says %q, %v", rest, err)
	}
	if err := c.Wait(); err != nil || !strings.Contains(out.String(), "Operation not permitted") {
		t.Errorf("a write of the container: %q, %v", out.String(), err)
	}
	if err := os.WriteFile(filepath.Join(p, "f"), nil, 0o600); !errors.Is(err, syscall.EPERM) {
		t.Errorf("a write of root: %v", err)
	}
	if entries, err := os.ReadDir(p); err != nil || len(entries) > 0 {
		t.Errorf("on the host's disk: %v, %v", entries, err)
	}
	// It heals, and the flag is nowhere but below: neither on the data, nor on what is left.
	if again := mustMount(t, h, "a", id(2)); again != p {
		t.Errorf("mounted again at %s", again)
	}
	put(t, filepath.Join(p, "g"), "x")
	if got := flags(t, filepath.Join(d.data, "a")); strings.Contains(got, "i") {
		t.Errorf("the data has flags %s", got)
	}
	mustUnmount(t, h, "a", id(1))
	mustUnmount(t, h, "a", id(2))
	if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mountpoint is still there: %v", err)
	}
}

// TestGuardOfWhatACrashLeft: a directory with the flag is used again, and removed, and a mount in
// its place is left alone by rmdir and flag alike.
func TestGuardOfWhatACrashLeft(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Immutable)
	for _, guard := range []bool{false, true} { // one that sets it no more removes it all the same
		m := newMountpoints(t.TempDir(), true)
		p, err := m.make("a")
		if err != nil || !strings.Contains(flags(t, p), "i") {
			t.Fatalf("made %s with %s, %v", p, flags(t, p), err)
		}
		m.guard = guard
		if again, err := m.make("a"); err != nil || again != p {
			t.Errorf("made again: %s, %v", again, err)
		}
		data := t.TempDir()
		if err := syscall.Mount(data, p, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		if err := m.remove(p); err == nil || !strings.Contains(err.Error(), "still a mount") {
			t.Errorf("removed a mount: %v", err)
		}
		m.protect(p)
		if got := flags(t, data); strings.Contains(got, "i") {
			t.Errorf("what is mounted has flags %s", got)
		}
		if err := syscall.Unmount(p, 0); err != nil {
			t.Fatal(err)
		}
		if got := flags(t, p); !strings.Contains(got, "i") {
			t.Errorf("after the mount the flags are %s", got)
		}
		if err := m.remove(p); err != nil {
			t.Error(err)
		}
	}
}
