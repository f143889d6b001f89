package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// question is a packet that asks for the IPv4 addresses of a name (RFC 1035, 4.1).
func question(id uint16, name string) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = append(b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0) // recursion desired, one question
	for label := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0, 0, 1, 0, 1) // type A, class IN
}

// answered reports whether a packet is an answer with an address.
func answered(b []byte) bool {
	return len(b) > 12 && b[2]&0x80 != 0 && b[3]&0x0f == 0 && binary.BigEndian.Uint16(b[6:]) > 0
}

// resolver opens a socket in a namespace to the DNS server of a host.
func (m *member) resolver(from *node) (c net.Conn, err error) {
	b, err := m.call("Network.DNS", struct{}{})
	if err != nil {
		return nil, err
	}
	var dns struct{ Servers []string }
	if err := json.Unmarshal(b, &dns); err != nil || len(dns.Servers) == 0 {
		return nil, fmt.Errorf("no DNS server: %s: %w", b, err)
	}
	return c, from.inside(func() (err error) {
		c, err = net.Dial("udp", net.JoinHostPort(dns.Servers[0], "53"))
		return err
	})
}

func (m *member) addName(name, address string) error {
	_, err := m.call("Network.AddName", map[string]any{"Name": name, "Addresses": []string{address}})
	return err
}

// ask asks once.
func ask(c net.Conn, packet, buf []byte) (bool, error) {
	if _, err := c.Write(packet); err != nil {
		return false, err
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return false, err
	}
	n, err := c.Read(buf)
	return err == nil && answered(buf[:n]), err
}

// resolves returns nil once an address comes back.
func resolves(c net.Conn, packet []byte) error {
	ok, err := ask(c, packet, make([]byte, 1500))
	if err == nil && !ok {
		err = errors.New("there is no answer yet")
	}
	return err
}

// answers measures the DNS server of a host, from a container.
func (s *networkSuite) answers() error {
	s.results.forget(rateEvent, answerEvent)
	l, err := s.lan()
	if err != nil {
		return err
	}
	n, _, err := l.host("h1")
	if err != nil {
		return err
	}
	m, err := s.member(n, false)
	if err != nil {
		return err
	}
	if err := m.launch(true, nil); err != nil {
		return err
	}
	box, _, err := m.box()
	if err != nil {
		return err
	}
	const names = 200
	var packets [][]byte
	for i := range names {
		name := fmt.Sprintf("name%d", i)
		if err := m.addName(name, fmt.Sprintf("10.32.200.%d", i+1)); err != nil {
			return err
		}
		packets = append(packets, question(uint16(i), name+".remora.local"))
	}
	c, err := m.resolver(box)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 1500)
	if err := until(20*time.Second, 50*time.Millisecond, func() error { return resolves(c, packets[names-1]) }); err != nil {
		return err
	}
	for i := range s.tries {
		if err := s.step("answers, batch %d of %d", i+1, s.tries); err != nil {
			return err
		}
		var all []time.Duration
		for begin := time.Now(); time.Since(begin) < s.questions; {
			asked := time.Now()
			if ok, err := ask(c, packets[len(all)%names], buf); err != nil || !ok {
				return fmt.Errorf("name%d is not answered: %w", len(all)%names, err)
			}
			all = append(all, time.Since(asked))
		}
		us := micros(all)
		s.results.event(answerEvent, quantile(us, 0.5)/1e3, quantile(us, 0.99)/1e3)
		rate, err := s.rate(m, box, packets)
		if err != nil {
			return err
		}
		s.results.event(rateEvent, rate, 0)
	}
	return nil
}

// rate counts answers for each second that the daemon is on a processor, while four clients keep 16 questions each on
// their way.
func (s *networkSuite) rate(m *member, box *node, packets [][]byte) (float64, error) {
	const clients, window = 4, 16
	counts, errs := make([]int, clients), make([]error, clients)
	before, err := m.cpu()
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	for i := range clients {
		c, err := m.resolver(box)
		if err != nil {
			return 0, err
		}
		wg.Go(func() {
			defer c.Close()
			buf := make([]byte, 1500)
			for begin, next := time.Now(), 0; time.Since(begin) < s.questions && errs[i] == nil; {
				for range window {
					_, errs[i] = c.Write(packets[next%len(packets)])
					next++
				}
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				for range window {
					n, err := c.Read(buf)
					if err != nil || !answered(buf[:n]) {
						errs[i] = fmt.Errorf("a question is not answered: %w", err)
						return
					}
					counts[i]++
				}
			}
		})
	}
	wg.Wait()
	after, err := m.cpu()
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return float64(sum) / (after - before).Seconds(), errors.Join(append(errs, err)...)
}

// roomForNeighbours lets the kernel know as many neighbours as hosts that all know each other have. Its limit of 1024 is one
// for all namespaces: with 33 hosts the next cannot send a packet. restore makes it what it was.
func roomForNeighbours() (restore func(), err error) {
	const path, room = "/proc/sys/net/ipv4/neigh/default/gc_thresh3", "16384\n"
	before, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return func() { _ = os.WriteFile(path, before, 0o644) }, os.WriteFile(path, []byte(room), 0o644)
}

// manyPeers gives names on one of many hosts, and looks when all answer them.
func (s *networkSuite) manyPeers() error {
	s.results.forget(nameEvent)
	restore, err := roomForNeighbours()
	if err != nil {
		return err
	}
	defer restore()
	l, err := s.lan()
	if err != nil {
		return err
	}
	var members []*member
	var first string
	for i := range s.peers {
		n, at, err := l.host(fmt.Sprintf("m%d", i))
		if err != nil {
			return err
		}
		m, err := s.member(n, false)
		if err != nil {
			return err
		}
		more := map[string]any{}
		if i == 0 {
			first = at
		} else {
			more["Peers"] = []string{first}
		}
		if err := m.launch(true, more); err != nil {
			return err
		}
		if err := until(2*time.Minute, 5*time.Millisecond, m.attach); err != nil {
			return err
		}
		if members = append(members, m); i%10 == 9 {
			if err := s.step("%d peers", i+1); err != nil {
				return err
			}
		}
	}
	for _, m := range members {
		others := make([]*member, 0, len(members))
		for _, o := range members {
			if o != m {
				others = append(others, o)
			}
		}
		if err := until(2*time.Minute, 100*time.Millisecond, func() error { return m.sees(others...) }); err != nil {
			return err
		}
	}
	resolvers := make([]net.Conn, len(members))
	for i, m := range members {
		if resolvers[i], err = m.resolver(m.node); err != nil {
			return err
		}
		defer resolvers[i].Close() //nolint:revive // they are few
	}
	if err := s.step("%d names on %d peers", s.names, s.peers); err != nil {
		return err
	}
	for i := -1; i < s.names; i++ { // the first, to see that all servers are there
		name := fmt.Sprintf("new%d", i+1)
		each := make([]float64, len(members))
		errs := make([]error, len(members))
		var wg sync.WaitGroup
		begin := time.Now()
		if err := members[(i+1)%len(members)].addName(name, "10.32.250.1"); err != nil {
			return err
		}
		for j, c := range resolvers {
			wg.Go(func() {
				packet := question(uint16(i+1), name+".remora.local")
				errs[j] = until(20*time.Second, 4*time.Millisecond, func() error { return resolves(c, packet) })
				each[j] = time.Since(begin).Seconds() * 1e3
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if i >= 0 {
			s.results.event(nameEvent, slices.Max(each), 0)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}
