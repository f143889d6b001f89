package store

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
)

// sparse is a tar by tar(1) of a rootfs with a file that is a long hole and a word, in one of its forms.
func sparse(t *testing.T, format, dir string, size int64) []byte {
	t.Helper()
	top := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(top, dir), 0o755))
	check(t, os.WriteFile(filepath.Join(top, "config.json"), []byte("{}"), 0o600))
	f := must[*os.File](t)(os.Create(filepath.Join(top, dir, "holes")))
	_ = must[int](t)(f.WriteAt([]byte("word"), size-8192))
	check(t, f.Truncate(size))
	check(t, f.Close())
	args := []string{"-C", top, "--sparse", "--hole-detection=seek", "--format=" + format, "-cf", "-", "config.json", "rootfs"}
	if dir == "." {
		args = append(args[:len(args)-2], "holes")
	}
	cmd := exec.Command("tar", args...)
	cmd.Stderr = t.Output()
	return must[[]byte](t)(cmd.Output())
}

// A few hundred bytes may stand for a file of gigabytes, which takes no more room on the disk than in the archive.
func TestSparse(t *testing.T) {
	testenv.Require(t, testenv.Root)
	const size = 64 << 20
	for _, format := range []string{"gnu", "pax"} {
		s := opened(t, t.TempDir())
		data := sparse(t, format, ".", size)
		if len(data) > 1<<20 {
			t.Skip("needs holes: the file system of the test has none")
		}
		installed := must[Record](t)(s.Install(t.Context(), "a:latest", "", pulled(t, s, "a", data), nil, nil))
		var st syscall.Stat_t
		check(t, syscall.Stat(s.Rootfs(installed)+"/holes", &st))
		if st.Size != size || st.Blocks > 2048 {
			t.Errorf("%s: it is of %d bytes, in %d blocks", format, st.Size, st.Blocks)
		}
		made := must[Record](t)(s.Create(t.Context(), "b:latest", bytes.NewReader(sparse(t, format, "rootfs", size))))
		for _, r := range []Record{installed, made} {
			got := must[[]byte](t)(os.ReadFile(s.Rootfs(r) + "/holes"))
			if want := append(make([]byte, size-8192), append([]byte("word"), make([]byte, 8188)...)...); !bytes.Equal(got, want) {
				t.Errorf("%s: %s is not what it was", format, r.Plugin.Name)
			}
		}
	}
}
