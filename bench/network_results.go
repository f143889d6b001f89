package main

import (
	"slices"
)

// NetworkResults is everything that the network suite measured.
type NetworkResults struct {
	Machine Machine           `json:"machine"`
	Tools   map[string]string `json:"tools"`
	// LeftOut says why a way was not measured.
	LeftOut map[string]string `json:"left_out,omitempty"`
	Samples []NetworkSample   `json:"samples"`
	// Daemons is the resident memory of Remora's daemons, idle.
	Daemons []NetworkMemory `json:"daemons"`
	Events  []NetworkEvent  `json:"events"`
}

// NetworkSample is one load on one way.
type NetworkSample struct {
	Way   string `json:"way"`
	Mode  string `json:"mode"`
	Load  string `json:"load"`
	Round int    `json:"round"`
	// Value is bits or packets in a second, zero of pings.
	Value float64 `json:"value,omitempty"`
	P50   float64 `json:"p50_us,omitempty"`
	P99   float64 `json:"p99_us,omitempty"`
	// CPU is the time of all processors for each GB, in seconds.
	CPU float64 `json:"cpu_s_per_gb,omitempty"`
	// Idle and Loaded are the resident memory of the process of a tunnel before a load, and at most under it. The
	// other two are the same without the pages of files.
	Idle      int64 `json:"idle_bytes,omitempty"`
	Loaded    int64 `json:"loaded_bytes,omitempty"`
	IdleOwn   int64 `json:"idle_own_bytes,omitempty"`
	LoadedOwn int64 `json:"loaded_own_bytes,omitempty"`
}

// NetworkMemory is the resident memory of a daemon, and that without the pages of files.
type NetworkMemory struct {
	Way   string `json:"way"`
	Bytes int64  `json:"bytes"`
	Own   int64  `json:"own_bytes"`
}

// NetworkEvent is something of the control plane that was measured: a time in milliseconds, or a rate.
type NetworkEvent struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	// P99 is that of many in a row, of which Value is the median.
	P99 float64 `json:"p99,omitempty"`
}

// samples of a load on a way, by round.
func (r *NetworkResults) samples(way, mode, load string) (all []NetworkSample) {
	for _, x := range r.Samples {
		if x.Way == way && x.Mode == mode && x.Load == load {
			all = append(all, x)
		}
	}
	return all
}

func values(all []NetworkSample, value func(NetworkSample) float64) (out []float64) {
	for _, x := range all {
		out = append(out, value(x))
	}
	return out
}

func amount(x NetworkSample) float64     { return x.Value }
func pingP50(x NetworkSample) float64    { return x.P50 }
func pingP99(x NetworkSample) float64    { return x.P99 }
func perGB(x NetworkSample) float64      { return x.CPU }
func idleMemory(x NetworkSample) float64 { return float64(x.IdleOwn) }
func heldMemory(x NetworkSample) float64 { return float64(x.LoadedOwn) }
func resident(x NetworkSample) float64   { return float64(x.Loaded) }

// compare divides a value of one way by that of another, round by round.
func (r *NetworkResults) compare(a, b, mode, load string, value func(NetworkSample) float64) (x ratio, ok bool) {
	byRound := map[int]float64{}
	for _, s := range r.samples(b, mode, load) {
		byRound[s.Round] = value(s)
	}
	var pairs []float64
	for _, s := range r.samples(a, mode, load) {
		if v, ok := byRound[s.Round]; ok && v > 0 {
			pairs = append(pairs, value(s)/v)
		}
	}
	return ratioOf(pairs), len(pairs) > 0
}

// event adds one.
func (r *NetworkResults) event(what string, value, p99 float64) {
	r.Events = append(r.Events, NetworkEvent{what, value, p99})
}

// forget drops what was measured before.
func (r *NetworkResults) forget(what ...string) {
	r.Events = slices.DeleteFunc(r.Events, func(e NetworkEvent) bool { return slices.Contains(what, e.What) })
}

// of returns the values of an event, and of its p99.
func (r *NetworkResults) of(what string) (value, p99 []float64) {
	for _, e := range r.Events {
		if e.What == what {
			value, p99 = append(value, e.Value), append(p99, e.P99)
		}
	}
	return value, p99
}

// save writes the results with a line for each sample.
func (r *NetworkResults) save(path string) error { return saveLines(r, path) }
