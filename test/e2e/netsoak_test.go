package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

const (
	// soakFaults is how many faults "make soak" makes, shortSlice how long they are made otherwise.
	soakFaults = 500
	shortSlice = 25 * time.Second
	// What is promised after the last thing that was wrong is right again.
	backWithin  = 5 * time.Second
	namesWithin = 10 * time.Second
	// tunnelPort is the one of a host's encrypted packets.
	tunnelPort = 6784
)

// soaked is five hosts, two of them behind NAT, with traffic between containers on all, and containers that come and go.
type soaked struct {
	*meshed
	t       *testing.T
	rng     *rand.Rand
	traffic *traffic
	churn   *churn
	tally   map[string]int
	// outages are counted at the end of each daemon and when it is there again, so that an odd number is one that is not.
	outages []atomic.Int64
}

// TestSoakNetwork makes faults, one or two hosts at a time, and after each sees that containers reach each other soon, that all
// hosts answer names as they are, that no address is given twice, and that nothing can be read between the hosts.
func TestSoakNetwork(t *testing.T) {
	seed := testenv.Seed(t)
	s := &soaked{
		meshed: newMeshedOf(t, "ams", "ber", "cph", "laptop-d", "laptop-e"), t: t,
		rng: rand.New(rand.NewPCG(seed, 1)), tally: map[string]int{},
	}
	s.outages = make([]atomic.Int64, len(s.hosts))
	wire := listen(t, s.wires, s.hosts[0], s.hosts[1], networkPassword, trafficMark, "10.32.0.0/12")
	s.traffic = newTraffic(t, s.meshed)
	s.churn = newChurn(s, rand.New(rand.NewPCG(seed, 2)))
	s.back("the start", time.Now(), 20*time.Second)

	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.churn.run(ctx) }()
	begun, faults := time.Now(), 0
	var slow, names []time.Duration
	for round := 0; !t.Failed(); round++ {
		if testenv.Soak() && faults >= soakFaults || !testenv.Soak() && time.Since(begun) > shortSlice {
			break
		}
		if end, ok := t.Deadline(); ok && time.Until(end) < 90*time.Second {
			t.Logf("the time is over")
			break
		}
		what := s.round()
		faults += len(what)
		text := fmt.Sprintf("round %d: %s", round, strings.Join(what, ", "))
		healed := time.Now()
		back := s.back(text, healed, backWithin)
		known := s.churn.right(text, healed)
		slow, names = append(slow, back), append(names, known)
		t.Logf("%s: containers reach each other after %v, names are right after %v", text, back.Round(10*time.Millisecond), known.Round(10*time.Millisecond))
	}
	stop()
	<-done
	t.Logf("%d faults in %v: %v", faults, time.Since(begun).Round(time.Second), s.tally)
	t.Logf("containers reach each other after a median of %v, at most %v; names are right after a median of %v, at most %v", middle(slow), slices.Max(slow), middle(names), slices.Max(names))
	t.Logf("%s; %s; %s", s.churn.summary(), s.traffic.summary(), wire.summary())
	if faults < 5 {
		t.Errorf("only %d faults were made", faults)
	}
	s.churn.addresses()
	wire.check()
	s.whole(t)
	for i, d := range s.daemons { // a lock that is held while another is waited for shows at the end
		if err := d.Stop(15 * time.Second); err != nil {
			t.Errorf("the daemon of %s does not stop: %v", s.hosts[i].Name, err)
		}
	}
}

func middle(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// round makes one or two faults at once, keeps them for a while, and puts right what has to be.
func (s *soaked) round() (what []string) {
	var heal []func()
	hosts := s.rng.Perm(len(s.hosts))[:1+s.rng.IntN(2)]
	for _, i := range hosts {
		name, undo := s.fault(i)
		s.tally[name]++
		what = append(what, name+" "+s.hosts[i].Name)
		if undo != nil {
			heal = append(heal, undo)
		}
	}
	if len(heal) > 0 {
		wait := 200*time.Millisecond + upTo(s.rng, 6*time.Second)
		if testenv.Soak() && s.rng.IntN(10) == 0 {
			wait += 10 * time.Second
		}
		time.Sleep(wait)
		what[len(what)-1] += fmt.Sprintf(" for %v", wait.Round(100*time.Millisecond))
	}
	for _, undo := range heal {
		undo()
	}
	return what
}

// fault makes one of a host, and returns what it was and how to put it right, if that has to be done.
func (s *soaked) fault(i int) (name string, undo func()) {
	h := s.hosts[i]
	kinds := []string{"cut", "cut", "split", "kill", "stop", "move"}
	if s.wires.Hidden(h) {
		kinds = append(kinds, "rebind", "rebind")
	}
	again := func() {
		s.daemons[i] = h.Remora("")
		s.outages[i].Add(1)
	}
	switch name = kinds[s.rng.IntN(len(kinds))]; name {
	case "cut":
		s.wires.Cut(h)
		return name, func() { s.wires.Heal(h) }
	case "split": // with a companion
		other := s.hosts[(i+1+s.rng.IntN(len(s.hosts)-1))%len(s.hosts)]
		s.wires.Split(h, other)
		return name, func() { s.wires.Heal(h); s.wires.Heal(other) }
	case "kill":
		s.outages[i].Add(1)
		s.daemons[i].Kill()
		return name, again
	case "stop":
		s.outages[i].Add(1)
		if err := s.daemons[i].Stop(10 * time.Second); err != nil {
			s.t.Errorf("the daemon of %s: %v", h.Name, err)
		}
		return name, again
	case "move":
		s.wires.Move(h)
	case "rebind":
		s.wires.Rebind(h, tunnelPort, uint16(20000+s.rng.IntN(40000)), s.rng.IntN(2) == 0)
	}
	return name, nil
}

// back waits until each container has had an answer of each other to something that it sent after a moment, and returns how
// long that took.
func (s *soaked) back(what string, since time.Time, limit time.Duration) time.Duration {
	s.t.Helper()
	if within(limit+10*time.Second, func() bool { return s.traffic.silent(since) == "" }) {
		last, pair := s.traffic.last(since)
		took := last.Sub(since)
		if took > limit {
			s.t.Errorf("%s: containers reach each other only after %v, the last %s", what, took, pair)
		}
		return took
	}
	silent := s.traffic.silent(since)
	for _, h := range s.hosts {
		out, _ := h.Cli("network", "status", "connections")
		s.t.Logf("%s:\n%s", h.Name, out)
	}
	s.t.Fatalf("%s: after %v there is no answer: %s", what, limit+10*time.Second, silent)
	return 0
}

// steady is the name of the container of a host that is there all the time.
func steady(h *lab.Host) string { return "steady-" + h.Name }

// upTo is a time below d, by chance.
func upTo(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
