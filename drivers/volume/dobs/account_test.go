package dobs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
)

// TestRealAccount runs the scenarios in an account, on the droplet that the test runs on:
//
//	REMORA_TEST_DOBS_TOKEN_FILE=/root/token go test -run TestRealAccount -timeout 2h ./drivers/volume/dobs
//
// No run without it sets out to do this, so that it is not counted as left out.
func TestRealAccount(t *testing.T) {
	file := os.Getenv("REMORA_TEST_DOBS_TOKEN_FILE")
	if file == "" {
		return
	}
	blocktest.Run(t, blocktest.Config{
		New:  func(t testing.TB) blocktest.Cloud { return newAccount(t, file) },
		Size: gib, Bigger: 2 * gib, XFS: gib, Slow: 5 * time.Minute, Lag: 10 * time.Second,
		Change: func(c *block.Config) { c.Rate = ownRate },
		Deviates: map[string]string{
			"Idle":     "it counts what is asked for in a second, which is less than the rate here",
			"Calls":    "when the disk is off cannot be seen",
			"Handover": "it needs a second droplet", "TwoMakeOneName": "it needs a second droplet",
		},
	})
}

// account is a real one. What is made has a tag of this run, by which it is deleted.
type account struct {
	conf  config
	run   string
	hosts int
	p     *provider
}

func newAccount(t testing.TB, file string) *account {
	t.Helper()
	run := fmt.Sprintf("remora-test-%d-%d", time.Now().Unix(), os.Getpid())
	a := &account{run: run, conf: config{
		Config: block.Config{Rate: ownRate, Dev: "/dev", Sys: "/sys"}, TokenFile: file, Tags: []string{run},
		Endpoint: os.Getenv("REMORA_TEST_DOBS_ENDPOINT"),
	}}
	a.p = a.open(t)
	t.Cleanup(func() { a.clean(t) })
	return a
}

func (a *account) open(t testing.TB) *provider {
	t.Helper()
	p, err := connect(t.Context(), a.conf, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Host is the machine that the test runs on. There is one.
func (a *account) Host(t testing.TB) *blocktest.Host {
	t.Helper()
	if a.hosts++; a.hosts > 1 {
		t.Skip("deviates: the scenario needs a second droplet")
	}
	self, err := a.p.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &blocktest.Host{ID: self.ID, Provider: func(t testing.TB) block.Provider { return a.open(t) }}
}

// File returns nothing: the bytes of a disk are DigitalOcean's.
func (a *account) File(testing.TB, string) string { return "" }

// Foreign makes a disk as people do.
func (a *account) Foreign(t testing.TB, name string, size int64) string {
	t.Helper()
	region, err := a.p.regionFor(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := a.p.do.Storage.CreateVolume(t.Context(), &godo.VolumeCreateRequest{
		Region: region, Name: strings.ReplaceAll(name, "_", "-"), SizeGigaBytes: size / gib, Tags: a.conf.Tags,
	})
	if err != nil {
		t.Fatal(err)
	}
	return v.ID
}

// clean deletes what this run has made, off this machine first.
func (a *account) clean(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Minute)
	defer cancel()
	for ; ; time.Sleep(2 * time.Second) {
		list, err := a.p.volumes(ctx, "", "")
		if err != nil {
			t.Errorf("look for what has the tag %s: %v", a.run, err)
			break
		}
		left := 0
		for _, v := range list {
			if !slices.Contains(v.Tags, a.run) {
				continue
			}
			left++
			d := disk(v)
			for _, h := range d.Holders {
				err = a.p.Detach(ctx, d, h.Host, false)
			}
			if len(d.Holders) == 0 {
				err = a.p.Delete(ctx, d)
			}
			if err != nil {
				t.Logf("disk %s: %v", d.ID, err)
			}
		}
		if left == 0 {
			break
		}
	}
	snaps, err := a.p.listSnapshots(ctx, a.p.do.Snapshots.ListVolume)
	for _, s := range snaps {
		if err == nil && slices.Contains(s.Tags, a.run) {
			err = a.p.DeleteSnapshot(ctx, snapshot(s))
		}
	}
	if err != nil {
		t.Errorf("snapshots with the tag %s: %v", a.run, err)
	}
}
