package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/remora-plugins/remora/internal/control"
)

// The metrics of managed plugins. What does not run though it is enabled is
// remora_managed_plugin_enabled > remora_managed_plugin_running.
var (
	pluginEnabled  = Metric{"remora_managed_plugin_enabled", "gauge", "1 if the managed plugin is to run, else 0.", []string{"plugin"}}
	pluginRestarts = Metric{
		"remora_managed_plugin_restarts_total", "counter", "How often the managed plugin has ended by itself, or could not be started again, since the daemon started.",
		[]string{"plugin"},
	}
	pluginRunning = Metric{"remora_managed_plugin_running", "gauge", "1 if the managed plugin runs and has answered, else 0.", []string{"plugin"}}
	pluginCount   = Metric{
		"remora_managed_plugins", "gauge", "Managed plugins, by what they do: running, starting, restarting, stopping or stopped.", []string{"state"},
	}
)

// pluginCollector reads how the managed plugins are when it is asked.
type pluginCollector struct {
	d *Daemon
}

// Describe implements [prometheus.Collector].
func (c pluginCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range []Metric{pluginEnabled, pluginRestarts, pluginRunning, pluginCount} {
		ch <- desc(m)
	}
}

// Collect implements [prometheus.Collector]. Where there can be no managed plugins there are none.
func (c pluginCollector) Collect(ch chan<- prometheus.Metric) {
	all, err := c.d.plugins.Status()
	if err != nil {
		all = nil
	}
	collectPlugins(all, ch)
}

func collectPlugins(all []control.PluginStatus, ch chan<- prometheus.Metric) {
	gauge := func(m Metric, value float64, label string) {
		ch <- prometheus.MustNewConstMetric(desc(m), prometheus.GaugeValue, value, label)
	}
	is := map[bool]float64{true: 1}
	states := map[string]int{"running": 0, "starting": 0, "restarting": 0, "stopping": 0, "stopped": 0}
	for _, p := range all {
		states[p.State]++
		gauge(pluginEnabled, is[p.Enabled], p.Name)
		gauge(pluginRunning, is[p.State == "running"], p.Name)
		ch <- prometheus.MustNewConstMetric(desc(pluginRestarts), prometheus.CounterValue, float64(p.Restarts), p.Name)
	}
	for state, n := range states {
		gauge(pluginCount, float64(n), state)
	}
}
