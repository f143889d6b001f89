package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The loads, and whether super-packets cross the wire.
const (
	tcpLoad  = "tcp"
	udpLoad  = "udp64"
	pingLoad = "ping"

	wholeMode = "whole"
	cutMode   = "cut"
)

// transfer is what iperf3 tells of a run.
type transfer struct {
	Error string `json:"error"`
	End   struct {
		Received struct {
			BitsPerSecond float64 `json:"bits_per_second"`
			Bytes         float64 `json:"bytes"`
		} `json:"sum_received"`
		Sum struct {
			Packets, Seconds float64
			Lost             float64 `json:"lost_packets"`
		} `json:"sum"`
	} `json:"end"`
}

func (w *way) iperf(args ...string) (t transfer, err error) {
	out, err := w.from.run("iperf3", append([]string{"-J", "-c", w.address}, args...)...)
	if jerr := json.Unmarshal([]byte(out), &t); err == nil {
		err = jerr
	}
	if err == nil && t.Error != "" {
		err = errors.New(t.Error)
	}
	if err != nil {
		return t, fmt.Errorf("%s: %w", w.name, err)
	}
	return t, nil
}

// measureTCP has one stream as fast as it goes.
func (w *way) measureTCP(seconds int) (s NetworkSample, err error) {
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { w.watch(&s, done) })
	before, err1 := busy()
	t, err := w.iperf("-t", strconv.Itoa(seconds))
	after, err2 := busy()
	close(done)
	watching.Wait()
	if err := errors.Join(err, err1, err2); err != nil {
		return s, err
	}
	s.Load, s.Value = tcpLoad, t.End.Received.BitsPerSecond
	s.CPU = (after - before).Seconds() / (t.End.Received.Bytes / 1e9)
	return s, nil
}

// measureUDP has one sender send as many packets of 64 bytes as it can, and counts what arrives.
func (w *way) measureUDP(seconds int) (s NetworkSample, err error) {
	t, err := w.iperf("-u", "-b", "0", "-l", "64", "-t", strconv.Itoa(seconds))
	s.Load, s.Value = udpLoad, (t.End.Sum.Packets-t.End.Sum.Lost)/t.End.Sum.Seconds
	return s, err
}

// measurePing has small packets go there and back, one each two milliseconds.
func (w *way) measurePing(count int) (s NetworkSample, err error) {
	out, err := w.from.run("ping", "-n", "-i", "0.002", "-c", strconv.Itoa(count), "-W", "1", w.address)
	if err != nil {
		return s, err
	}
	us, err := pingTimes(out)
	if err == nil && len(us) < count*9/10 {
		err = fmt.Errorf("%s: %d answers to %d pings", w.name, len(us), count)
	}
	s.Load, s.P50, s.P99 = pingLoad, quantile(us, 0.5), quantile(us, 0.99)
	return s, err
}

// pingTimes reads the times that ping prints, in microseconds, and sorts them.
func pingTimes(out string) (us []float64, err error) {
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, "time="); ok {
			ms, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				return nil, err
			}
			us = append(us, ms*1e3)
		}
	}
	slices.Sort(us)
	return us, nil
}

// memory is the most that the tunnel of one of the hosts holds: in all, and of its own.
func (w *way) memory() (all, own int64) {
	if w.tunnels == nil {
		return 0, 0
	}
	for _, pid := range w.tunnels() {
		if rss, err := rssOf(pid); err == nil {
			all = max(all, rss)
		}
		if anon, err := ownOf(pid); err == nil {
			own = max(own, anon)
		}
	}
	return all, own
}

// watch notes in s the most that they held until done.
func (w *way) watch(s *NetworkSample, done <-chan struct{}) {
	for {
		all, own := w.memory()
		s.Loaded, s.LoadedOwn = max(s.Loaded, all), max(s.LoadedOwn, own)
		select {
		case <-done:
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// busy is how long the processors of the machine were not idle.
func busy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	var ticks int
	// user, nice, system, then idle and waiting, interrupts of both kinds (proc_stat(5)).
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.Atoi(f[i])
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}
