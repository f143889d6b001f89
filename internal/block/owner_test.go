package block_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// owned is a provider whose credentials may become others.
type owned struct {
	ill
	owner *atomic.Value
}

func (p owned) Owner() string { return p.owner.Load().(string) }

// openOwned opens the pool of a directory with the credentials of somebody, and a namespace.
func openOwned(t *testing.T, h *blocktest.Host, p block.Provider, dir, namespace string) volume.Driver {
	t.Helper()
	c, err := catalog.DecodeTable[block.Config](map[string]any{"size": "64m", "cloud_refresh": "1m", "namespace": namespace})
	if err != nil {
		t.Fatal(err)
	}
	c.Dev, c.Sys = h.Machine.Dev(), h.Machine.Sys()
	d, err := block.Open(t.Context(), p, c, catalog.Env{PoolName: "pool", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestAnotherAccount: what is remembered of the volumes of one account, namespace or region is not shown to
// another, and still there for the one whose it is.
func TestAnotherAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clouds := []*blocktest.Reference{blocktest.NewReference(t), blocktest.NewReference(t)}
		hosts := []*blocktest.Host{clouds[0].Host(t), clouds[1].Host(t)}
		dir := t.TempDir()
		var owner atomic.Value
		owner.Store("me")
		deaf := false
		provider := func(i int) block.Provider {
			return owned{ill{Provider: hosts[i].Provider(t), lists: func(_ block.Query, all []block.Disk) ([]block.Disk, error) {
				if deaf {
					return nil, errdefs.Errorf(errdefs.ErrUnavailable, "the cloud is out of reach")
				}
				return all, nil
			}}, &owner}
		}
		d := openOwned(t, hosts[0], provider(0), dir, "remora")
		for i := range 3 {
			if err := d.Create(t.Context(), fmt.Sprint("mine", i), map[string]string{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		shut(t, d)

		deaf = true
		for _, tt := range []struct {
			what, owner, namespace string
			cloud, want            int
		}{
			{"the same", "me", "remora", 0, 3},
			{"other credentials", "you", "remora", 0, -1},
			{"another account", "me", "remora", 1, -1},
			{"another namespace", "me", "other", 0, -1},
			{"the same again", "me", "remora", 0, 3},
		} {
			owner.Store(tt.owner)
			d := openOwned(t, hosts[tt.cloud], provider(tt.cloud), dir, tt.namespace)
			n := 0
			for _, err := range d.Volumes(t.Context()) {
				if err != nil {
					if n = -1; !errors.Is(err, errdefs.ErrUnavailable) {
						t.Errorf("%s: %v", tt.what, err)
					}
					break
				}
				n++
			}
			if n != tt.want {
				t.Errorf("%s: %d volumes, want %d", tt.what, n, tt.want)
			}
			shut(t, d)
		}
	})
}

// TestCredentialsChange: a daemon whose credentials become another account's shows that one's volumes with the
// next list, and not those before until it is sure that they are gone.
func TestCredentialsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := blocktest.NewReference(t)
		h, dir := cloud.Host(t), t.TempDir()
		var owner atomic.Value
		owner.Store("me")
		p := owned{ill{Provider: h.Provider(t), lists: func(_ block.Query, all []block.Disk) ([]block.Disk, error) {
			if owner.Load() == "you" {
				return nil, nil
			}
			return all, nil
		}}, &owner}
		d := openOwned(t, h, p, dir, "remora")
		for i := range 3 {
			if err := d.Create(t.Context(), fmt.Sprint("mine", i), map[string]string{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		owner.Store("you")
		time.Sleep(70 * time.Second)
		if n := count(t, d); n != 0 {
			t.Errorf("%d volumes of another account", n)
		}
		shut(t, d)
		d = openOwned(t, h, p, dir, "remora")
		if n := count(t, d); n != 0 {
			t.Errorf("%d volumes of another account after a restart", n)
		}
		owner.Store("me")
		time.Sleep(70 * time.Second)
		if n := count(t, d); n != 3 {
			t.Errorf("%d volumes with the first credentials again", n)
		}
		shut(t, d)
	})
}
