package main

import (
	"encoding/json"
	"os"
	"slices"
	"time"
)

// Results is everything that was measured, as it lies beside the document. The tables
// and plots are made of it alone.
type Results struct {
	Machine Machine  `json:"machine"`
	Memory  []Memory `json:"memory"`
	Starts  []Start  `json:"starts"`
	// Runs are pairs of "docker run", one on each driver.
	Runs    []Run    `json:"runs"`
	Samples []Sample `json:"samples"`
}

// Run is the wall time of one "docker run --rm -v" on each of two drivers, in
// milliseconds, one right after the other.
type Run struct {
	Local  float64 `json:"local_ms"`
	Remora float64 `json:"remora_ms"`
}

// add completes s with how long its calls took, and keeps it.
func (r *Results) add(s Sample, took []time.Duration) {
	us := micros(took)
	s.P50, s.P99 = quantile(us, 0.50), quantile(us, 0.99)
	r.Samples = append(r.Samples, s)
}

// memory returns the entry of a peer with so many volumes.
func (r *Results) memory(peer string, volumes int) *Memory {
	i := slices.IndexFunc(r.Memory, func(m Memory) bool { return m.Peer == peer && m.Volumes == volumes })
	if i < 0 {
		i = len(r.Memory)
		r.Memory = append(r.Memory, Memory{Peer: peer, Volumes: volumes})
	}
	return &r.Memory[i]
}

// key is what is compared: one verb at one scale.
type key struct {
	verb             string
	volumes, clients int
}

// summary is what the rounds of one peer came to.
type summary struct {
	rate, p50, p99, cpu float64 // calls in a second, then microseconds
	cpuKnown            bool
	rounds, ops         int
}

// samples returns those of one peer, by round.
func (r *Results) samples(peer string, k key) []Sample {
	var found []Sample
	for _, s := range r.Samples {
		if s.Peer == peer && s.Verb == k.verb && s.Volumes == k.volumes && s.Clients == k.clients {
			found = append(found, s)
		}
	}
	return found
}

// of sums up one peer: the medians over its rounds, and the processor time over all.
func (r *Results) of(peer string, k key) (sum summary, ok bool) {
	var rate, p50, p99 []float64
	var cpu float64
	for _, s := range r.samples(peer, k) {
		rate = append(rate, float64(s.Ops)/s.Seconds)
		p50, p99 = append(p50, s.P50), append(p99, s.P99)
		cpu += s.CPU
		sum.ops += s.Ops
	}
	sum.rounds = len(rate)
	if sum.rounds == 0 {
		return sum, false
	}
	sum.rate, sum.p50, sum.p99 = median(rate), median(p50), median(p99)
	sum.cpu, sum.cpuKnown = cpu/float64(sum.ops), cpu > 0
	return sum, true
}

// ratio is how many times one thing is another: the median over pairs, and between which
// bounds it lies with 95 % probability.
type ratio struct{ mid, low, high float64 }

func ratioOf(pairs []float64) ratio {
	low, high := interval(pairs)
	return ratio{median(pairs), low, high}
}

// compare divides a value of peer a by that of peer b, round by round.
func (r *Results) compare(a, b string, k key, value func(Sample) float64) ratio {
	byRound := map[int]float64{}
	for _, s := range r.samples(b, k) {
		byRound[s.Round] = value(s)
	}
	var pairs []float64
	for _, s := range r.samples(a, k) {
		if v, ok := byRound[s.Round]; ok {
			pairs = append(pairs, value(s)/v)
		}
	}
	return ratioOf(pairs)
}

func p50(s Sample) float64  { return s.P50 }
func rate(s Sample) float64 { return float64(s.Ops) / s.Seconds }

// scales returns the numbers of volumes and of clients that were measured.
func (r *Results) scales() (volumes, clients []int) {
	for _, s := range r.Samples {
		volumes, clients = append(volumes, s.Volumes), append(clients, s.Clients)
	}
	slices.Sort(volumes)
	slices.Sort(clients)
	return slices.Compact(volumes), slices.Compact(clients)
}

// save writes the results with a line for each sample.
func (r *Results) save(path string) error { return saveLines(r, path) }

func loadResults(path string) (*Results, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Results)
	return r, json.Unmarshal(b, r)
}
