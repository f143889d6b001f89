package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// The ways from a container on one host to one on another, and the wire alone.
const (
	bareWire   = "bare wire"
	l3Routes   = "L3 routes"
	vxlanAlone = "kernel VXLAN"
	swarm      = "Swarm overlay"
	oursPlain  = "remora, plain"
	oursFast   = "remora, plain, fast path"
	oursBoxed  = "remora, plain, VXLAN"
	oursFastBx = "remora, plain, VXLAN, fast path"
	rawTunnel  = "wireguard-go"
	oursSealed = "remora, encrypted"
	nebula     = "Nebula"
)

// ways has them in the order in which they are shown.
var ways = []struct {
	name  string
	build func(*networkSuite) (*way, error)
}{
	{bareWire, (*networkSuite).bareWay}, {l3Routes, (*networkSuite).routedWay}, {vxlanAlone, (*networkSuite).vxlanWay}, {swarm, (*networkSuite).swarmWay},
	{oursPlain, func(s *networkSuite) (*way, error) { return s.ourWay("p", false, false, false) }},
	{oursFast, func(s *networkSuite) (*way, error) { return s.ourWay("f", false, false, true) }},
	{oursBoxed, func(s *networkSuite) (*way, error) { return s.ourWay("x", false, true, false) }},
	{oursFastBx, func(s *networkSuite) (*way, error) { return s.ourWay("y", false, true, true) }},
	{rawTunnel, (*networkSuite).wireguardWay},
	{oursSealed, func(s *networkSuite) (*way, error) { return s.ourWay("e", true, false, false) }},
	{nebula, (*networkSuite).nebulaWay},
}

// way is one of them, set up.
type way struct {
	name     string
	hosts    [2]*node
	from, to *node
	address  string // of to
	tunnels  func() []int
	daemons  []*member
	transit  string // what our status calls it
}

// leftOut is why something is not measured on this machine.
type leftOut struct{ error }

func (s *networkSuite) bareWay() (*way, error) {
	h, err := s.pair("b", false)
	return &way{hosts: h, from: h[0], to: h[1], address: hostAddress(1, false)}, err
}

// routedWay is the least that leads from container to container: bridges, and a route to the other host.
func (s *networkSuite) routedWay() (*way, error) {
	h, c, err := s.connected("l", underlay)
	if err != nil {
		return nil, err
	}
	for i := range h {
		if err := h[i].ip(fmt.Sprintf("route add 10.66.%d.0/24 via %s", 2-i, hostAddress(1-i, false))); err != nil {
			return nil, err
		}
	}
	return &way{hosts: h, from: c[0], to: c[1], address: "10.66.2.2"}, nil
}

func (s *networkSuite) connected(name string, mtu int) (h, c [2]*node, err error) {
	if h, err = s.pair(name, false); err == nil {
		c, err = s.containers(name, h, mtu)
	}
	return h, c, err
}

// vxlanWay is a VXLAN as a port of the bridge, whose table and neighbours are known beforehand.
func (s *networkSuite) vxlanWay() (*way, error) {
	const mtu = underlay - 50
	h, c, err := s.connected("v", mtu)
	if err != nil {
		return nil, err
	}
	mac := func(i int) string { return fmt.Sprintf("02:00:00:00:00:%02x", i+1) }
	for i := range h {
		err := errors.Join(
			h[i].all(fmt.Sprintf("link add vx0 mtu %d type vxlan id 42 dstport 4789 local %s dev eth0 nolearning", mtu, hostAddress(i, false)), "link set vx0 master br0 up"),
			command("bridge", "-n", h[i].ns, "fdb", "append", mac(1-i), "dev", "vx0", "dst", hostAddress(1-i, false), "self"),
			command("bridge", "-n", h[i].ns, "fdb", "replace", mac(1-i), "dev", "vx0", "master", "static"),
			c[i].all("link set eth0 down", "link set eth0 address "+mac(i), "addr flush dev eth0", fmt.Sprintf("addr add 10.66.%d.2/16 dev eth0", i+1), "link set eth0 up",
				fmt.Sprintf("neigh add 10.66.%d.2 lladdr %s dev eth0 nud permanent", 2-i, mac(1-i))))
		if err != nil {
			return nil, err
		}
	}
	return &way{hosts: h, from: c[0], to: c[1], address: "10.66.2.2"}, nil
}

// ourWay is Remora as it is shipped, a daemon on each host, with the bench in the place of the engine.
func (s *networkSuite) ourWay(name string, password, apart, fast bool) (*way, error) {
	h, err := s.pair(name, apart)
	if err != nil {
		return nil, err
	}
	w := &way{hosts: h, transit: "route"}
	switch {
	case password:
		w.transit = "wireguard"
	case apart:
		w.transit = "vxlan"
	}
	var members [2]*member
	for i := range h {
		if members[i], err = s.member(h[i], fast); err != nil {
			return nil, err
		}
		more := map[string]any{}
		if i > 0 {
			more["Peers"] = []string{hostAddress(0, apart)}
		}
		if err := members[i].launch(password, more); err != nil {
			return nil, err
		}
	}
	for i, m := range members {
		if err := until(20*time.Second, 20*time.Millisecond, func() error { return m.sees(members[1-i]) }); err != nil {
			return nil, err
		}
	}
	if w.from, _, err = members[0].box(); err != nil {
		return nil, err
	}
	if w.to, w.address, err = members[1].box(); err != nil {
		return nil, err
	}
	w.daemons = members[:]
	w.tunnels = func() []int { return tunnels(members[:]...) }
	// The way is the one that is to be measured.
	return w, until(20*time.Second, 50*time.Millisecond, func() error {
		st, err := members[0].status()
		for _, p := range st.Peers {
			if p.State != "self" && p.Transport == w.transit && p.FastPath == fast {
				return err
			}
		}
		return fmt.Errorf("not by %s, fast path %v: %+v", w.transit, fast, st)
	})
}

// wireguardWay routes containers through wireguard-go, of the version that Remora has.
func (s *networkSuite) wireguardWay() (*way, error) {
	h, c, err := s.connected("w", underlay-80)
	if err != nil {
		return nil, err
	}
	var keys, publics [2]string
	for i := range h {
		keys[i] = said("wg", "genkey")
		file := filepath.Join(s.dir, fmt.Sprintf("wg%d.key", i))
		if err := os.WriteFile(file, []byte(keys[i]), 0o600); err != nil {
			return nil, err
		}
		if publics[i] = said("sh", "-c", "wg pubkey <"+file); publics[i] == "" {
			return nil, errors.New("wg makes no key")
		}
	}
	var pids []int
	for i := range h {
		// The socket of its configuration is named by the interface alone, so that names differ.
		link := fmt.Sprintf("%swg%d", s.prefix, i)
		pid, err := h[i].start(s.wireguard, "-f", link)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
		if err := until(5*time.Second, 20*time.Millisecond, func() error { _, err := h[i].run("wg", "show", link); return err }); err != nil {
			return nil, err
		}
		_, err = h[i].run("wg", "set", link, "listen-port", "51820", "private-key", filepath.Join(s.dir, fmt.Sprintf("wg%d.key", i)),
			"peer", publics[1-i], "endpoint", hostAddress(1-i, false)+":51820", "allowed-ips", fmt.Sprintf("10.66.%d.0/24", 2-i))
		if err == nil {
			err = h[i].all(fmt.Sprintf("link set %s mtu %d up", link, underlay-80), fmt.Sprintf("route add 10.66.%d.0/24 dev %s", 2-i, link))
		}
		if err != nil {
			return nil, err
		}
	}
	return &way{hosts: h, from: c[0], to: c[1], address: "10.66.2.2", tunnels: func() []int { return pids }}, nil
}
