package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// driver is a volume driver of a plugin that is killed.
type driver struct {
	name   string
	plugin *plugin
	// counts returns how often each volume is mounted, over all mount IDs.
	counts func() (map[string]int, error)
	// mounts is where the driver mounts volumes by their names; empty where it does not.
	mounts string
}

// newRemora is the daemon under test.
func newRemora(h *lab.Host) *plugin {
	config := killConfig
	return &plugin{run: func() *lab.Process {
		p := h.Remora(config, "REMORA_VOLUME_MOUNT_GRACE=2s", "REMORA_VOLUME_REFRESH=1s")
		config = "" // it is there now
		return p
	}}
}

func remoraCounts(h *lab.Host, pool string) func() (map[string]int, error) {
	return func() (map[string]int, error) {
		var all []control.Volume
		text, err := h.Cli("volume", "ls", "--pool", pool, "--format", "json")
		if err == nil {
			err = json.Unmarshal([]byte(text), &all)
		}
		counts := map[string]int{}
		for _, v := range all {
			counts[v.Name] = 0
			for _, m := range v.Mounts {
				counts[v.Name] += m.Count
			}
		}
		return counts, err
	}
}

// strangerDir is where the stranger keeps what is to be gone after a reboot.
const strangerDir = "/run/stranger"

// newStranger is a plugin by somebody else, whose driver mounts below the mount root of the
// SDK's Handler and takes its time.
func newStranger(t *testing.T, h *lab.Host) *plugin {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "plugin")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/remora-plugins/remora/test/e2e/plugin").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return &plugin{run: func() *lab.Process {
		p := h.Start(nil, bin, "-name", "bound", "-unix", strangerDir+"/plugin.sock", "-root", "/run/data/bound",
			"-mounts", strangerDir, "-slow", "150ms", "-status", strangerDir+"/status.sock")
		h.Wait(p, 30*time.Second, "stranger", func() error {
			_, err := strangerVolumes(h)
			return err
		})
		return p
	}}
}

func strangerVolumes(h *lab.Host) (all []volume.Volume, err error) {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Path(strangerDir+"/status.sock"))
		},
	}}
	resp, err := c.Get("http://stranger/")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	return all, err
}

func strangerCounts(h *lab.Host) func() (map[string]int, error) {
	return func() (map[string]int, error) {
		all, err := strangerVolumes(h)
		counts := map[string]int{}
		for _, v := range all {
			counts[v.Name] = 0
			for _, m := range v.Mounts {
				counts[v.Name] += m.Count
			}
		}
		return counts, err
	}
}

// audit compares what is there with what the workers know.
func audit(t *testing.T, h *lab.Host, drivers []*driver, workers []*worker) {
	t.Helper()
	known := map[*driver][]string{}
	for _, w := range workers {
		t.Logf("worker %s on %s: %d steps, %d repetitions; %d volumes, %d containers; %d counts exact, %d too high by what a kill cut off",
			w.name, w.driver.name, w.steps, w.retries, len(w.volumes), len(w.running), w.exact, w.high)
		for v := range w.volumes {
			known[w.driver] = append(known[w.driver], v)
		}
	}
	for _, d := range drivers {
		slices.Sort(known[d])
		counts, err := d.counts()
		noErr(t, err)
		counted := slices.Collect(maps.Keys(counts))
		for what, listed := range map[string][]string{
			"the plugin": counted,
			"docker":     strings.Fields(h.MustDocker("volume", "ls", "-q", "--filter", "driver="+d.name)),
		} {
			slices.Sort(listed)
			if !slices.Equal(listed, known[d]) {
				t.Errorf("%s lists %v on %s, want %v", what, listed, d.name, known[d])
			}
		}
	}
	for _, w := range workers {
		for v, lines := range w.volumes {
			if lines == 0 {
				continue
			}
			out, err := h.Container(v, "", "cat /data/n")
			noErr(t, err)
			is(t, "last line of "+v, out, strconv.Itoa(lines))
		}
		for c := range w.running {
			// Every container can be stopped and started.
			h.MustDocker("restart", "-t", "0", c)
			want(t, h.MustDocker("inspect", "-f", "{{.State.Status}}", c), "running")
			h.MustDocker("rm", "-f", c)
		}
	}
	for _, d := range drivers {
		eventually(t, 30*time.Second, func() bool {
			if d.mounts == "" {
				h.MustCli("reconcile")
			}
			counts, err := d.counts()
			noErr(t, err)
			for _, n := range counts {
				if n > 0 {
					return false
				}
			}
			return d.mounts == "" || len(h.Mounts(d.mounts)) == 0
		})
		for _, v := range known[d] {
			h.MustDocker("volume", "rm", v)
		}
	}
	if left := append(h.Mounts("/run/remora/"), h.Mounts(strangerDir+"/")...); len(left) > 0 {
		t.Errorf("mounts left: %v", left)
	}
	for _, dir := range []string{
		"/var/lib/remora/volumes/remora", "/run/remora/mem/ram", "/run/remora/mounts/remora", "/run/remora/mounts/ram",
		strangerDir + "/mounts", "/run/data/bound",
	} {
		for entry := range strings.FieldsSeq(h.Must("ls", "-A", dir)) {
			if !strings.HasPrefix(entry, ".remora-pool") && entry != ".remora-trash" {
				t.Errorf("left in %s: %s", dir, entry)
			}
		}
	}
}
