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
	blocktest.Run(t, blocktest.Config{
		New:  func(t testing.TB) blocktest.Cloud { return newAccount(t, name) },
		Size: 10 * gib, Bigger: 15 * gib, XFS: 10 * gib, Slow: 10 * time.Minute, Lag: 10 * time.Second,
		Change: func(c *block.Config) { c.Rate = 10 },
		Deviates: map[string]string{
			"Idle":     "it counts what is asked for in a second, which is less than the rate here",
			"Calls":    "names that were removed a moment ago cost further requests, and when the disk is off cannot be seen",
			"Handover": "it needs a second instance", "TwoMakeOneName": "it needs a second instance",
		},
	})
}

// accountPool is a real project. What is made has a label of this run, by which it is deleted.
type accountPool struct {
	conf  config
	hosts int
	p     *provider
}

const runLabel = "remora-test"

func newAccount(t testing.TB, name string) *accountPool {
	t.Helper()
	run := fmt.Sprintf("%d-%d", time.Now().Unix(), os.Getpid())
	a := &accountPool{conf: config{
		Config: block.Config{Namespace: "test", Size: 10 * gib, Rate: 10, Dev: "/dev", Sys: "/sys"}, Project: name, Type: standardType,
		Keyfile: os.Getenv("REMORA_TEST_GCEPD_KEYFILE"), Labels: []string{runLabel + "=" + run},
	}}
	a.p = a.open(t)
	t.Cleanup(func() { a.clean(t, run) })
	return a
}

func (a *accountPool) open(t testing.TB) *provider {
	t.Helper()
	p, err := connect(t.Context(), a.conf, slog.New(slog.DiscardHandler), metadataAddress())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Host is the machine that the test runs on. There is one.
func (a *accountPool) Host(t testing.TB) *blocktest.Host {
	t.Helper()
	if a.hosts++; a.hosts > 1 {
		t.Skip("deviates: the scenario needs a second instance")
	}
	self, err := a.p.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &blocktest.Host{ID: self.ID, Provider: func(t testing.TB) block.Provider { return a.open(t) }}
}

// File returns nothing: the bytes of a disk are Google's.
func (a *accountPool) File(testing.TB, string) string { return "" }

// Foreign makes a disk as people do.
func (a *accountPool) Foreign(t testing.TB, name string, size int64) string {
	t.Helper()
	self, err := a.p.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	op, err := a.p.api.Disks.Insert(a.conf.Project, self.Zone, &compute.Disk{Name: name, SizeGb: size / gib, Labels: a.conf.own()}).Context(t.Context()).Do()
	if err == nil {
		err = a.p.wait(t.Context(), op)
	}
	if err != nil {
		t.Fatal(err)
	}
	return self.Zone + "/" + name
}

// clean deletes what this run has made, off this machine first.
func (a *accountPool) clean(t testing.TB, run string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Minute)
	defer cancel()
	filter := fmt.Sprintf(`labels.%s = "%s"`, runLabel, run)
	for ; ; time.Sleep(5 * time.Second) {
		left, _, err := a.p.aggregated(ctx, filter)
		if err != nil || len(left) == 0 {
			if err != nil {
				t.Errorf("look for %s: %v", filter, err)
			}
			break
		}
		for _, v := range left {
			d := a.p.disk(v)
			for _, h := range d.Holders {
				err = a.p.Detach(ctx, d, h.Host, false)
			}
			if len(d.Holders) == 0 {
				_, err = a.p.api.Disks.Delete(a.conf.Project, d.Zone, v.Name).Context(ctx).Do()
			}
			if err != nil {
				t.Logf("disk %s: %v", d.ID, err)
			}
		}
	}
	snaps, err := a.p.api.Snapshots.List(a.conf.Project).Filter(filter).Context(ctx).Do()
	if err != nil {
		t.Errorf("snapshots of %s: %v", filter, err)
		return
	}
	for _, s := range snaps.Items {
		if err := a.p.DeleteSnapshot(ctx, block.Snapshot{ID: s.Name}); err != nil {
			t.Errorf("snapshot %s: %v", s.Name, err)
		}
	}
}
