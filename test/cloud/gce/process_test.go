package gce

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/api/compute/v1"
	"google.golang.org/api/option"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/fake/faketest"
)

// TestAsAProcess writes to a disk of a cloud that is a process of its own, and wants it to
// leave nothing behind.
func TestAsAProcess(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	at := faketest.Start(t, "gcefake", "-attach", "30m", "-manual-clock")
	host := t.TempDir()
	var made struct{ Metadata string }
	if err := json.Unmarshal(at.Post("/instances", fmt.Sprintf(`{"zone":%q,"name":"a","dir":%q}`, zone, host)), &made); err != nil || made.Metadata == "" {
		t.Fatalf("%v %v", made, err)
	}
	key := at.Post("/accounts", fmt.Sprintf(`{"email":"x@y.iam.gserviceaccount.com","token_uri":"%s/token"}`, at.API))
	api := client(t, at.API, option.WithAuthCredentialsJSON(option.ServiceAccount, key))
	if _, err := api.Disks.Insert(project, zone, &compute.Disk{Name: "data", SizeGb: 10}).Do(); err != nil {
		t.Fatal(err)
	}
	at.Post("/advance?by=0s", "")
	attach := &compute.AttachedDisk{Source: "zones/" + zone + "/disks/data", DeviceName: "data"}
	if _, err := api.Instances.AttachDisk(project, zone, "a", attach).Do(); err != nil {
		t.Fatal(err)
	}
	dev := filepath.Join(host, "dev/disk/by-id/google-data")
	if _, err := os.Stat(dev); err == nil {
		t.Error("the device is there before its time")
	}
	at.Post("/advance?by=30m", "")
	faketest.Write(t, dev, "hello")
	at.Post("/instances/"+zone+"/a/preempt", "")
	if _, err := os.Stat(dev); err == nil {
		t.Error("an instance that is off has its device")
	}
	at.Post("/zones/"+zone+"/cut", "")
	_, err := api.Disks.Get(project, zone, "data").Do()
	refused(t, "a zone that is cut off", err, 503, "backendError", "")
	at.Post("/zones/"+zone+"/join", "")
	if d, err := api.Disks.Get(project, zone, "data").Do(); err != nil || len(d.Users) != 1 {
		t.Errorf("disk %v %v", d, err)
	}
	at.Post("/revoke", "") // a token that a client signs itself is not among them
	at.Stop()
}
