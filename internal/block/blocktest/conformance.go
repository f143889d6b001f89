package blocktest

import (
	"io"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

// Conformance runs the suite of package volumetest. fresh makes a cloud with a host, and returns what
// opens the pool of that host, each time anew. New and Reopen of c are filled in, and so is what this
// process may not do.
func Conformance(t *testing.T, c volumetest.Config, fresh func(t *testing.T) (open func(t testing.TB) volume.Driver)) {
	t.Helper()
	opens := map[volume.Driver]func(t testing.TB) volume.Driver{}
	start := func(t *testing.T, open func(t testing.TB) volume.Driver) volume.Driver {
		d := open(t)
		_ = d.(volume.Pinger).Ping(t.Context()) // a cloud may take its time for the first list
		opens[d] = open
		t.Cleanup(func() { _ = d.(io.Closer).Close() }) // once more where it was opened anew
		return d
	}
	c.New = func(t *testing.T) volume.Driver { return start(t, fresh(t)) }
	c.Reopen = func(t *testing.T, old volume.Driver) volume.Driver {
		if err := old.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
		return start(t, opens[old])
	}
	if why := testenv.NoResizeExt4(t); why != "" {
		if c.Deviates == nil {
			c.Deviates = map[string]string{}
		}
		c.Deviates["Resize"] = why
	}
	volumetest.Run(t, c)
}
