package tunnel

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// inKernel is the kernel's device, over generic netlink.
type inKernel struct {
	name   string
	client *wgctrl.Client
}

func openKernel(name string) (*inKernel, error) {
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", name, err)
	}
	return &inKernel{name, client}, nil
}

func (*inKernel) Kind() string { return "kernel" }

func (t *inKernel) Close() error { return t.client.Close() }

func (t *inKernel) State() (State, error) {
	d, err := t.client.Device(t.name)
	if err != nil {
		return State{}, fmt.Errorf("interface %q: %w", t.name, err)
	}
	s := State{Seen: map[Key]Seen{}}
	s.Private, s.Port, s.Peers = Key(d.PrivateKey), uint16(d.ListenPort), map[Key]Peer{}
	for _, p := range d.Peers {
		peer := Peer{Shared: Key(p.PresharedKey), Keepalive: p.PersistentKeepaliveInterval}
		if p.Endpoint != nil {
			a := p.Endpoint.AddrPort()
			peer.Endpoint = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		}
		for _, n := range p.AllowedIPs {
			addr, _ := netip.AddrFromSlice(n.IP)
			ones, _ := n.Mask.Size()
			peer.Allowed = append(peer.Allowed, netip.PrefixFrom(addr.Unmap(), ones))
		}
		slices.SortFunc(peer.Allowed, netip.Prefix.Compare)
		s.Peers[Key(p.PublicKey)] = peer
		s.Seen[Key(p.PublicKey)] = Seen{
			Handshake: p.LastHandshakeTime, Received: p.ReceiveBytes, Sent: p.TransmitBytes, LastEndpoint: peer.Endpoint,
		}
	}
	return s, nil
}

func (t *inKernel) set(e edits) error {
	var c wgtypes.Config
	if e.private != nil {
		key := wgtypes.Key(*e.private)
		c.PrivateKey = &key
	}
	if e.port != nil {
		port := int(*e.port)
		c.ListenPort = &port
	}
	for _, p := range e.peers {
		pc := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.key), Remove: p.remove}
		if p.shared {
			key := wgtypes.Key(p.Shared)
			pc.PresharedKey = &key
		}
		if p.keepalive {
			pc.PersistentKeepaliveInterval = &p.Keepalive
		}
		if p.Endpoint.IsValid() {
			pc.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
		}
		if p.allowed {
			pc.ReplaceAllowedIPs = true
			for _, a := range p.Allowed {
				pc.AllowedIPs = append(pc.AllowedIPs, net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())})
			}
		}
		c.Peers = append(c.Peers, pc)
	}
	if err := t.client.ConfigureDevice(t.name, c); err != nil {
		return fmt.Errorf("interface %q: %w", t.name, err)
	}
	return nil
}
