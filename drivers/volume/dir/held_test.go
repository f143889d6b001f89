package dir

import (
	"os"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// pieces makes a file of n blocks with a hole behind each, which takes long to free.
func pieces(t testing.TB, path string, n int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for i := range n {
		if _, err := f.WriteAt(block, 2*i*int64(len(block))); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// TestVMQuotaOfWhatIsGone: files that were removed count for nothing, whenever the file system
// frees them; those that are there, or still open, do.
func TestVMQuotaOfWhatIsGone(t *testing.T) {
	testenv.Require(t, testenv.VM)
	for _, kind := range quotaKinds {
		t.Run(kind.name, func(t *testing.T) {
			base := disk(t, kind.mkfs, kind.options)
			likeContainers(t)
			c := openCounted(t, base)
			create(t, c, "v", "size=64m", "mode=0777")
			dir := data(t, c, "v")
			for range 3 {
				pieces(t, dir+"/gone", 3000)
				if err := os.Remove(dir + "/gone"); err != nil {
					t.Fatal(err)
				}
				if err := c.Resize(t.Context(), "v", 4<<20); err != nil {
					t.Fatalf("all was removed: %v", err)
				}
				if err := c.Resize(t.Context(), "v", 64<<20); err != nil {
					t.Fatal(err)
				}
			}
			pieces(t, dir+"/open", 3000)
			open, err := os.Open(dir + "/open")
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			if err := os.Remove(dir + "/open"); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			wantErr(t, c.Resize(t.Context(), "v", 4<<20), errdefs.ErrInvalid, "size 4m: less than the ")
			if took := time.Since(begun); took > freeTime/2 {
				t.Errorf("refused after %v", took)
			}
			if u := limits(t, c, "v"); u.Limit != 64<<20 {
				t.Errorf("refused, and the limit is %d", u.Limit)
			}
			// The same where the limit comes with the volume.
			pieces(t, dir+"/kept", 100)
			_ = open.Close()
			if err := os.Remove(base + "/v/" + factsName); err != nil {
				t.Fatal(err)
			}
			again := openCounted(t, base)
			create(t, again, "v", "size=4m")
			if u := limits(t, again, "v"); u.Limit != 4<<20 {
				t.Errorf("adopted with %+v", u)
			}
		})
	}
}
