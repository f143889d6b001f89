package gce

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/api/compute/v1"
	"google.golang.org/api/option"

	"github.com/remora-plugins/remora/internal/testenv"
)

// TestAsAProcess writes to a disk of a cloud that is a process of its own, and wants it to
// leave nothing behind.
func TestAsAProcess(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	bin := filepath.Join(t.TempDir(), "gcefake")
	if out, err := exec.Command("go", "build", "-o", bin, "./gcefake").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(bin, "-dir", t.TempDir(), "-attach", "30m", "-manual-clock")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	var at struct{ API, Control string }
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&at); err != nil {
		t.Fatal(err)
	}
	post := func(path, body string) []byte {
		t.Helper()
		resp, err := http.Post(at.Control+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		if resp.StatusCode >= 300 {
			t.Fatalf("%s: %s", path, text)
		}
		return text
	}
	host := t.TempDir()
	var made struct{ Metadata string }
	if err := json.Unmarshal(post("/instances", fmt.Sprintf(`{"zone":%q,"name":"a","dir":%q}`, zone, host)), &made); err != nil || made.Metadata == "" {
		t.Fatalf("%v %v", made, err)
	}
	key := post("/accounts", fmt.Sprintf(`{"email":"x@y.iam.gserviceaccount.com","token_uri":"%s/token"}`, at.API))
	api := client(t, at.API, option.WithAuthCredentialsJSON(option.ServiceAccount, key))
	if _, err := api.Disks.Insert(project, zone, &compute.Disk{Name: "data", SizeGb: 10}).Do(); err != nil {
		t.Fatal(err)
	}
	post("/advance?by=0s", "")
	attach := &compute.AttachedDisk{Source: "zones/" + zone + "/disks/data", DeviceName: "data"}
	if _, err := api.Instances.AttachDisk(project, zone, "a", attach).Do(); err != nil {
		t.Fatal(err)
	}
	dev := filepath.Join(host, "dev/disk/by-id/google-data")
	if _, err := os.Stat(dev); err == nil {
		t.Error("the device is there before its time")
	}
	post("/advance?by=30m", "")
	write(t, dev, "hello")
	post("/instances/"+zone+"/a/preempt", "")
	if _, err := os.Stat(dev); err == nil {
		t.Error("an instance that is off has its device")
	}
	post("/zones/"+zone+"/cut", "")
	_, err = api.Disks.Get(project, zone, "data").Do()
	refused(t, "a zone that is cut off", err, 503, "backendError", "")
	post("/zones/"+zone+"/join", "")
	if d, err := api.Disks.Get(project, zone, "data").Do(); err != nil || len(d.Users) != 1 {
		t.Errorf("disk %v %v", d, err)
	}
	post("/revoke", "") // a token that a client signs itself is not among them
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stopped = true
	if err := cmd.Wait(); err != nil {
		t.Errorf("at its end: %v", err)
	}
}
