package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// What is measured of the control plane.
const (
	connectEvent = "connect"
	launchEvent  = "launch"
	lossEvent    = "loss noticed"
	healEvent    = "link healed"
	natEvent     = "behind NAT"
	addressEvent = "address"
	flushEvent   = "flush"
	rateEvent    = "answers"
	answerEvent  = "answer"
	nameEvent    = "name everywhere"
)

// lan is a switch, with hosts on it: 10.99.0.0/24.
type lan struct {
	*node
	hosts map[*node]string // the port of each
}

func (s *networkSuite) lan() (*lan, error) {
	n, err := s.node("switch")
	if err != nil {
		return nil, err
	}
	return &lan{n, map[*node]string{}}, n.all("link add br0 type bridge", "link set br0 up")
}

// host adds one to the switch.
func (l *lan) host(name string) (n *node, address string, err error) {
	if n, err = l.s.node(name); err != nil {
		return nil, "", err
	}
	port := fmt.Sprintf("p%d", len(l.hosts)+1)
	l.hosts[n], address = port, fmt.Sprintf("10.99.0.%d", len(l.hosts)+11)
	return n, address, errors.Join(
		l.all(fmt.Sprintf("link add %s type veth peer name eth0 netns %s", port, n.ns), "link set "+port+" master br0 up"),
		n.all("addr add "+address+"/24 dev eth0", "link set eth0 up"))
}

// hidden adds one behind a router that translates addresses and lets nobody in.
func (l *lan) hidden(name string) (*node, error) {
	router, _, err := l.host(name + "r")
	if err != nil {
		return nil, err
	}
	n, err := l.s.node(name)
	if err != nil {
		return nil, err
	}
	inside := fmt.Sprintf("192.168.%d", len(l.hosts))
	_, err = router.run("nft", `table ip nat {
		chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }
		chain in { type filter hook forward priority filter; policy accept; iifname "eth0" ct state new drop; }
		chain here { type filter hook input priority filter; policy accept; iifname "eth0" ct state new meta l4proto { tcp, udp } drop; }
	}`)
	return n, errors.Join(err,
		router.all("link add lan type veth peer name eth0 netns "+n.ns, "addr add "+inside+".1/24 dev lan", "link set lan up"),
		n.all("addr add "+inside+".2/24 dev eth0", "link set eth0 up", "route add default via "+inside+".1"))
}

// cut takes a host off the switch, without a word to anybody, and heal connects it again.
func (l *lan) cut(n *node) error  { return l.ip("link set " + l.hosts[n] + " nomaster") }
func (l *lan) heal(n *node) error { return l.ip("link set " + l.hosts[n] + " master br0") }

// took is how long it takes until something is so, looked at each millisecond.
func took(within time.Duration, ok func() error) (ms float64, err error) {
	begin := time.Now()
	err = until(within, time.Millisecond, ok)
	return float64(time.Since(begin)) / float64(time.Millisecond), err
}

// controlPlane measures what happens between the daemons of several hosts.
func (s *networkSuite) controlPlane() error {
	s.results.forget(connectEvent, launchEvent, lossEvent, healEvent, natEvent, addressEvent, flushEvent)
	l, err := s.lan()
	if err != nil {
		return err
	}
	var members []*member
	var first string
	for i, name := range []string{"h1", "h2", "h3"} {
		n, at, err := l.host(name)
		if err != nil {
			return err
		}
		m, err := s.member(n, false)
		if err != nil {
			return err
		}
		if members = append(members, m); i == 0 {
			first = at
		}
	}
	if err := members[0].launch(true, nil); err != nil {
		return err
	}
	if err := s.joins(members[0], members[1], first); err != nil {
		return fmt.Errorf("joins: %w", err)
	}
	if err := s.losses(l, members, first); err != nil {
		return fmt.Errorf("losses: %w", err)
	}
	if err := s.addressesOf(members[0]); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	return s.behindNAT(l, members[0], first)
}

// nobody is an address of the switch that no host has.
const nobody = "10.99.0.250"

// joins has a host connect to another, to which it is unknown, so that it proves that it knows the password: once where it
// waits for somebody already, and once from the launch, which makes the key of the password first.
func (s *networkSuite) joins(a, b *member, at string) error {
	both := func() error { return errors.Join(b.sees(a), a.sees(b)) }
	for i := range s.tries {
		if err := s.step("join %d of %d", i+1, s.tries); err != nil {
			return err
		}
		if err := b.launch(true, map[string]any{"Peers": []string{nobody}}); err != nil {
			return err
		}
		begin := time.Now()
		if _, err := b.call("Network.Connect", map[string]any{"Peers": []string{at}, "Replace": true}); err != nil {
			return err
		}
		_, err := took(30*time.Second, both)
		s.results.event(connectEvent, time.Since(begin).Seconds()*1e3, 0)
		if err != nil {
			return err
		}
		if _, err := b.call("Network.Reset", map[string]any{"Force": true}); err != nil {
			return err
		}
		begin = time.Now()
		if err := b.launch(true, map[string]any{"Peers": []string{at}}); err != nil {
			return err
		}
		_, err = took(30*time.Second, both)
		s.results.event(launchEvent, time.Since(begin).Seconds()*1e3, 0)
		if err != nil {
			return err
		}
		if i+1 < s.tries {
			if _, err := b.call("Network.Reset", map[string]any{"Force": true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// losses takes the last of three hosts off the switch, waits until the first says so, and puts it back.
func (s *networkSuite) losses(l *lan, members []*member, at string) error {
	a, lost := members[0], members[2]
	if err := lost.launch(true, map[string]any{"Peers": []string{at}}); err != nil {
		return err
	}
	both := func() error { return errors.Join(a.sees(lost), lost.sees(a)) }
	if _, err := took(30*time.Second, both); err != nil {
		return err
	}
	for i := range s.tries {
		if err := s.step("loss %d of %d", i+1, s.tries); err != nil {
			return err
		}
		time.Sleep(time.Second + time.Duration(rand.N(1000))*time.Millisecond)
		if err := l.cut(lost.node); err != nil {
			return err
		}
		ms, err := took(60*time.Second, func() error {
			if a.sees(lost) == nil {
				return errors.New("the loss is not noticed")
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.results.event(lossEvent, ms, 0)
		time.Sleep(time.Second + time.Duration(rand.N(4000))*time.Millisecond)
		if err := l.heal(lost.node); err != nil {
			return err
		}
		if ms, err = took(60*time.Second, both); err != nil {
			return err
		}
		s.results.event(healEvent, ms, 0)
	}
	return nil
}

// behindNAT has containers on two hosts that can only dial out ask each other, when all daemons and tunnels had been
// gone: how long it takes from the start of the daemons.
func (s *networkSuite) behindNAT(l *lan, a *member, at string) error {
	all := []*member{a}
	var boxes []*node
	var address string
	for _, name := range []string{"n1", "n2"} {
		n, err := l.hidden(name)
		if err != nil {
			return err
		}
		m, err := s.member(n, false)
		if err != nil {
			return err
		}
		if err := m.launch(true, map[string]any{"Peers": []string{at}}); err != nil {
			return err
		}
		if _, err := took(30*time.Second, func() error { return m.sees(a) }); err != nil {
			return err
		}
		var box *node
		if box, address, err = m.box(); err != nil {
			return err
		}
		all, boxes = append(all, m), append(boxes, box)
	}
	ping := func() error {
		_, err := boxes[0].run("ping", "-n", "-c", "1", "-i", "0.01", "-w", "30", address)
		return err
	}
	if err := ping(); err != nil {
		return err
	}
	for i := range s.tries {
		if err := s.step("behind NAT %d of %d", i+1, s.tries); err != nil {
			return err
		}
		for _, m := range all {
			if err := m.cmd.Process.Kill(); err != nil {
				return err
			}
			<-m.ended
			m.noTunnel()
		}
		time.Sleep(time.Second)
		begin := time.Now()
		errs := make(chan error, len(all))
		for _, m := range all {
			go func() { errs <- m.up() }()
		}
		err := ping()
		ms := time.Since(begin).Seconds() * 1e3
		for range all {
			err = errors.Join(err, <-errs)
		}
		if err != nil {
			return err
		}
		s.results.event(natEvent, ms, 0)
		time.Sleep(2 * time.Second)
	}
	return nil
}

// addressesOf asks a host for addresses as an engine does, and between two of them has the disk do what is the least for one:
// a small write into a file that has room for it, and its flush.
func (s *networkSuite) addressesOf(m *member) error {
	if m.id == "" {
		if err := m.attach(); err != nil {
			return err
		}
	}
	f, err := os.Create(filepath.Join(m.dir, "flushed"))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 256<<10)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	c, err := dial(m.socket)
	if err != nil {
		return err
	}
	defer c.close()
	request := []byte(fmt.Sprintf(`{"PoolID":%q}`, m.pool))
	const batches = 5
	for i := range batches {
		if err := s.step("addresses, batch %d of %d", i+1, batches); err != nil {
			return err
		}
		var ours, disk []time.Duration
		for j := range s.addresses / batches {
			begin := time.Now()
			if _, err := c.call("IpamDriver.RequestAddress", request); err != nil {
				return err
			}
			ours = append(ours, time.Since(begin))
			begin = time.Now()
			if _, err := f.WriteAt(make([]byte, 64), int64(j)*64); err != nil {
				return err
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				return err
			}
			disk = append(disk, time.Since(begin))
		}
		for what, d := range map[string][]time.Duration{addressEvent: ours, flushEvent: disk} {
			us := micros(d)
			s.results.event(what, quantile(us, 0.5)/1e3, quantile(us, 0.99)/1e3)
		}
	}
	return nil
}
