package cinder

import (
	"os"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
)

// TestRealAccount runs the scenarios in a project of a cloud, on the server that the test runs on:
//
//	REMORA_TEST_CINDER_CLOUD=mycloud go test -run TestRealAccount -timeout 2h ./drivers/volume/cinder
//
// The cloud is one of clouds.yaml; REMORA_TEST_CINDER_TYPE is the type of the volumes. No run
// without it sets out to do this, so that it is not counted as left out.
func TestRealAccount(t *testing.T) {
	name := os.Getenv("REMORA_TEST_CINDER_CLOUD")
	if name == "" {
		return
	}
	blocktest.Run(t, blocktest.Config{
		New: func(t testing.TB) blocktest.Cloud {
			a := &account{conf: config{
				Config: block.Config{Rate: 10, Dev: "/dev", Sys: "/sys"}, Cloud: name, Interface: "public", Type: os.Getenv("REMORA_TEST_CINDER_TYPE"),
			}}
			t.Cleanup(func() { a.clean(t) })
			return a
		},
		Size: gib, Bigger: 2 * gib, XFS: gib, Slow: 5 * time.Minute,
		Change: func(c *block.Config) { c.Rate = 10 },
		Deviates: map[string]string{
			"Idle":     "it counts what is asked for in a second, which is less than the rate here",
			"Handover": "it needs a second server", "TwoMakeOneName": "it needs a second server",
		},
	})
}

// account is a project of a real cloud.
type account struct {
	conf  config
	hosts int
	made  []string // by Foreign
}

func (a *account) open(t testing.TB) *provider {
	t.Helper()
	p, err := newProvider(t.Context(), a.conf, catalog.Env{}.Log())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Host is the machine that the test runs on. There is one.
func (a *account) Host(t testing.TB) *blocktest.Host {
	t.Helper()
	if a.hosts++; a.hosts > 1 {
		t.Skip("deviates: the scenario needs a second server")
	}
	self, err := a.open(t).Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &blocktest.Host{ID: self.ID, Provider: func(t testing.TB) block.Provider { return a.open(t) }}
}

// File returns nothing: the bytes of a disk are out of reach.
func (a *account) File(testing.TB, string) string { return "" }

// Foreign makes a disk as people do.
func (a *account) Foreign(t testing.TB, name string, size int64) string {
	t.Helper()
	s, err := a.open(t).login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v, err := volumes.Create(t.Context(), s.volumes, volumes.CreateOpts{Name: name, Size: int(size / gib), VolumeType: a.conf.Type}, nil).Extract()
	if err != nil {
		t.Fatal(err)
	}
	a.made = append(a.made, v.ID)
	return v.ID
}

// clean deletes what is in the namespace of the tests, and nothing else.
func (a *account) clean(t testing.TB) {
	ctx, cancel := withoutTest(t)
	defer cancel()
	p := a.open(t)
	all, err := p.List(ctx, block.Query{Namespace: "test"})
	if err != nil {
		t.Error(err)
	}
	for _, id := range a.made {
		all = append(all, block.Disk{ID: id})
	}
	s, err := p.login(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		for _, h := range d.Holders {
			_ = p.Detach(ctx, d, h.Host, true)
		}
		for statusOf(p.explain(ctx, "DeleteVolume", volumes.Delete(ctx, s.volumes, d.ID, volumes.DeleteOpts{Cascade: true}).ExtractErr())) == 400 && ctx.Err() == nil {
			time.Sleep(time.Second)
		}
	}
}
