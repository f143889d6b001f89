package daemon

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Metric describes a metric of our own for the reference. Those of the Go runtime and of
// the process, go_… and process_…, are as everywhere.
type Metric struct {
	Name string
	// Type is "counter", "gauge" or "histogram".
	Type   string
	Help   string
	Labels []string
}

// The metrics. Their names and labels are a promise.
var (
	buildInfo = Metric{"remora_build_info", "gauge", "Always 1, with the version that runs.", []string{"version"}}
	requests  = Metric{
		"remora_plugin_requests_total", "counter",
		"Calls of engines that were answered, by the class of the answer: ok, or that of the error.",
		[]string{"pool", "method", "code"},
	}
	durations = Metric{
		"remora_plugin_request_duration_seconds", "histogram",
		"Time from the first byte of a call to its answer.",
		[]string{"pool", "method"},
	}
	poolVolumes   = Metric{"remora_pool_volumes", "gauge", "Volumes of the pool.", []string{"pool", "driver"}}
	poolMounted   = Metric{"remora_pool_volumes_mounted", "gauge", "Volumes of the pool that are mounted.", []string{"pool", "driver"}}
	poolReachable = Metric{
		"remora_pool_reachable", "gauge",
		"1 if the pool's storage answered when it was last looked at, else 0.",
		[]string{"pool", "driver"},
	}
	reloadOK = Metric{
		"remora_config_last_reload_successful", "gauge",
		"1 if the configuration was taken over when it was last read, else 0.", nil,
	}
	scheduleRuns = Metric{
		"remora_schedule_runs_total", "counter",
		"Runs of a schedule, one for each volume, by what came of it: ok, or the class of the error.",
		[]string{"schedule", "result"},
	}
	scheduleLast = Metric{
		"remora_schedule_last_success_timestamp_seconds", "gauge",
		"When a task of a schedule was done last for a volume, by the clock of Unix: snapshot, or backup to a repository. 0 where it was never, or not that is known yet.",
		[]string{"schedule", "pool", "volume", "task"},
	}
	scheduleFailed = Metric{
		"remora_schedule_failed", "gauge",
		"With how many volumes and tasks of a schedule something went wrong the last time it was their turn.",
		[]string{"schedule"},
	}
)

// The metrics of proofs have a value for each volume of which one has been tried.
var (
	proofLast = Metric{
		"remora_backup_proof_last_success_timestamp_seconds", "gauge",
		"When a backup of the volume was last restored and found good; 0 if never.",
		[]string{"repository", "pool", "volume"},
	}
	proofDuration = Metric{
		"remora_backup_proof_duration_seconds", "gauge",
		"How long the last try took to restore a backup of the volume, to compare and to check it.",
		[]string{"repository", "pool", "volume"},
	}
	proofOK = Metric{
		"remora_backup_proof_successful", "gauge",
		"1 if the last try to restore a backup of the volume found it good, else 0.",
		[]string{"repository", "pool", "volume"},
	}
)

// The metrics of storage that is asked over a network, and of what outlasts a call.
var (
	cloudRequests = Metric{
		"remora_cloud_requests_total", "counter",
		"Requests to a cloud or cluster, by what was asked for and what came of it: ok, throttled, the class of the error, or the status of HTTP.",
		[]string{"account", "op", "result"},
	}
	volumesTaken = Metric{
		"remora_volumes_taken_total", "counter",
		"Volumes that were taken from this host while they were mounted.",
		[]string{"account"},
	}
	csiRequests = Metric{
		"remora_csi_requests_total", "counter",
		"Calls of a CSI driver, by the RPC and the code that it came to, such as OK or Aborted; a code that is known to be wrong is the right one here.",
		[]string{"pool", "rpc", "code"},
	}
	csiDurations = Metric{
		"remora_csi_request_duration_seconds", "histogram",
		"Time from a call of a CSI driver to its answer.",
		[]string{"pool", "rpc", "code"},
	}
	poolJobs = Metric{
		"remora_pool_jobs", "gauge",
		"Jobs of the pool, by their state: running, or failed in the last day.",
		[]string{"pool", "state"},
	}
)

// Metrics returns every metric of our own, by name.
func Metrics() []Metric {
	return []Metric{
		proofDuration, proofLast, proofOK, buildInfo, cloudRequests, reloadOK, csiDurations, csiRequests,
		pluginEnabled, pluginRestarts, pluginRunning, pluginCount, networkAddresses, networkDNS, networkProofs, networkMembers, networkNames,
		networkPaths, networkProblems, networkReady, networkRefused, networkRepairs, networkTunnel,
		durations, requests, poolJobs, poolReachable, poolVolumes, poolMounted,
		scheduleFailed, scheduleLast, scheduleRuns, volumesTaken,
	}
}

// metrics is what the daemon tells Prometheus.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	runs     *prometheus.CounterVec
}

func newMetrics(d *Daemon) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: requests.Name, Help: requests.Help}, requests.Labels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: durations.Name, Help: durations.Help, Buckets: []float64{.0001, .001, .01, .1, 1, 10, 60},
		}, durations.Labels),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: scheduleRuns.Name, Help: scheduleRuns.Help}, scheduleRuns.Labels),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: buildInfo.Name, Help: buildInfo.Help, ConstLabels: prometheus.Labels{"version": d.options.Version},
	})
	build.Set(1)
	reload := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: reloadOK.Name, Help: reloadOK.Help}, func() float64 {
		if d.confErr.Load() != nil {
			return 0
		}
		return 1
	})
	m.registry.MustRegister(m.requests, m.duration, m.runs, build, reload, poolCollector{d}, scheduleCollector{d}, proofCollector{d}, cloudCollector{d}, networkCollector{d}, pluginCollector{d},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observer counts the calls of one pool.
func (m *metrics) observer(pool string) sdk.Observer {
	return func(_ context.Context, c sdk.Call) {
		m.requests.WithLabelValues(pool, c.Method, result(c.Err)).Inc()
		m.duration.WithLabelValues(pool, c.Method).Observe(c.Took.Seconds())
	}
}

// ran counts a run of a schedule.
func (m *metrics) ran(schedule string, err error) {
	m.runs.WithLabelValues(schedule, result(err)).Inc()
}

// result is the class of an error as a label.
func result(err error) string {
	if err == nil {
		return "ok"
	}
	return errdefs.Name(err)
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// poolCollector reads the state of the pools when it is asked.
type poolCollector struct {
	d *Daemon
}

func desc(m Metric) *prometheus.Desc { return prometheus.NewDesc(m.Name, m.Help, m.Labels, nil) }

// Describe implements [prometheus.Collector].
func (c poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range []Metric{poolVolumes, poolMounted, poolReachable} {
		ch <- desc(m)
	}
}

// Collect implements [prometheus.Collector].
func (c poolCollector) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c.d.pools.All() {
		volumes, mounted := p.Counts()
		up := 1.0
		if c.d.reachable(p) != nil {
			up = 0
		}
		for m, value := range map[*Metric]float64{&poolVolumes: float64(volumes), &poolMounted: float64(mounted), &poolReachable: up} {
			ch <- prometheus.MustNewConstMetric(desc(*m), prometheus.GaugeValue, value, p.Conf.Name, p.Conf.Driver)
		}
	}
}

// scheduleCollector reads how far the schedules are when it is asked.
type scheduleCollector struct {
	d *Daemon
}

// Describe implements [prometheus.Collector].
func (c scheduleCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- desc(scheduleLast)
	ch <- desc(scheduleFailed)
}

// Collect implements [prometheus.Collector].
func (c scheduleCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.d.schedules.Status() {
		failed := 0
		for _, r := range s.Runs {
			if r.Error != nil {
				failed++
			}
			last := 0.0
			if !r.Last.IsZero() {
				last = float64(r.Last.Unix())
			}
			ch <- prometheus.MustNewConstMetric(desc(scheduleLast), prometheus.GaugeValue, last, s.Schedule.Name, r.Pool, r.Volume, r.Task.String())
		}
		ch <- prometheus.MustNewConstMetric(desc(scheduleFailed), prometheus.GaugeValue, float64(failed), s.Schedule.Name)
	}
}

// proofCollector reads what is remembered of proofs when it is asked.
type proofCollector struct {
	d *Daemon
}

// Describe implements [prometheus.Collector].
func (c proofCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range []Metric{proofLast, proofDuration, proofOK} {
		ch <- desc(m)
	}
}

// Collect implements [prometheus.Collector].
func (c proofCollector) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c.d.proofs.Known() {
		last, ok := 0.0, 0.0
		if !p.Proven.IsZero() {
			last = float64(p.Proven.Unix())
		}
		if p.Error == "" {
			ok = 1
		}
		for m, value := range map[*Metric]float64{&proofLast: last, &proofDuration: p.Seconds, &proofOK: ok} {
			ch <- prometheus.MustNewConstMetric(desc(*m), prometheus.GaugeValue, value, p.Repository, p.Pool, p.Volume)
		}
	}
}

// cloudCollector reads what was asked of clouds and of CSI drivers, and what jobs there are, when it is asked.
type cloudCollector struct {
	d *Daemon
}

// Describe implements [prometheus.Collector].
func (c cloudCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range []Metric{cloudRequests, volumesTaken, poolJobs, csiRequests, csiDurations} {
		ch <- desc(m)
	}
}

// Collect implements [prometheus.Collector].
func (c cloudCollector) Collect(ch chan<- prometheus.Metric) {
	for _, n := range block.Counts() {
		ch <- prometheus.MustNewConstMetric(desc(cloudRequests), prometheus.CounterValue, float64(n.N), n.Account, n.Op, n.Result)
	}
	for _, n := range conn.Counts() {
		ch <- prometheus.MustNewConstMetric(desc(csiRequests), prometheus.CounterValue, float64(n.N), n.Pool, n.RPC, n.Code)
		buckets := map[float64]uint64{}
		for i, limit := range conn.Buckets {
			buckets[limit] = n.Took[i]
		}
		ch <- prometheus.MustNewConstHistogram(desc(csiDurations), n.N, n.Seconds, buckets, n.Pool, n.RPC, n.Code)
	}
	for account, n := range block.Lost() {
		ch <- prometheus.MustNewConstMetric(desc(volumesTaken), prometheus.CounterValue, float64(n), account)
	}
	for _, p := range c.d.pools.All() {
		running, failed := 0, 0
		for _, j := range p.Handler.Jobs() {
			if j.Ended {
				failed++
			} else {
				running++
			}
		}
		for state, n := range map[string]int{"running": running, "failed": failed} {
			ch <- prometheus.MustNewConstMetric(desc(poolJobs), prometheus.GaugeValue, float64(n), p.Conf.Name, state)
		}
	}
}
