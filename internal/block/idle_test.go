package block_test

import (
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
)

// TestIdleHour counts what hosts that do nothing ask of the cloud in an hour, with the default
// configuration: a list of what others did each five minutes, and who they are, once.
func TestIdleHour(t *testing.T) {
	for _, hosts := range []int{1, 10, 100} {
		t.Run(fmt.Sprint(hosts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cloud := blocktest.NewReference(t)
				c, err := catalog.DecodeTable[block.Config](map[string]any{"size": "64m"})
				if err != nil {
					t.Fatal(err)
				}
				var all []io.Closer
				for range hosts {
					h, dir := cloud.Host(t), t.TempDir()
					c.Dev, c.Sys = h.Machine.Dev(), h.Machine.Sys()
					d, err := block.Open(t.Context(), h.Provider(t), c, catalog.Env{PoolName: "p", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")})
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, d.(io.Closer))
				}
				synctest.Wait()
				before := requests(cloud)
				time.Sleep(time.Hour)
				n := requests(cloud) - before
				t.Logf("%d requests of %d hosts", n, hosts)
				if most := hosts * 12 * 110 / 100; n > most || n < hosts*10 {
					t.Errorf("%d requests, want at most %d", n, most)
				}
				for _, d := range all {
					if err := d.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

func requests(c *blocktest.Reference) (n int) {
	for _, count := range c.Client().Counts() {
		n += count.N
	}
	return n
}
