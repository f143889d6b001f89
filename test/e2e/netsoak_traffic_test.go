package e2e

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// trafficMark is in all that containers send each other, and must not be seen between the hosts.
const trafficMark = "the quick brown remora rides the lazy shark"

const trafficEvery = 200 * time.Millisecond

// traffic is a container on each host that asks all others something all the time.
type traffic struct {
	hosts []string
	pids  []int
	at    []netip.AddrPort
	conns []net.PacketConn
	begun time.Time

	mu    sync.Mutex
	sent  int
	heard int
	pairs [][]answer // by who asked and who answered
}

// answer is the last one that came.
type answer struct {
	sent, came time.Time
	// first is that with the oldest question that was sent after a moment, from which it is looked for.
	mark    time.Time
	first   time.Time
	longest time.Duration
}

func newTraffic(t *testing.T, m *meshed) *traffic {
	t.Helper()
	f := &traffic{begun: time.Now()}
	for _, h := range m.hosts {
		h.MustDocker(append(append([]string{"run", "-d", "--name", steady(h), "--net=remora"}, dnsArgs(h)...), lab.ImageName, "sleep", "100000")...)
		pid, err := strconv.Atoi(h.MustDocker("inspect", "-f", "{{.State.Pid}}", steady(h)))
		noErr(t, err)
		at := netip.AddrPortFrom(netip.MustParseAddr(m.addressOf(t, h, steady(h))), 4242)
		var conn net.PacketConn
		noErr(t, lab.In(pid, func() (err error) {
			conn, err = net.ListenPacket("udp4", at.String())
			return err
		}))
		f.hosts, f.pids, f.at, f.conns = append(f.hosts, h.Name), append(f.pids, pid), append(f.at, at), append(f.conns, conn)
	}
	f.pairs = make([][]answer, len(f.at))
	var running sync.WaitGroup
	done := make(chan struct{})
	for i := range f.at {
		f.pairs[i] = make([]answer, len(f.at))
		running.Go(func() { f.receive(i) })
		running.Go(func() { f.ask(i, done) })
	}
	t.Cleanup(func() {
		close(done)
		for _, c := range f.conns {
			_ = c.Close()
		}
		running.Wait()
	})
	return f
}

// A message is the mark, whether it is an answer, who asked, and when.
const messageSize = len(trafficMark) + 1 + 1 + 8

func (f *traffic) ask(i int, done <-chan struct{}) {
	tick := time.NewTicker(trafficEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		for j, to := range f.at {
			if i == j {
				continue
			}
			b := append([]byte(trafficMark), 'q', byte(i))
			b = binary.BigEndian.AppendUint64(b, uint64(time.Since(f.begun)))
			_, _ = f.conns[i].WriteTo(b, net.UDPAddrFromAddrPort(to)) // what is not sent is not answered
		}
		f.mu.Lock()
		f.sent += len(f.at) - 1
		f.mu.Unlock()
	}
}

func (f *traffic) receive(i int) {
	b := make([]byte, 2*messageSize)
	for {
		n, from, err := f.conns[i].ReadFrom(b)
		if err != nil {
			if strings.Contains(err.Error(), "closed") {
				return
			}
			continue // such as that nobody was there
		}
		if n != messageSize || string(b[:len(trafficMark)]) != trafficMark {
			continue
		}
		rest := b[len(trafficMark):n]
		if rest[0] == 'q' {
			rest[0] = 'a'
			_, _ = f.conns[i].WriteTo(b[:n], from)
			continue
		}
		f.answered(i, from, f.begun.Add(time.Duration(binary.BigEndian.Uint64(rest[2:]))))
	}
}

func (f *traffic) answered(i int, from net.Addr, sent time.Time) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for j, at := range f.at {
		if at.String() != from.String() {
			continue
		}
		f.heard++
		a := &f.pairs[i][j]
		if !a.mark.IsZero() && a.first.IsZero() && !sent.Before(a.mark) {
			a.first = now
		}
		if !a.came.IsZero() {
			a.longest = max(a.longest, now.Sub(a.came))
		}
		a.sent, a.came = sent, now
	}
}

// silent says who had no answer of whom since a moment.
func (f *traffic) silent(since time.Time) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var pairs []string
	for i := range f.pairs {
		for j := range f.pairs[i] {
			a := &f.pairs[i][j]
			if a.mark != since {
				a.mark, a.first = since, time.Time{}
				if !a.sent.Before(since) {
					a.first = a.came
				}
			}
			if i != j && a.first.IsZero() {
				pairs = append(pairs, fmt.Sprintf("%s of %s (for %v)", f.hosts[i], f.hosts[j], time.Since(cmp.Or(a.came, f.begun)).Round(100*time.Millisecond)))
			}
		}
	}
	return strings.Join(pairs, ", ")
}

// last is when the last of all pairs had its first answer since a moment, and which that is.
func (f *traffic) last(since time.Time) (at time.Time, pair string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at = since
	for i := range f.pairs {
		for j, a := range f.pairs[i] {
			if i != j && a.first.After(at) {
				at, pair = a.first, fmt.Sprintf("%s of %s", f.hosts[i], f.hosts[j])
			}
		}
	}
	return at, pair
}

func (f *traffic) summary() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintf("%d questions, %d answers", f.sent, f.heard)
}
