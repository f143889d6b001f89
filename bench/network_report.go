package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// runNetwork measures the network suite, or renders what it measured before.
func runNetwork(quick, render bool, part, out, daemon, scratch string) error {
	p := wholeNetwork
	if quick {
		p = quickNetwork
	}
	return runSuite("network", render, part, out, func(old *NetworkResults) (*NetworkResults, error) {
		return measureNetwork(p, part, daemon, scratch, old)
	})
}

func (r *NetworkResults) parts() []section {
	return []section{
		{"network-targets", r.targets()}, {"network-machine", r.machine()}, {"network-data", r.dataTable()}, {"network-control", r.controlTable()},
	}
}

// weaveSealed are the rates of Weave Net's encrypted connections to that of the bare wire, by mode. They were measured in
// the same manner, on a machine of this kind and not in this run: sleeve, built from its last sources.
var weaveSealed = map[string]float64{wholeMode: 0.015, cutMode: 0.030}

// targets sets what was aimed at against what was measured.
func (r *NetworkResults) targets() string {
	var rows [][]string
	least := func(goal, a, b, mode, load string, value func(NetworkSample) float64, least float64) {
		if x, ok := r.compare(a, b, mode, load, value); ok {
			rows = append(rows, []string{goal, x.times(), verdict(x, least)})
		}
	}
	for _, g := range []struct {
		ours, other string
		least       float64
		text        string
	}{
		{oursPlain, l3Routes, 0.95, "at least 0.95× L3 routes"}, {oursPlain, swarm, 1, "above the Swarm overlay"},
		{oursFast, l3Routes, 0.95, "at least 0.95× L3 routes"}, {oursFast, swarm, 1, "above the Swarm overlay"},
		{oursBoxed, swarm, 1, "above the Swarm overlay"}, {oursFastBx, swarm, 1, "above the Swarm overlay"}, {oursSealed, rawTunnel, 0.97, "at least 0.97× wireguard-go"},
	} {
		ours := strings.TrimPrefix(g.ours, "remora, ")
		least(fmt.Sprintf("%s: TCP, %s", ours, g.text), g.ours, g.other, wholeMode, tcpLoad, amount, g.least)
		least("— the same, super-packets cut", g.ours, g.other, cutMode, tcpLoad, amount, g.least)
		least("— small packets in a second", g.ours, g.other, wholeMode, udpLoad, amount, g.least)
		// The other's time to ours: more is better, as of the rates.
		least("— p99 of ping, the other's to ours", g.other, g.ours, wholeMode, pingLoad, pingP99, g.least)
	}
	for _, mode := range []string{wholeMode, cutMode} {
		goal := 8 * weaveSealed[mode]
		least(fmt.Sprintf("encrypted: TCP, 8× Weave's, which is %.2f× the bare wire, super-packets %s", goal, mode), oursSealed, bareWire, mode, tcpLoad, amount, goal)
	}
	least("encrypted: more small packets than Nebula", oursSealed, nebula, wholeMode, udpLoad, amount, 1)
	least("encrypted: less memory under load than Nebula, its to ours", nebula, oursSealed, wholeMode, tcpLoad, heldMemory, 1)
	most := func(goal string, all, own float64, limit float64) {
		rows = append(rows, []string{goal, fmt.Sprintf("%s, %s of it its own", mib(int64(all)), mib(int64(own))), verdict(ratio{limit / all, 0, 0}, 1)})
	}
	if held := slices.Concat(r.samples(oursSealed, wholeMode, tcpLoad), r.samples(oursSealed, cutMode, tcpLoad)); len(held) > 0 {
		most("encrypted: 120 MB under load, the tunnel's process at most", slices.Max(values(held, resident)), slices.Max(values(held, heldMemory)), 120e6)
	}
	for _, way := range []string{oursPlain, oursSealed} {
		all, own := r.daemon(way)
		if all > 0 {
			most(strings.TrimPrefix(way, "remora, ")+": 30 MB the daemon, idle", all, own, 30e6)
		}
	}
	return table([]string{"Goal", "Measured", ""}, append(rows, r.controlRows()...))
}

// daemon is what a daemon holds at most, idle: in all, and of its own.
func (r *NetworkResults) daemon(way string) (all, own float64) {
	for _, m := range r.Daemons {
		if m.Way == way {
			all, own = max(all, float64(m.Bytes)), max(own, float64(m.Own))
		}
	}
	return all, own
}

// controlGoals are those of the control plane, in milliseconds; of the rate in answers a second, and more is better.
var controlGoals = []struct {
	what, text string
	p50, p99   float64
}{
	{connectEvent, "a host connects and proves that it knows the password, until both see each other", 150, 0},
	{launchEvent, "the same from its launch on, with the password made a key", 0, 0},
	{lossEvent, "a host that is cut off silently is noticed", 6000, 0},
	{healEvent, "the two see each other again after the cut", 1000, 0},
	{natEvent, "containers on two hosts behind NAT talk, from the start of all daemons", 1000, 0},
	{addressEvent, "an address, on the disk", 0.7, 4},
	{flushEvent, "— what the disk takes for one flushed write, in turn with them", 0, 0},
	{nameEvent, "a new name is answered by every peer", 0, 150},
	{rateEvent, "DNS: answers for each second on a processor", 50_000, 0},
	{answerEvent, "DNS: one question after the other, from a container", 0.070, 1},
}

// controlRows are the goals of the control plane.
func (r *NetworkResults) controlRows() (rows [][]string) {
	for _, g := range controlGoals {
		value, p99 := r.of(g.what)
		if len(value) == 0 || g.p50 == 0 && g.p99 == 0 && g.what != flushEvent {
			continue
		}
		mid, high := r.summed(g.what, value, p99)
		met := func(got, goal float64) bool { return goal == 0 || got <= goal }
		text, got := g.text, ""
		switch {
		case g.what == rateEvent:
			text, got = text+": 50,000", count(mid)
			met = func(got, goal float64) bool { return got >= goal }
		case g.p99 > 0 && g.p50 > 0:
			text += fmt.Sprintf(": p50 %s, p99 %s", span(g.p50*1e3), span(g.p99*1e3))
			got = fmt.Sprintf("p50 %s, p99 %s", span(mid*1e3), span(high*1e3))
		case g.p99 > 0:
			text += fmt.Sprintf(": p99 %s", span(g.p99*1e3))
			got = fmt.Sprintf("p50 %s, p99 %s", span(mid*1e3), span(high*1e3))
		case g.what == flushEvent:
			rows = append(rows, []string{text, fmt.Sprintf("p50 %s, p99 %s", span(mid*1e3), span(high*1e3)), ""})
			continue
		default:
			text += ": " + span(g.p50*1e3)
			got = fmt.Sprintf("%s, slowest %s", span(mid*1e3), span(slices.Max(value)*1e3))
		}
		verdict := "**missed**"
		if met(mid, g.p50) && (g.p99 == 0 || high <= g.p99) {
			verdict = "met"
		}
		rows = append(rows, []string{text, got, verdict})
	}
	return rows
}

// summed are the median and the p99 of an event: that of a batch, where batches were measured.
func (*NetworkResults) summed(what string, value, p99 []float64) (mid, high float64) {
	if what == addressEvent || what == flushEvent || what == answerEvent {
		return median(value), median(p99)
	}
	return median(value), quantile(slices.Sorted(slices.Values(value)), 0.99)
}

// controlTable has every event with how often and between what it was.
func (r *NetworkResults) controlTable() string {
	var rows [][]string
	for _, g := range controlGoals {
		value, p99 := r.of(g.what)
		if len(value) == 0 {
			continue
		}
		format := func(v float64) string { return span(v * 1e3) }
		if g.what == rateEvent {
			format = count
		}
		last := ""
		if p99[0] > 0 {
			last = fmt.Sprintf("%s (%s–%s)", format(median(p99)), format(slices.Min(p99)), format(slices.Max(p99)))
		}
		rows = append(rows, []string{strings.TrimPrefix(g.text, "— "), fmt.Sprint(len(value)), format(median(value)), format(slices.Min(value)), format(slices.Max(value)), last})
	}
	return table([]string{"", "Times:", "Median:", "Least:", "Most:", "p99 of a batch:"}, rows)
}

// dataTable has every way.
func (r *NetworkResults) dataTable() string {
	var rows [][]string
	for _, w := range ways {
		if why, ok := r.LeftOut[w.name]; ok {
			rows = append(rows, []string{w.name, "not measured: " + strings.ReplaceAll(why, "\n", " "), "", "", "", "", "", ""})
			continue
		}
		whole, cut := r.samples(w.name, wholeMode, tcpLoad), r.samples(w.name, cutMode, tcpLoad)
		if len(whole) == 0 {
			continue
		}
		rate := func(mode, load string, scale float64, unit string) string {
			v := median(values(r.samples(w.name, mode, load), amount)) / scale
			x, _ := r.compare(w.name, bareWire, mode, load, amount)
			return fmt.Sprintf("%.3g%s (%.2f×)", v, unit, x.mid)
		}
		pings := r.samples(w.name, wholeMode, pingLoad)
		memory := ""
		if held := median(values(whole, heldMemory)); held > 0 {
			memory = fmt.Sprintf("%s / %s", mib(int64(median(values(whole, idleMemory)))), mib(int64(held)))
		}
		rows = append(rows, []string{
			w.name, rate(wholeMode, tcpLoad, 1e9, ""), rate(cutMode, tcpLoad, 1e9, ""), rate(wholeMode, udpLoad, 1e3, " k"),
			span(median(values(pings, pingP50))), span(median(values(pings, pingP99))),
			fmt.Sprintf("%.1f / %.1f", median(values(whole, perGB)), median(values(cut, perGB))), memory,
		})
	}
	return table([]string{"", "TCP, Gbit/s:", "super-packets cut:", "64 B, packets/s:", "ping p50:", "p99:", "CPU s/GB:", "tunnel's own memory, before / under load:"}, rows)
}

func (r *NetworkResults) machine() string {
	m := r.Machine
	rows := [][]string{
		{"Machine", fmt.Sprintf("%s, %d cores, %d GiB, Linux %s", m.CPU, m.Cores, m.MemoryGiB, m.Kernel)},
		{"File system", m.FileSystem}, {"Remora", m.Commit + ", " + m.Date + ", Go " + strings.TrimPrefix(m.Go, "go")},
	}
	for _, tool := range []string{"wireguard-go", nebula, "iperf3", "ping"} {
		first, _, _ := strings.Cut(r.Tools[tool], "\n")
		rows = append(rows, []string{tool, first})
	}
	if m.Engine != "" {
		rows = append(rows, []string{"Docker Engine", m.Engine})
	}
	return table([]string{"", ""}, rows)
}

// plot shows the rates of all ways to those of the bare wire.
func (r *NetworkResults) plot() string {
	s := newSVG(980, 660, "Rates of networks between containers on two hosts, to that of the bare wire")
	s.text(30, 34, "h", "start", "", "From container to container on two hosts, to the bare wire between them")
	y := 70.0
	for _, panel := range []struct{ title, mode, load string }{
		{"TCP, one stream", wholeMode, tcpLoad}, {"TCP, super-packets cut on the wire", cutMode, tcpLoad}, {"packets of 64 bytes in a second", wholeMode, udpLoad},
	} {
		s.text(30, y, "t", "start", "", panel.title)
		y += 16
		for _, w := range ways {
			x, ok := r.compare(w.name, bareWire, panel.mode, panel.load, amount)
			if !ok || w.name == bareWire || math.IsNaN(x.mid) {
				continue
			}
			colour := colours[floor]
			if strings.HasPrefix(w.name, remora) {
				colour = colours[remora]
			}
			s.text(190, y+4, "s", "end", "", w.name)
			fmt.Fprintf(s, `<rect x="200" y="%.1f" width="%.1f" height="12" fill="%s"/>`+"\n", y-6, 620*min(x.mid, 1.1), colour)
			s.text(208+620*min(x.mid, 1.1), y+4, "", "start", colour, fmt.Sprintf("%.2f×", x.mid))
			y += 19
		}
		y += 22
	}
	return s.end()
}
