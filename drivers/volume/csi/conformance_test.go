package csi

import (
	"testing"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

func TestConformance(t *testing.T) {
	hosts := map[volume.Driver]*host{}
	open := func(t *testing.T, h *host) volume.Driver {
		d := h.open(t)
		hosts[d] = h
		return d
	}
	volumetest.Run(t, volumetest.Config{
		New: func(t *testing.T) volume.Driver { return open(t, newHost(t, csitest.All())) },
		Reopen: func(t *testing.T, d volume.Driver) volume.Driver {
			if err := d.(*driver).Close(); err != nil {
				t.Error(err)
			}
			return open(t, hosts[d])
		},
		Options:    map[string]string{"size": "32m", "access": "rw-single", "readonly": "false", "gid": "1000", "subdir": "data"},
		BadOptions: map[string]string{"size": "much", "access": "everybody", "subdir": "../x", "mount_options": "a b", "secret.key": "x", "context.a": "b"},
		Resize:     96 << 20,
		Deviates:   map[string]string{"Resize": "the volumes of the tests are directories, and hold as much as one likes; see TestResize"},
	})
}
