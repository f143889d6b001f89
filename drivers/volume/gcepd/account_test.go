package gcepd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"google.golang.org/api/compute/v1"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
)

// TestRealAccount runs the scenarios in a project, on the instance of it that the test runs on:
//
//	REMORA_TEST_GCEPD_PROJECT=my-project-123 go test -run TestRealAccount -timeout 2h ./drivers/volume/gcepd
//
// The credentials are those of REMORA_TEST_GCEPD_KEYFILE, of GOOGLE_APPLICATION_CREDENTIALS, or of the
// instance's account. No run without the project sets out to do this, so that it is not counted as
// left out.
func TestRealAccount(t *testing.T) {
	name := os.Getenv("REMORA_TEST_GCEPD_PROJECT")
	if name == "" {
		return
	}
	account := newAccount(t, name)
	blocktest.Run(t, blocktest.Config{
		New:  func(t testing.TB) blocktest.Cloud { return newAccount(t, name).Started(t) },
		Size: 10 * gib, Bigger: 15 * gib, XFS: 10 * gib, Slow: 10 * time.Minute, Lag: 10 * time.Second,
		Change: func(c *block.Config) { c.Rate = 10 },
		Deviates: account.Deviates(map[string]string{
			"Calls": "names that were removed a moment ago cost further requests, and when the disk is off cannot be seen",
		}),
	})
}

const runLabel = "remora-test"

// newAccount is the project. What is made has a label of this run.
func newAccount(t testing.TB, name string) *blocktest.Account {
	t.Helper()
	run := blocktest.Mark()
	conf := config{
		Config: block.Config{Namespace: "test", Size: 10 * gib, Rate: 10, Dev: "/dev", Sys: "/sys"}, Project: name, Type: standardType,
		Keyfile: os.Getenv("REMORA_TEST_GCEPD_KEYFILE"), Labels: []string{runLabel + "=" + run},
	}
	open := func(t testing.TB) *provider {
		t.Helper()
		p, err := connect(t.Context(), conf, slog.New(slog.DiscardHandler), metadataAddress())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p, marked := open(t), fmt.Sprintf(`labels.%s = "%s"`, runLabel, run)
	return &blocktest.Account{
		Machine: "instance",
		Open:    func(t testing.TB) block.Provider { return open(t) },
		Make: func(t testing.TB, name string, size int64) string {
			t.Helper()
			self, err := p.Self(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			op, err := p.api.Disks.Insert(conf.Project, self.Zone, &compute.Disk{Name: name, SizeGb: size / gib, Labels: conf.own()}).Context(t.Context()).Do()
			if err == nil {
				err = p.wait(t.Context(), op)
			}
			if err != nil {
				t.Fatal(err)
			}
			return self.Zone + "/" + name
		},
		Disks: func(ctx context.Context) (all []block.Disk, err error) {
			left, _, err := p.aggregated(ctx, marked)
			for _, v := range left {
				all = append(all, p.disk(v))
			}
			return all, err
		},
		Snapshots: func(ctx context.Context) (all []block.Snapshot, err error) {
			list, err := p.api.Snapshots.List(conf.Project).Filter(marked).Context(ctx).Do()
			if err != nil {
				return nil, err
			}
			for _, s := range list.Items {
				all = append(all, block.Snapshot{ID: s.Name})
			}
			return all, nil
		},
	}
}
