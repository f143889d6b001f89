package dobs

import (
	"context"
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
	account := newAccount(t, file)
	blocktest.Run(t, blocktest.Config{
		New:  func(t testing.TB) blocktest.Cloud { return newAccount(t, file).Started(t) },
		Size: gib, Bigger: 2 * gib, XFS: gib, Slow: 5 * time.Minute, Lag: 10 * time.Second,
		Change:   func(c *block.Config) { c.Rate = ownRate },
		Deviates: account.Deviates(map[string]string{"Calls": "when the disk is off cannot be seen"}),
	})
}

// newAccount is the account of the token. What is made has a tag of this run.
func newAccount(t testing.TB, file string) *blocktest.Account {
	t.Helper()
	run := "remora-test-" + blocktest.Mark()
	conf := config{
		Config: block.Config{Rate: ownRate, Dev: "/dev", Sys: "/sys"}, TokenFile: file, Tags: []string{run},
		Endpoint: os.Getenv("REMORA_TEST_DOBS_ENDPOINT"),
	}
	open := func(t testing.TB) *provider {
		t.Helper()
		p, err := connect(t.Context(), conf, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := open(t)
	return &blocktest.Account{
		Machine: "droplet",
		Open:    func(t testing.TB) block.Provider { return open(t) },
		Make: func(t testing.TB, name string, size int64) string {
			t.Helper()
			region, err := p.regionFor(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			v, _, err := p.do.Storage.CreateVolume(t.Context(), &godo.VolumeCreateRequest{
				Region: region, Name: strings.ReplaceAll(name, "_", "-"), SizeGigaBytes: size / gib, Tags: conf.Tags,
			})
			if err != nil {
				t.Fatal(err)
			}
			return v.ID
		},
		Disks: func(ctx context.Context) (all []block.Disk, err error) {
			list, err := p.volumes(ctx, "", "")
			for _, v := range list {
				if slices.Contains(v.Tags, run) {
					all = append(all, disk(v))
				}
			}
			return all, err
		},
		Snapshots: func(ctx context.Context) (all []block.Snapshot, err error) {
			list, err := p.listSnapshots(ctx, p.do.Snapshots.ListVolume)
			for _, s := range list {
				if slices.Contains(s.Tags, run) {
					all = append(all, snapshot(s))
				}
			}
			return all, err
		},
	}
}
