package dir

import (
	"errors"
	"os/exec"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

func survey(t testing.TB, d *driver) (map[string]volume.Figures, error) {
	t.Helper()
	all := map[string]volume.Figures{}
	for f, err := range d.Survey(t.Context()) {
		if err != nil {
			return all, err
		}
		all[f.Name] = f
	}
	return all, nil
}

// TestVMQuotaTurnedOn: quota that is turned on under a pool that is open is used, and missed where
// it is turned off again.
func TestVMQuotaTurnedOn(t *testing.T) {
	testenv.Require(t, testenv.VM)
	for _, kind := range []struct{ name, mkfs, on string }{
		{"ext4", "mkfs.ext4 -q", `tune2fs -O project,quota "$image" >/dev/null`},
		{"xfs", "mkfs.xfs -q", "true"},
	} {
		t.Run(kind.name, func(t *testing.T) {
			at := disk(t, kind.mkfs, "rw")
			again := func(before, options string) {
				t.Helper()
				script := `image=$(losetup -nO BACK-FILE "$(findmnt -no SOURCE "$0")") && umount "$0" && ` + before + ` && mount -o loop,` + options + ` "$image" "$0"`
				if out, err := exec.Command("sh", "-c", script, at).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			d := openPool(t, at)
			create(t, d, "old")
			if err := d.Create(t.Context(), "out", opts("mountpoint="+t.TempDir())); err != nil {
				t.Fatal(err)
			}
			_, err := d.Usage(t.Context(), "old")
			wantErr(t, err, errdefs.ErrUnsupported, "does not count")
			if all, err := survey(t, d); !errors.Is(err, errdefs.ErrUnsupported) || len(all) > 0 {
				t.Errorf("survey %v, %v", all, err)
			}
			again(kind.on, "prjquota")
			likeContainers(t)
			_, err = d.Usage(t.Context(), "old")
			wantErr(t, err, errdefs.ErrUnsupported, "made before")
			if err := d.Resize(t.Context(), "old", 4<<20); err != nil {
				t.Fatal(err)
			}
			create(t, d, "new", "size=8m")
			if n := full(t, data(t, d, "old")+"/f"); !about(n, 4<<20) {
				t.Errorf("4 MiB took %d bytes", n)
			}
			all, err := survey(t, d)
			if err != nil || len(all) != 3 || all["out"].Usage != nil {
				t.Fatalf("survey %+v, %v", all, err)
			}
			for name, limit := range map[string]int64{"old": 4 << 20, "new": 8 << 20} {
				if u := limits(t, d, name); u.Limit != limit || all[name].Usage == nil || *all[name].Usage != u {
					t.Errorf("usage of %s is %+v, by survey %+v", name, u, all[name].Usage)
				}
			}
			again("true", "rw")
			_, err = d.Usage(t.Context(), "old")
			wantErr(t, err, errdefs.ErrUnsupported, "does not count")
			wantErr(t, d.Resize(t.Context(), "old", 8<<20), errdefs.ErrUnsupported, "keeps no project quota")
			data(t, d, "old")
		})
	}
}
