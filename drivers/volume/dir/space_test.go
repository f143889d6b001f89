package dir

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/volume"
)

var _ volume.Spacer = (*driver)(nil)

func TestSpace(t *testing.T) {
	path := t.TempDir()
	space, err := openPool(t, path).Space(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	if want := int64(st.Blocks) * st.Bsize; space.Total != want || space.Free <= 0 || space.Free > want {
		t.Errorf("space is %+v of a file system of %d bytes", space, want)
	}
}
