package conn

import (
	"maps"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// TestTimeouts holds what an engine's verb calls one after the other below what the engine waits.
func TestTimeouts(t *testing.T) {
	for verb, of := range map[string]struct {
		limit time.Duration
		rpcs  []string
	}{
		"Create":  {120 * time.Second, []string{"CreateVolume"}},
		"Mount":   {120 * time.Second, []string{"ControllerPublishVolume", "NodeStageVolume", "NodePublishVolume"}},
		"Unmount": {60 * time.Second, []string{"NodeUnpublishVolume", "NodeUnstageVolume"}},
		"Remove":  {60 * time.Second, []string{"ControllerUnpublishVolume", "DeleteVolume"}},
		"Expand":  {120 * time.Second, []string{"ControllerExpandVolume", "NodeExpandVolume"}},
	} {
		sum := time.Duration(0)
		for _, rpc := range of.rpcs {
			sum += Timeout(rpc)
		}
		if spare := of.limit - sum; spare < 10*time.Second {
			t.Errorf("%s: %s, of %s", verb, sum, of.limit)
		}
	}
}

func TestEveryRPCHasATimeout(t *testing.T) {
	left := maps.Clone(timeouts)
	services := csi.File_csi_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			delete(left, string(methods.Get(j).Name()))
		}
	}
	if len(left) > 0 {
		t.Errorf("there are no such RPCs: %v", left)
	}
}
