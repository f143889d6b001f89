package daemon

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/csi/conn"
)

func (h *host) metrics() (map[string]*dto.MetricFamily, string) {
	h.t.Helper()
	text, ok, err := h.page("/metrics")
	if err != nil || !ok {
		h.t.Fatalf("metrics: %v %v", ok, err)
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(strings.NewReader(text))
	h.must(err)
	return families, text
}

// value returns that of the metric with these values of its labels.
func value(t *testing.T, f *dto.MetricFamily, labels ...string) float64 {
	t.Helper()
	for _, m := range f.GetMetric() {
		var have []string
		for _, l := range m.GetLabel() { // sorted by name
			have = append(have, l.GetName()+"="+l.GetValue())
		}
		if slices.Equal(have, labels) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Errorf("%s: no metric with %q", f.GetName(), labels)
	return -1
}

func TestMetrics(t *testing.T) {
	h := newHost(t, "[pool.a]\n[pool.b]\npath = \"DIR/missing\"\n[schedule.x]\ncron = \"@daily\"\nvolumes = [\"one\"]\nbackup = \"near\"\n"+
		"[repository.near]\nurl = \"DIR/none\"\npassword_file = \"DIR/none\"\n")
	h.must(os.MkdirAll(h.dir+"/state/proofs/of/near/a", 0o700))
	write(t, h.dir+"/state/proofs/of/near/a/one", `{"version":1,"Repository":"near","Pool":"a","Volume":"one"}`)
	h.run()
	ctx := t.Context()
	h.must(h.plugin("a").Create(ctx, "one", nil))
	h.must(h.plugin("a").Create(ctx, "two", nil))
	if err := h.plugin("a").Create(ctx, "../x", nil); err == nil {
		t.Error("made ../x")
	}
	if err := h.plugin("b").Create(ctx, "one", nil); err == nil {
		t.Error("made a volume where no disk is")
	}
	_, err := h.plugin("a").Mount(ctx, "one", "someone")
	h.must(err)
	h.must(block.NewClient("a cloud", 1).Do(ctx, "List", func(context.Context) error { return nil }))
	csi := conn.Open(conn.Config{Node: h.dir + "/none", Pool: "a csi pool"})
	if _, err := csi.Facts(ctx); err == nil {
		t.Error("a CSI driver answers where none is")
	}
	h.must(csi.Close())
	h.must(h.createPlugin("managed"))
	families, text := h.metrics()
	for _, want := range []struct {
		name   string
		value  float64
		labels []string
	}{
		{"remora_build_info", 1, []string{"version=v1.2.3"}},
		{"remora_config_last_reload_successful", 1, nil},
		{"remora_plugin_requests_total", 2, []string{"code=ok", "method=VolumeDriver.Create", "pool=a"}},
		{"remora_plugin_requests_total", 1, []string{"code=invalid", "method=VolumeDriver.Create", "pool=a"}},
		{"remora_plugin_requests_total", 1, []string{"code=unavailable", "method=VolumeDriver.Create", "pool=b"}},
		{"remora_plugin_requests_total", 1, []string{"code=ok", "method=VolumeDriver.Mount", "pool=a"}},
		{"remora_plugin_request_duration_seconds", 3, []string{"method=VolumeDriver.Create", "pool=a"}},
		{"remora_pool_volumes", 2, []string{"driver=dir", "pool=a"}},
		{"remora_pool_volumes_mounted", 1, []string{"driver=dir", "pool=a"}},
		{"remora_pool_reachable", 1, []string{"driver=dir", "pool=a"}},
		{"remora_pool_reachable", 0, []string{"driver=dir", "pool=b"}},
		{"remora_cloud_requests_total", 1, []string{"account=a cloud", "op=List", "result=ok"}},
		{"remora_csi_requests_total", 1, []string{"code=Unavailable", "pool=a csi pool", "rpc=GetPluginInfo"}},
		{"remora_csi_request_duration_seconds", 1, []string{"code=Unavailable", "pool=a csi pool", "rpc=GetPluginInfo"}},
		{"remora_volumes_taken_total", 0, []string{"account=a cloud"}},
		{"remora_managed_plugins", 1, []string{"state=stopped"}},
		{"remora_managed_plugins", 0, []string{"state=running"}},
		{"remora_managed_plugin_enabled", 0, []string{"plugin=managed:latest"}},
		{"remora_managed_plugin_running", 0, []string{"plugin=managed:latest"}},
		{"remora_managed_plugin_restarts_total", 0, []string{"plugin=managed:latest"}},
		{"remora_pool_jobs", 0, []string{"pool=a", "state=running"}},
		{"remora_schedule_last_success_timestamp_seconds", 0, []string{"pool=a", "schedule=x", "task=backup to near", "volume=one"}},
	} {
		if got := value(t, families[want.name], want.labels...); got != want.value {
			t.Errorf("%s%v is %v, want %v", want.name, want.labels, got, want.value)
		}
	}

	// What the reference says is what there is.
	ours := map[string]bool{}
	for _, m := range Metrics() {
		ours[m.Name] = true
		f := families[m.Name]
		if f == nil {
			t.Errorf("%s is in the reference alone", m.Name)
			continue
		}
		if f.GetHelp() != m.Help || strings.ToLower(f.GetType().String()) != m.Type {
			t.Errorf("%s: %s, %q; the reference says %s, %q", m.Name, f.GetType(), f.GetHelp(), m.Type, m.Help)
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		if !slices.Equal(labels, slices.Sorted(slices.Values(m.Labels))) {
			t.Errorf("%s has the labels %v, the reference says %v", m.Name, labels, m.Labels)
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "remora_") && !ours[name] {
			t.Errorf("%s is not in the reference", name)
		}
	}
	if !slices.IsSortedFunc(Metrics(), func(a, b Metric) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the reference is not in order")
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	h.must(err)
	for _, p := range problems {
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}
}
