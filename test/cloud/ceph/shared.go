package ceph

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
)

// New starts a cluster for one test.
func New(t testing.TB) *Cluster {
	t.Helper()
	return newWith(t, "memstore")
}

// NewDurable starts a cluster for one test whose store is on disk, for [Cluster.Kill].
func NewDurable(t testing.TB) *Cluster {
	t.Helper()
	return newWith(t, "bluestore")
}

func newWith(t testing.TB, store string) *Cluster {
	t.Helper()
	testenv.Require(t, testenv.Ceph)
	c, err := open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.remove)
	return c
}

var shared = struct {
	sync.Mutex
	*Cluster
}{}

// Shared returns the cluster of all tests of a package, which the first one starts and [Main]
// stops.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	testenv.Require(t, testenv.Ceph)
	shared.Lock()
	defer shared.Unlock()
	if shared.Cluster == nil {
		c, err := open(context.WithoutCancel(t.Context()), "memstore")
		if err != nil {
			t.Fatal(err)
		}
		shared.Cluster = c
	}
	return shared.Cluster
}

// Main runs the tests as [testenv.Main] does, and stops the shared cluster. It returns the status to exit
// with.
func Main(m *testing.M) int {
	status := testenv.Main(m)
	shared.Lock()
	defer shared.Unlock()
	if shared.Cluster != nil {
		shared.remove()
		shared.Cluster = nil
	}
	return status
}

func open(ctx context.Context, store string) (*Cluster, error) {
	dir, err := makeDir()
	if err != nil {
		return nil, err
	}
	c, err := start(ctx, dir, store)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return c, nil
}

func (c *Cluster) remove() {
	c.Stop()
	_ = os.RemoveAll(c.Dir)
}

// Must runs rbd or ceph as [User] and fails the test where it fails.
func (c *Cluster) Must(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := c.Run(t.Context(), program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
