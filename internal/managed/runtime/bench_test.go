package runtime

import (
	"fmt"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkMemory tells what each plugin costs the daemon, with 20 of them running.
func BenchmarkMemory(b *testing.B) {
	const plugins = 20
	l := newLab(b)
	r := l.open(b)
	first := l.plugin(b, "first:latest")
	noErr(b, r.Start(b.Context(), first)) // what the first one costs is not of each
	for b.Loop() {
		before := rss(b)
		var all []Plugin
		for i := range plugins {
			p := l.plugin(b, fmt.Sprintf("p%d:n%d", i, b.N))
			noErr(b, r.Start(b.Context(), p))
			all = append(all, p)
		}
		b.ReportMetric((rss(b)-before)/plugins/1024, "KiB/plugin")
		b.StopTimer()
		for _, p := range all {
			noErr(b, r.Remove(b.Context(), p.ID))
			noErr(b, os.RemoveAll(l.dir+"/store/"+p.ID))
		}
		b.StartTimer()
	}
}

// BenchmarkStart is from the request to the first answer of the plugin.
func BenchmarkStart(b *testing.B) {
	l := newLab(b)
	r := l.open(b)
	p := l.plugin(b, "start:latest")
	for b.Loop() {
		noErr(b, r.Start(b.Context(), p))
		if _, err := l.caller("start").call(b.Context(), "pid"); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		noErr(b, r.Stop(b.Context(), p.ID, 0))
		b.StartTimer()
	}
}

// BenchmarkCall is one call by the published name, and by the plugin's own socket beside it.
func BenchmarkCall(b *testing.B) {
	l := newLab(b)
	r := l.open(b)
	p := l.plugin(b, "call:latest")
	noErr(b, r.Start(b.Context(), p))
	for _, c := range []struct{ name, socket string }{
		{"published", l.dir + "/plugins/call.sock"}, {"own", r.Socket(p.ID, "test.sock")},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := (caller{c.socket}).call(b.Context(), "pid"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// rss is the memory of this process, after what can be given back was.
func rss(b *testing.B) float64 {
	b.Helper()
	goruntime.GC()
	debug.FreeOSMemory()
	data, err := os.ReadFile("/proc/self/status")
	noErr(b, err)
	_, after, _ := strings.Cut(string(data), "VmRSS:")
	kib, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	noErr(b, err)
	return kib * 1024
}
