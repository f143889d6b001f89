package do

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/fake/faketest"
)

// TestAsAProcess writes to a volume of a cloud that is a process of its own, kills a
// droplet of it, and wants the process to leave nothing behind.
func TestAsAProcess(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	at := faketest.Start(t, "dofake", "-token", token, "-attach", "1h", "-manual-clock")
	host := t.TempDir()
	var made struct{ Metadata string }
	if err := json.Unmarshal(at.Post("/droplets", fmt.Sprintf(`{"id":1,"name":"a","region":"nyc1","dir":%q}`, host)), &made); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(made.Metadata + "/metadata/v1/id")
	if err != nil {
		t.Fatal(err)
	}
	if id, _ := io.ReadAll(resp.Body); string(id) != "1" {
		t.Errorf("id %q", id)
	}
	resp.Body.Close()

	c := client(t, at.API, token)
	v, _, err := c.Storage.CreateVolume(t.Context(), &godo.VolumeCreateRequest{Name: "data", Region: "nyc1", SizeGigaBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.StorageActions.Attach(t.Context(), v.ID, 1); err != nil {
		t.Fatal(err)
	}
	dev := filepath.Join(host, "dev/disk/by-id/scsi-0DO_Volume_data")
	if _, err := os.Stat(dev); err == nil {
		t.Error("the device is there before its time")
	}
	at.Post("/advance?by=1h", "")
	faketest.Write(t, dev, "hello")
	at.Post("/droplets/1/power_off", "")
	at.Post("/droplets/1/power_on", "")
	if got := faketest.Read(t, dev, 5); got != "hello" {
		t.Errorf("the device has %q", got)
	}
	at.Post("/droplets/1/destroy", "")
	if _, err := os.Stat(dev); err == nil {
		t.Error("a destroyed droplet has its device")
	}
	at.Stop()
}
