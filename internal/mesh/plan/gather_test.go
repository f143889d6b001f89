package plan

import (
	"encoding/json"
	"testing"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// TestNetworkOfTwoNames: a network that is being given another name has two records for a moment, and is one network.
func TestNetworkOfTwoNames(t *testing.T) {
	body, err := json.Marshal(blue)
	if err != nil {
		t.Fatal(err)
	}
	var in Input
	in.Gather(func(kind string) (all []record.Record) {
		if kind == record.KindNetwork {
			for _, name := range []string{"10.40.0.0/16", "blue"} {
				all = append(all, record.Record{Key: record.Key{Writer: host(1), Kind: kind, Name: name}, Body: body})
			}
		}
		return all
	})
	if len(in.Networks) != 1 {
		t.Errorf("%d networks", len(in.Networks))
	}
}
