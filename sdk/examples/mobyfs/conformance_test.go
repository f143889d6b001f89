package main

import (
	"os"
	"testing"

	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

func TestConformance(t *testing.T) {
	volumetest.Run(t, volumetest.Config{
		New: func(t *testing.T) volume.Driver { return open(t, t.TempDir()) },
		Reopen: func(t *testing.T, d volume.Driver) volume.Driver {
			t.Helper()
			old, ok := d.(dirs)
			if !ok {
				t.Fatalf("driver is a %T", d)
			}
			return open(t, old.Name())
		},
	})
}

func open(t *testing.T, dir string) dirs {
	t.Helper()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return dirs{r}
}
