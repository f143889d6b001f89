package do

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

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/testenv"
)

// TestAsAProcess writes to a volume of a cloud that is a process of its own, kills a
// droplet of it, and wants the process to leave nothing behind.
func TestAsAProcess(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	bin := filepath.Join(t.TempDir(), "dofake")
	if out, err := exec.Command("go", "build", "-o", bin, "./dofake").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(bin, "-dir", t.TempDir(), "-token", token, "-attach", "1h", "-manual-clock")
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
	post := func(path, body string) string {
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
		return string(text)
	}
	host := t.TempDir()
	var made struct{ Metadata string }
	if err := json.Unmarshal([]byte(post("/droplets", fmt.Sprintf(`{"id":1,"name":"a","region":"nyc1","dir":%q}`, host))), &made); err != nil {
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
	post("/advance?by=1h", "")
	write(t, dev, "hello")
	post("/droplets/1/power_off", "")
	post("/droplets/1/power_on", "")
	if got := read4k(t, dev, 5); got != "hello" {
		t.Errorf("the device has %q", got)
	}
	post("/droplets/1/destroy", "")
	if _, err := os.Stat(dev); err == nil {
		t.Error("a destroyed droplet has its device")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stopped = true
	if err := cmd.Wait(); err != nil {
		t.Errorf("at its end: %v", err)
	}
}
