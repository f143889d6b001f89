package block_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/volume"
)

// TestIdleHour counts what is asked of the cloud in an hour in which nothing happens, with the default
// configuration: a list of what others did each five minutes, and who the host is, once. Meanwhile the engine
// of each host is asked for its volumes once a minute, as whoever watches it does. With a plugin that lists the
// account for each call, as REX-Ray does, that is a list each time.
func TestIdleHour(t *testing.T) {
	for _, n := range []struct{ hosts, volumes int }{{1, 10}, {10, 10}, {100, 10}, {1, 1000}, {10, 1000}, {100, 1000}} {
		if n.hosts*n.volumes > 10000 && os.Getenv("REMORA_SOAK") == "" { // which takes minutes
			continue
		}
		t.Run(fmt.Sprintf("%d hosts, %d volumes", n.hosts, n.volumes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cloud := blocktest.NewReference(t)
				cloud.Page = 500
				c, err := catalog.DecodeTable[block.Config](map[string]any{"size": "64m"})
				if err != nil {
					t.Fatal(err)
				}
				for i := range n.volumes {
					cloud.Fill(t, c.Namespace, fmt.Sprintf("v%04d", i))
				}
				pages := (n.volumes + cloud.Page - 1) / cloud.Page
				var drivers []volume.Driver
				var providers []block.Provider
				for range n.hosts {
					h, dir := cloud.Host(t), t.TempDir()
					c.Dev, c.Sys = h.Machine.Dev(), h.Machine.Sys()
					d, err := block.Open(t.Context(), h.Provider(t), c, catalog.Env{PoolName: "p", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")})
					if err != nil {
						t.Fatal(err)
					}
					drivers, providers = append(drivers, d), append(providers, h.Provider(t))
				}
				synctest.Wait()
				remora := hourly(cloud, func(i int) {
					if got := count(t, drivers[i]); got != n.volumes {
						t.Fatalf("host %d has %d volumes", i, got)
					}
				}, n.hosts)
				for _, d := range drivers {
					if err := d.(io.Closer).Close(); err != nil {
						t.Error(err)
					}
				}
				listing := hourly(cloud, func(i int) {
					if all, err := providers[i].List(t.Context(), block.Query{Namespace: c.Namespace}); err != nil || len(all) != n.volumes {
						t.Fatalf("host %d has %d volumes, %v", i, len(all), err)
					}
				}, n.hosts)
				least := n.hosts * 12 * pages
				t.Logf("%d hosts, %d volumes: Remora %d, least %d, listing %d: %.1f times", n.hosts, n.volumes, remora, least, listing, float64(listing)/float64(remora))
				if remora > least*110/100 || remora < n.hosts*10*pages {
					t.Errorf("%d requests, and it can be done with %d", remora, least)
				}
				if listing < 49*remora/10 { // by chance a host may list 12 times in the hour, or once less
					t.Errorf("listing the account comes to %d requests, which is not 5 times %d", listing, remora)
				}
			})
		})
	}
}

// hourly has each of n hosts asked for its volumes once a minute for an hour, and returns how many requests
// that came to.
func hourly(cloud *blocktest.Reference, ask func(host int), n int) int {
	before := requests(cloud)
	for range 60 {
		time.Sleep(time.Minute)
		for i := range n {
			ask(i)
		}
	}
	return requests(cloud) - before
}

func requests(c *blocktest.Reference) (n int) {
	for _, count := range c.Client().Counts() {
		n += count.N
	}
	return n
}
