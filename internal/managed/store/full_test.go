package store

import (
	"bytes"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// A disk that is full is said in one line with what to do, and nothing of what did not fit is left.
func TestDiskFull(t *testing.T) {
	testenv.Require(t, testenv.Root)
	where := t.TempDir()
	check(t, syscall.Mount("tmpfs", where, "tmpfs", 0, "size=3m,mode=700"))
	t.Cleanup(func() { _ = syscall.Unmount(where, syscall.MNT_DETACH) })
	s := opened(t, where)
	t.Cleanup(func() { _ = s.Close() }) // before the file system goes
	noise := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // never fails
	kept := must[Record](t)(s.Create(t.Context(), "kept:latest", bytes.NewReader(bundle(t, "kept", reg("a", "a")))))

	full := func(err error) {
		t.Helper()
		wants(t, err, errdefs.ErrUnavailable, "no space left on device")
		if hints := errdefs.Hints(err); len(hints) != 1 {
			t.Errorf("hints are %q", hints)
		}
		tidied(t, s)
	}
	_, err := s.Create(t.Context(), "big:latest", bytes.NewReader(bundle(t, "big", reg("a", string(noise)))))
	full(err)
	release := s.Hold()
	layer := zipped(t, archive(t, reg("a", string(noise)))) // the blob fits, and what is in it does not
	img := pulled(t, s, "big", layer)
	_, err = s.Install(t.Context(), "big:latest", "", img, nil, nil)
	wants(t, err, errdefs.ErrUnavailable, "no space left on device")
	_, err = s.Upgrade(t.Context(), kept.Plugin.ID, "", img, nil, nil)
	wants(t, err, errdefs.ErrUnavailable, "no space left on device")
	err = s.Add(t.Context(), bytes.NewReader(noise), describe("", noise))
	release()
	full(err)
	if got := must[[]byte](t)(os.ReadFile(s.Rootfs(must[Record](t)(s.Get("kept"))) + "/a")); string(got) != "a" {
		t.Errorf("%q", got)
	}
	_ = must[Record](t)(s.Create(t.Context(), "small:latest", bytes.NewReader(bundle(t, "small"))))
}
