package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// goneKept is how many names of containers that are gone are asked for.
const goneKept = 20

// churn has containers come and go on all hosts, and knows which names there ought to be.
type churn struct {
	s   *soaked
	rng *rand.Rand
	ask []*resolver
	dns [][]string

	mu    sync.Mutex // held while a container is made or removed
	next  int
	alive map[string]place // by name
	given map[netip.Addr]string
	gone  []string
	last  time.Time // that something was done

	made, removed, refused int
}

// place is where a container is.
type place struct {
	host    int
	address netip.Addr
}

func newChurn(s *soaked, rng *rand.Rand) *churn {
	c := &churn{s: s, rng: rng, alive: map[string]place{}, given: map[netip.Addr]string{}, last: time.Now()}
	for i, h := range s.hosts {
		args := dnsArgs(h)
		c.dns = append(c.dns, args)
		c.ask = append(c.ask, newResolver(s.t, s.traffic.pids[i], args))
		at := s.traffic.at[i].Addr()
		c.take(steady(h), at)
		c.alive[steady(h)] = place{i, at}
	}
	return c
}

// run makes and removes until ctx ends.
func (c *churn) run(ctx context.Context) {
	for ctx.Err() == nil {
		c.mu.Lock()
		i := c.rng.IntN(len(c.s.hosts))
		var mine []string
		for _, name := range slices.Sorted(maps.Keys(c.alive)) {
			if c.alive[name].host == i && !strings.HasPrefix(name, "steady-") {
				mine = append(mine, name)
			}
		}
		if n := len(mine); n == 0 || n < 3 && c.rng.IntN(2) == 0 {
			c.make(i) //nolint:contextcheck // a container is made whole or not at all
		} else {
			c.remove(i, mine[c.rng.IntN(n)]) //nolint:contextcheck // likewise
		}
		c.last = time.Now()
		pause := upTo(c.rng, time.Second)
		c.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (c *churn) make(i int) {
	h, outages := c.s.hosts[i], c.s.outages[i].Load()
	c.next++
	name := fmt.Sprintf("brief-%d-%s", c.next, h.Name)
	_, err := h.Docker(append(append([]string{"run", "-d", "--name", name, "--net=remora"}, c.dns[i]...), lab.ImageName, "sleep", "100000")...)
	var text string
	if err == nil {
		text, err = h.Docker("inspect", "-f", "{{.NetworkSettings.Networks.remora.IPAddress}}", name)
	}
	if err != nil {
		// Without its daemon a host cannot; cut off it can.
		if c.refused++; outages%2 == 0 && c.s.outages[i].Load() == outages {
			c.s.t.Errorf("%s does not start a container: %v", h.Name, err)
		}
		c.remove(i, name)
		return
	}
	c.made++
	at, err := netip.ParseAddr(text)
	if err != nil {
		c.s.t.Errorf("%s: container %s has the address %q", h.Name, name, text)
		return
	}
	c.take(name, at)
	c.alive[name] = place{i, at}
}

// take notes who has an address, and fails the test if somebody else has.
func (c *churn) take(name string, at netip.Addr) {
	if other := c.given[at]; other != "" {
		c.s.t.Errorf("%v was given twice: to %s and to %s", at, other, name)
	}
	c.given[at] = name
}

func (c *churn) remove(i int, name string) {
	h := c.s.hosts[i]
	var err error
	for range 3 {
		if _, err = h.Docker("rm", "-f", name); err == nil || strings.Contains(err.Error(), "No such container") {
			err = nil
			break
		}
		time.Sleep(time.Second) // its daemon may be on the way
	}
	if err != nil {
		c.s.t.Errorf("%s does not remove a container: %v", h.Name, err)
		return
	}
	if p, ok := c.alive[name]; ok {
		delete(c.given, p.address)
		c.removed++
	}
	delete(c.alive, name)
	c.gone = append(c.gone, name)
	c.gone = c.gone[max(0, len(c.gone)-goneKept):]
}

// right waits until every host answers every name as it is, while nothing is made or removed, and returns how long after a moment
// that was so.
func (c *churn) right(what string, since time.Time) time.Duration {
	c.s.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.After(since) {
		since = c.last
	}
	wanted := map[string]string{}
	for _, name := range c.gone {
		wanted[name] = "NXDOMAIN"
	}
	for name, p := range c.alive {
		wanted[name] = p.address.String()
	}
	wrong := ""
	for i, r := range c.ask {
		for _, name := range slices.Sorted(maps.Keys(wanted)) {
			var got string
			for end := since.Add(namesWithin + 10*time.Second); ; time.Sleep(50 * time.Millisecond) {
				if got = r.lookup(name); got == wanted[name] || time.Now().After(end) {
					break
				}
			}
			if got != wanted[name] {
				wrong += fmt.Sprintf("\n%s answers %s for %s, and not %s", c.s.hosts[i].Name, got, name, wanted[name])
			}
		}
	}
	took := time.Since(since)
	if wrong != "" {
		c.s.t.Fatalf("%s: after %v names are wrong:%s", what, took, wrong)
	}
	if took > namesWithin {
		c.s.t.Errorf("%s: names are right only after %v", what, took)
	}
	return took
}

// addresses compares what the engines say with what was noted.
func (c *churn) addresses() {
	c.mu.Lock()
	defer c.mu.Unlock()
	has := map[string]string{}
	for _, h := range c.s.hosts {
		out := h.MustDocker("network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{.IPv4Address}}\n{{end}}", "remora")
		for line := range strings.Lines(out) {
			name, text, ok := strings.Cut(strings.TrimSpace(line), " ")
			if !ok {
				continue
			}
			at, _, _ := strings.Cut(text, "/")
			if other := has[at]; other != "" {
				c.s.t.Errorf("%s is the address of %s and of %s", at, other, name)
			}
			has[at] = name
			if p, ok := c.alive[name]; !ok || p.address.String() != at {
				c.s.t.Errorf("%s: container %s has %s, and ought to have %v", h.Name, name, at, p.address)
			}
		}
	}
	if len(has) != len(c.alive) {
		c.s.t.Errorf("the engines have %d containers, and ought to have %d", len(has), len(c.alive))
	}
}

func (c *churn) summary() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%d containers made, %d removed, %d not made while the daemon was away", c.made, c.removed, c.refused)
}

// resolver asks the server of a host, as a container there does.
type resolver struct {
	pid int
	at  string
}

func newResolver(t *testing.T, pid int, args []string) *resolver {
	t.Helper()
	for i, a := range args {
		if a == "--dns" && i+1 < len(args) {
			return &resolver{pid, net.JoinHostPort(args[i+1], "53")}
		}
		if at, ok := strings.CutPrefix(a, "--dns="); ok {
			return &resolver{pid, net.JoinHostPort(at, "53")}
		}
	}
	t.Fatalf("no server in %q", args)
	return nil
}

// lookup returns the address of a name, or why there is none.
func (r *resolver) lookup(name string) string {
	var conn net.Conn
	err := lab.In(r.pid, func() (err error) {
		conn, err = net.DialTimeout("udp4", r.at, time.Second)
		return err
	})
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	q := new(dns.Msg).SetQuestion(name+".remora.local.", dns.TypeA)
	answer, _, err := (&dns.Client{Timeout: 500 * time.Millisecond}).ExchangeWithConn(q, &dns.Conn{Conn: conn})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "nothing"
	case err != nil:
		return err.Error()
	case answer.Rcode != dns.RcodeSuccess:
		return dns.RcodeToString[answer.Rcode]
	}
	var all []string
	for _, rr := range answer.Answer {
		if a, ok := rr.(*dns.A); ok {
			all = append(all, a.A.String())
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
