package dir

import (
	"testing"

	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

func TestConformance(t *testing.T) {
	volumetest.Run(t, volumetest.Config{
		New:        func(t *testing.T) volume.Driver { return openPool(t, t.TempDir()) },
		Reopen:     func(t *testing.T, d volume.Driver) volume.Driver { return openPool(t, d.(*driver).Path) },
		Options:    opts("mode=0750", "uid=1000"),
		BadOptions: opts("mode=rwx"),
		Resize:     16 << 20,
	})
}
