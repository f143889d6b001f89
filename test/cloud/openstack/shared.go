package openstack

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/ceph"
)

var shared = struct {
	sync.Mutex
	*Cloud
}{}

// Shared returns the cloud of all tests of a package, with a cluster of Ceph, which the first
// one starts and [Main] stops.
func Shared(t testing.TB) *Cloud {
	t.Helper()
	testenv.Require(t, testenv.OpenStack)
	cluster := ceph.Shared(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.Cloud == nil {
		dir, err := os.MkdirTemp("", "openstack-")
		if err != nil {
			t.Fatal(err)
		}
		c, err := Start(context.WithoutCancel(t.Context()), dir, Options{Ceph: cluster})
		if err != nil {
			_ = os.RemoveAll(dir)
			t.Fatal(err)
		}
		shared.Cloud = c
	}
	return shared.Cloud
}

// Main runs the tests and stops what is shared. It returns the status to exit with.
func Main(m *testing.M) int {
	status := ceph.Main(m)
	shared.Lock()
	defer shared.Unlock()
	if shared.Cloud != nil {
		shared.Cloud.Stop()
		_ = os.RemoveAll(shared.Cloud.Dir)
		shared.Cloud = nil
	}
	return status
}
