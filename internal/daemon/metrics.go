package daemon

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// metrics is what the daemon tells Prometheus. Names are a promise: docs/reference has
// them all.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(version string, pools func() []*pool) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remora_plugin_requests_total",
			Help: "Calls of engines that were answered, by the class of the answer: ok, or that of the error.",
		}, []string{"pool", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "remora_plugin_request_duration_seconds",
			Help:    "Time from the first byte of a call to its answer.",
			Buckets: []float64{.0001, .001, .01, .1, 1, 10, 60},
		}, []string{"pool", "method"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "remora_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(m.requests, m.duration, build, poolCollector{pools},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observer counts the calls of one pool.
func (m *metrics) observer(pool string) sdk.Observer {
	return func(_ context.Context, c sdk.Call) {
		code := errdefs.Name(c.Err)
		if c.Err == nil {
			code = "ok"
		}
		m.requests.WithLabelValues(pool, c.Method, code).Inc()
		m.duration.WithLabelValues(pool, c.Method).Observe(c.Took.Seconds())
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// poolCollector reads the state of the pools when it is asked.
type poolCollector struct {
	pools func() []*pool
}

func (poolCollector) gauges() (volumes, mounted, reachable *prometheus.Desc) {
	label := []string{"pool", "driver"}
	return prometheus.NewDesc("remora_pool_volumes", "Volumes of the pool.", label, nil),
		prometheus.NewDesc("remora_pool_volumes_mounted", "Volumes of the pool that are mounted.", label, nil),
		prometheus.NewDesc("remora_pool_reachable", "1 if the pool's storage answered when it was last looked at, else 0.", label, nil)
}

// Describe implements [prometheus.Collector].
func (c poolCollector) Describe(ch chan<- *prometheus.Desc) {
	v, m, r := c.gauges()
	ch <- v
	ch <- m
	ch <- r
}

// Collect implements [prometheus.Collector].
func (c poolCollector) Collect(ch chan<- prometheus.Metric) {
	volumes, mounted, reachable := c.gauges()
	for _, p := range c.pools() {
		labels := []string{p.conf.Name, p.conf.Driver}
		nv, nm := p.counts(context.Background())
		up := 1.0
		if p.reachable() != nil {
			up = 0
		}
		ch <- prometheus.MustNewConstMetric(volumes, prometheus.GaugeValue, float64(nv), labels...)
		ch <- prometheus.MustNewConstMetric(mounted, prometheus.GaugeValue, float64(nm), labels...)
		ch <- prometheus.MustNewConstMetric(reachable, prometheus.GaugeValue, up, labels...)
	}
}
