package cluster

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// Nothing that hosts agree on depends on their clocks. But people compare logs, certificates have dates, and WireGuard refuses a host whose
// clock went back, so that a clock that is wrong is told.

const (
	clockEvery = 10 * time.Second // neighbours are asked what time it is
	clockHolds = 3 * clockEvery
	clockOff   = 3 * time.Second // is told, beyond what the question took
)

// clock is what this host knows of another one's.
type clock struct {
	ahead time.Duration // of this host's
	asked time.Time
}

func (c *Cluster) now() time.Time {
	if c.cfg.Now != nil {
		return c.cfg.Now()
	}
	return time.Now()
}

// askClocks asks all neighbours what time it is.
func (g *gossip) askClocks() {
	stamp := binary.BigEndian.AppendUint64([]byte{toClock}, uint64(time.Since(g.began)))
	for _, p := range g.net.Peers() {
		_ = g.net.Send(p.Host, slices.Clone(stamp))
	}
}

// tellClock answers it, with the question's stamp.
func (g *gossip) tellClock(to record.Host, question []byte) {
	if len(question) == 9 {
		answer := append([]byte{toTime}, question[1:]...)
		_ = g.net.Send(to, binary.BigEndian.AppendUint64(answer, uint64(g.c.now().UnixMilli())))
	}
}

// learnClock takes an answer.
func (g *gossip) learnClock(from record.Host, answer []byte) {
	if len(answer) != 17 {
		return
	}
	took := time.Since(g.began) - time.Duration(binary.BigEndian.Uint64(answer[1:]))
	if took < 0 || took > clockEvery {
		return // it is none to a question of this run
	}
	there := time.UnixMilli(int64(binary.BigEndian.Uint64(answer[9:]))).Add(took / 2)
	ahead := there.Sub(g.c.now())
	if ahead.Abs() <= took/2+clockOff {
		ahead = 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clocks[from] = clock{ahead, time.Now()}
}

// clocksWrong says whose clocks are wrong, in lines. Where most others agree that it is this host's, it is one line.
func (g *gossip) clocksWrong(name func(record.Host) string) (lines []string) {
	g.mu.Lock()
	off := map[record.Host]time.Duration{}
	var all []time.Duration
	for h, k := range g.clocks {
		if time.Since(k.asked) > clockHolds {
			delete(g.clocks, h)
			continue
		}
		all = append(all, k.ahead)
		if k.ahead != 0 {
			off[h] = k.ahead
		}
	}
	g.mu.Unlock()
	if len(off) == 0 {
		return nil
	}
	const mend = ": have clocks set by NTP on both"
	slices.Sort(all)
	usual := all[len(all)/2]
	if agree := count(all, func(d time.Duration) bool { return d != 0 && (d-usual).Abs() <= clockOff }); len(all) > 1 && 2*agree > len(all) {
		lines = append(lines, fmt.Sprintf("the clock of this host is %s those of %d other hosts: have it set by NTP", beside(-usual), agree))
		for h, d := range off {
			if (d - usual).Abs() <= clockOff {
				delete(off, h)
			}
		}
	}
	for h, d := range off {
		lines = append(lines, fmt.Sprintf("the clock of host %s is %s this host's%s", name(h), beside(d), mend))
	}
	return lines
}

func count(all []time.Duration, is func(time.Duration) bool) (n int) {
	for _, d := range all {
		if is(d) {
			n++
		}
	}
	return n
}

func beside(d time.Duration) string {
	if d < 0 {
		return fmt.Sprintf("%v behind", -d.Round(time.Second))
	}
	return fmt.Sprintf("%v ahead of", d.Round(time.Second))
}
