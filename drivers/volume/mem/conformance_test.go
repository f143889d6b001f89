package mem

import (
	"testing"

	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

func TestConformance(t *testing.T) {
	volumetest.Run(t, volumetest.Config{
		New:        func(t *testing.T) volume.Driver { return openPool(t, t.TempDir()) },
		Reopen:     func(t *testing.T, d volume.Driver) volume.Driver { return openPool(t, d.(*driver).path) },
		Options:    map[string]string{"size": "1m", "mode": "0750"},
		BadOptions: map[string]string{"size": "lots"},
	})
}
