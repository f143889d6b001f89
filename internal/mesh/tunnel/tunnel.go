// Package tunnel is the WireGuard device of a host: the kernel's where there is one, else a program of ours
// that serves a TUN device.
//
// That program is a process of its own. It is started by the daemon, configured over its socket, and outlives
// the daemon as the kernel's device does: whoever opens the tunnel next finds it and goes on with it. Like
// the kernel's device it ends with its interface, and in no other way.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Key is a key of WireGuard, of any kind.
type Key [32]byte

// Config is how a device is wanted.
type Config struct {
	Private Key
	Port    uint16
	Peers   map[Key]Peer
}

// Peer is one other host. Of two peers with the same prefix in Allowed the device serves one, so the
// prefixes of all peers must differ.
type Peer struct {
	Shared    Key            // mixed into the handshake; zero is none
	Endpoint  netip.AddrPort // zero leaves what the device has
	Keepalive time.Duration
	Allowed   []netip.Prefix // in order
}

// State is how a device is.
type State struct {
	Config
	Seen map[Key]Seen
}

// Seen is what the device knows of a peer.
type Seen struct {
	Handshake      time.Time // zero is never
	Received, Sent int64
	LastEndpoint   netip.AddrPort
}

// Tunnel is an open device.
type Tunnel interface {
	// State reads all of the device.
	State() (State, error)
	// set changes what the edits say.
	set(edits) error
	// Kind is "kernel" or "process".
	Kind() string
	Close() error
}

// edits are the differences between two configurations.
type edits struct {
	private *Key
	port    *uint16
	peers   []edit
}

type edit struct {
	key    Key
	remove bool
	Peer
	shared, keepalive, allowed bool // that these are to be set
}

// Options say where and how a tunnel is made.
type Options struct {
	Name string // of the interface
	MTU  int
	Dir  string // for the socket of the process, which must exist
	// Command starts [Serve] in a process of its own. The name, the socket and the MTU are
	// appended.
	Command []string
	// NoKernel makes a process even where the kernel has WireGuard.
	NoKernel bool
}

// Open finds the device or makes it.
func Open(ctx context.Context, o Options) (Tunnel, error) {
	link, err := netlink.LinkByName(o.Name)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return create(ctx, o)
	}
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", o.Name, err)
	}
	switch link.Type() {
	case "wireguard":
		return openKernel(o.Name)
	case "tuntap", "tun":
		t := &process{path: socketPath(o)}
		_, err := t.State()
		if err == nil {
			return t, nil
		}
		if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("interface %q: %w", o.Name, err) // it is there, and slow; it may be carrying packets
		}
	}
	// Nobody serves it, or it is something else that took our name.
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("interface %q: %w", o.Name, err)
	}
	return create(ctx, o)
}

func create(ctx context.Context, o Options) (Tunnel, error) {
	if !o.NoKernel {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = o.Name, o.MTU
		switch err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs}); {
		case err == nil:
			return openKernel(o.Name)
		case !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOENT):
			return nil, fmt.Errorf("interface %q: %w", o.Name, err)
		}
	}
	if len(o.Command) == 0 {
		return nil, errdefs.Errorf(errdefs.ErrUnsupported, "interface %q: the kernel has no WireGuard", o.Name)
	}
	return start(ctx, o)
}

// Apply brings the device from how it is to how it is wanted, and returns how many things differed. Where
// nothing does it is not touched.
func Apply(t Tunnel, now State, want Config) (int, error) {
	// As WireGuard keeps it, whatever it was given.
	want.Private[0] &= 248
	want.Private[31] = want.Private[31]&127 | 64
	e := diff(now, want)
	n := len(e.peers)
	if e.private != nil {
		n++
	}
	if e.port != nil {
		n++
	}
	if n == 0 {
		return 0, nil
	}
	return n, t.set(e)
}

// Begin takes a peer away and adds it anew, as if it had never been.
func Begin(t Tunnel, key Key, p Peer) error {
	return t.set(edits{peers: []edit{{key: key, remove: true}, {key: key, Peer: p, shared: true, keepalive: true, allowed: true}}})
}

// Resend gives each peer the endpoint that it has, so that the device chooses anew from which address it sends there.
func Resend(t Tunnel, now State) error {
	var e edits
	for key, p := range now.Peers {
		if p.Endpoint.IsValid() {
			e.peers = append(e.peers, edit{key: key, Peer: Peer{Endpoint: p.Endpoint}})
		}
	}
	if len(e.peers) == 0 {
		return nil
	}
	return t.set(e)
}

func diff(now State, want Config) (e edits) {
	if now.Private != want.Private {
		e.private = &want.Private
	}
	if now.Port != want.Port {
		e.port = &want.Port
	}
	for key := range now.Peers {
		if _, ok := want.Peers[key]; !ok {
			e.peers = append(e.peers, edit{key: key, remove: true})
		}
	}
	// A prefix that goes to another peer is taken from the first by the device itself. So that it is
	// never lost on the way, who loses one comes before who gets it.
	var get []edit
	for key, p := range want.Peers {
		old, known := now.Peers[key]
		one := edit{key: key, Peer: p, shared: !known || old.Shared != p.Shared, keepalive: !known || old.Keepalive != p.Keepalive}
		one.allowed = !known || !slices.Equal(old.Allowed, p.Allowed)
		if p.Endpoint == old.Endpoint {
			one.Endpoint = netip.AddrPort{}
		}
		switch {
		case known && !one.shared && !one.keepalive && !one.allowed && !one.Endpoint.IsValid():
		case one.allowed && known && len(p.Allowed) < len(old.Allowed):
			e.peers = append(e.peers, one)
		default:
			get = append(get, one)
		}
	}
	e.peers = append(e.peers, get...)
	slices.SortStableFunc(e.peers, func(a, b edit) int { return bool2int(b.remove) - bool2int(a.remove) })
	return e
}

func bool2int(b bool) int {
	if b {
		return 1
	}
	return 0
}
