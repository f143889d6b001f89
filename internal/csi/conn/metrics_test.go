package conn

import (
	"context"
	"errors"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestCounts(t *testing.T) {
	answers := []error{nil, status.Error(codes.Aborted, "a"), status.Error(codes.Aborted, "b"), errors.New("c")}
	n := 0
	s := &server{name: "a.example.org", create: func(context.Context, *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
		n++
		return &csi.CreateVolumeResponse{}, answers[n-1]
	}}
	pool := t.TempDir() // a name that no other run has
	d := start(t, s, Config{Pool: pool})
	for range answers {
		_ = create(t.Context(), d)
	}
	got := map[string]uint64{}
	for _, c := range Counts() {
		if c.Pool != pool {
			continue
		}
		got[c.RPC+" "+c.Code] = c.N
		if c.Took[len(Buckets)-1] != c.N || c.Seconds <= 0 {
			t.Errorf("times: %+v", c)
		}
	}
	want := map[string]uint64{"GetPluginInfo OK": 1, "CreateVolume OK": 1, "CreateVolume Aborted": 2, "CreateVolume Unknown": 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}
