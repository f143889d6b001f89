package mount

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestDetached(t *testing.T) {
	testenv.Require(t, testenv.Root)
	for name, attach := range map[string]func(*Detached, string, string) error{
		"at once": (*Detached).Attach, "by turns": (*Detached).attachByTurns,
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Detach("remora-test", "tmpfs", []string{"size=1m", "noatime", "nodev", "strictatime", "noatime", "mode=0711"})
			if err != nil {
				t.Fatal(err)
			}
			top, err := m.Open(".")
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkdirat(int(top.Fd()), "data", 0o750); err != nil {
				t.Fatal(err)
			}
			if err := top.Close(); err != nil {
				t.Fatal(err)
			}
			target := t.TempDir()
			if err := attach(m, "data", target); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			list, err := List(target)
			if err != nil || len(list) != 1 || list[0].Root != "/data" || list[0].Source != "remora-test" || list[0].FSType != "tmpfs" {
				t.Errorf("listed as %+v, %v", list, err)
			}
			if fi, err := os.Stat(target); err != nil || fi.Mode().Perm() != 0o750 {
				t.Errorf("seen there: %v, %v", fi, err)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(target, &st); err != nil || st.Flags&unix.ST_NOATIME == 0 || st.Flags&unix.ST_NODEV == 0 {
				t.Errorf("flags are %#x, %v", st.Flags, err)
			}
			if err := Unmount(target); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDetachedErrors(t *testing.T) {
	testenv.Require(t, testenv.Root)
	for _, tt := range []struct{ fs, option, want string }{
		{"nosuchfs", "ro", "mount nosuchfs of x: no such device"},
		{"tmpfs", "colour=blue", `option "colour=blue": "tmpfs: Unknown parameter 'colour'"`},
	} {
		if _, err := Detach("x", tt.fs, []string{tt.option}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", tt.fs, err, tt.want)
		}
	}
	m, err := Detach("x", "tmpfs", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Attach("data", t.TempDir()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("attach of what is not there: %v", err)
	}
	if _, err := m.Open("data"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("open of what is not there: %v", err)
	}
}
