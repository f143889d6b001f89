package blocktest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
)

// Account is a real account of a cloud, on the machine of it that the test runs on. What a run makes carries a
// mark of that run, and is deleted when it is over.
type Account struct {
	// Machine is the cloud's word for one, such as "instance".
	Machine string
	// Open makes what a pool has, anew for each daemon.
	Open func(t testing.TB) block.Provider
	// Make makes a disk as people do, with the mark.
	Make func(t testing.TB, name string, size int64) (disk string)
	// Disks and Snapshots return those that carry the mark.
	Disks     func(ctx context.Context) ([]block.Disk, error)
	Snapshots func(ctx context.Context) ([]block.Snapshot, error)

	hosts int
}

// Mark is that of a run: no two are the same.
func Mark() string { return fmt.Sprintf("%d-%d", time.Now().Unix(), os.Getpid()) }

// Started has what the run makes deleted at the end of the test.
func (a *Account) Started(t testing.TB) *Account {
	t.Cleanup(func() { a.clean(t) })
	return a
}

// Deviates is what no provider can pass with one machine and the rate of a real account, and more.
func (a *Account) Deviates(more map[string]string) map[string]string {
	all := map[string]string{
		"Idle":     "it counts what is asked for in a second, which is less than the rate here",
		"Handover": "it needs a second " + a.Machine, "TwoMakeOneName": "it needs a second " + a.Machine,
	}
	maps.Copy(all, more)
	return all
}

// Host is the machine that the test runs on. There is one.
func (a *Account) Host(t testing.TB) *Host {
	t.Helper()
	if a.hosts++; a.hosts > 1 {
		t.Skip("deviates: the scenario needs a second " + a.Machine)
	}
	self, err := a.Open(t).Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &Host{ID: self.ID, Provider: a.Open}
}

// File returns nothing: the bytes of a disk are the cloud's.
func (a *Account) File(testing.TB, string) string { return "" }

// Foreign makes a disk as people do.
func (a *Account) Foreign(t testing.TB, name string, size int64) string {
	t.Helper()
	return a.Make(t, name, size)
}

// clean deletes what the run has made, off this machine first.
func (a *Account) clean(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Minute)
	defer cancel()
	p := a.Open(t)
	for ; ; time.Sleep(2 * time.Second) {
		left, err := a.Disks(ctx)
		if err != nil {
			t.Errorf("look for the disks of this run: %v", err)
		}
		if len(left) == 0 || err != nil {
			break
		}
		for _, d := range left {
			for _, h := range d.Holders {
				err = p.Detach(ctx, d, h.Host, false)
			}
			if len(d.Holders) == 0 {
				err = p.Delete(ctx, d)
			}
			if err != nil {
				t.Logf("disk %s: %v", d.ID, err)
			}
		}
	}
	snaps, err := a.Snapshots(ctx)
	for _, s := range snaps {
		if err == nil {
			err = p.(block.Snapshotter).DeleteSnapshot(ctx, s)
		}
	}
	if err != nil {
		t.Errorf("the snapshots of this run: %v", err)
	}
}
