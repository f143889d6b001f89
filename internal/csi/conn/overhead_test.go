package conn

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// bare is a client of gRPC with nothing around it.
func bare(t testing.TB, path string) csi.ControllerClient {
	t.Helper()
	cc, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return csi.NewControllerClient(cc)
}

func request() *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: "remora-0123456789abcdef0123", Parameters: map[string]string{"type": "fast", "zone": "a"},
		Secrets:            map[string]string{"user": "remora", "password": password},
		VolumeCapabilities: []*csi.VolumeCapability{capability("noatime", flag)},
	}
}

// overhead makes the same call by turns with and without what is around it here, and returns the times of each.
func overhead(t testing.TB, n int) (plain, ours []time.Duration) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, &server{name: "a.example.org"})
	clients := []csi.ControllerClient{bare(t, path), open(t, Config{Node: path, Pool: "overhead"}).Controller()}
	times := make([][]time.Duration, 2)
	for i := range 2*n + 20 {
		which := (i + i/2) % 2 // who is first changes
		began := time.Now()
		if _, err := clients[which].CreateVolume(t.Context(), request()); err != nil {
			t.Fatal(err)
		}
		if i >= 20 {
			times[which] = append(times[which], time.Since(began))
		}
	}
	slices.Sort(times[0])
	slices.Sort(times[1])
	return times[0], times[1]
}

// TestOverhead holds what is added to an RPC to the 5 ms that are promised.
func TestOverhead(t *testing.T) {
	plain, ours := overhead(t, 500)
	for _, of := range []struct {
		name string
		at   int
	}{{"median", len(ours) / 2}, {"p99", len(ours) * 99 / 100}} {
		added := ours[of.at] - plain[of.at]
		t.Logf("%s: %s with gRPC alone, %s more", of.name, plain[of.at], added)
		if of.name == "median" && added > 5*time.Millisecond {
			t.Errorf("%s is added to an RPC", added)
		}
	}
}

func BenchmarkRPC(b *testing.B) {
	path := filepath.Join(b.TempDir(), "s")
	serve(b, path, &server{name: "a.example.org"})
	for name, c := range map[string]csi.ControllerClient{"bare": bare(b, path), "conn": open(b, Config{Node: path, Pool: "overhead"}).Controller()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := c.CreateVolume(b.Context(), request()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
