package daemon

import (
	"archive/tar"
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
)

// createPlugin makes a managed plugin of a program that is not there.
func (h *host) createPlugin(name string) error {
	h.t.Helper()
	testenv.Require(h.t, testenv.Root)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range map[string]string{
		"config.json": `{"entrypoint":["/nowhere"],"interface":{"types":["docker.logdriver/1.0"],"socket":"x.sock"}}`, "rootfs/x": "x",
	} {
		h.must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}))
		_, err := w.Write([]byte(text))
		h.must(err)
	}
	h.must(w.Close())
	_, err := h.control.Plugins().Create(h.t.Context(), name, &b)
	return err
}

// TestMetricsOfPlugins has a plugin that is to run and cannot.
func TestMetricsOfPlugins(t *testing.T) {
	h := newHost(t, "")
	h.start()
	h.await("ready", func() bool { _, _, err := h.page("/healthz"); return err == nil && h.served() })
	h.must(h.createPlugin("good"))
	h.must(h.createPlugin("bad"))
	all, err := h.control.Plugins().List(t.Context())
	h.must(err)
	h.must(h.stop())
	for _, p := range all.Plugins {
		if p.Name != "bad:latest" {
			continue
		}
		file := h.dir + "/state/plugins/plugins/" + p.ID + "/record.json"
		record, err := os.ReadFile(file)
		h.must(err)
		h.must(os.WriteFile(file, []byte(strings.Replace(string(record), `"Enabled":false`, `"Enabled":true`, 1)), 0o600))
	}
	h.run()
	h.await("tries to start it", func() bool {
		families, _ := h.metrics()
		return value(t, families["remora_managed_plugin_restarts_total"], "plugin=bad:latest") > 1
	})
	families, _ := h.metrics()
	for _, want := range []struct {
		name  string
		value float64
		label string
	}{
		{"remora_managed_plugin_enabled", 1, "plugin=bad:latest"},
		{"remora_managed_plugin_running", 0, "plugin=bad:latest"},
		{"remora_managed_plugin_enabled", 0, "plugin=good:latest"},
		{"remora_managed_plugin_restarts_total", 0, "plugin=good:latest"},
		{"remora_managed_plugins", 1, "state=restarting"},
		{"remora_managed_plugins", 1, "state=stopped"},
	} {
		if got := value(t, families[want.name], want.label); got != want.value {
			t.Errorf("%s{%s} is %v, want %v", want.name, want.label, got, want.value)
		}
	}
}
