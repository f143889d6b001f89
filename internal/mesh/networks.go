package mesh

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/kernel"
	"github.com/remora-plugins/remora/internal/mesh/plan"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// networks are those that this host has, as they are on disk.
type networks struct {
	Attached []plan.Attachment `json:"attached"`
}

// learned is what is known of the way to a host, kept while the host runs so that a new process does not have to
// find it out while packets are lost.
type learned struct {
	MTU      int            `json:"mtu,omitempty"`
	Down     bool           `json:"down,omitempty"`
	Endpoint netip.AddrPort `json:"endpoint,omitzero"`
}

const (
	networksFile = "mesh.json"
	pathsFile    = "paths.json"
	version      = 1
)

type pathsOnDisk struct {
	Paths map[string]learned `json:"paths"`
}

func (m *Mesh) recall() error {
	m.paths = map[record.Host]learned{}
	if err := m.file(m.cfg.Dir, func(r *os.Root) error { return state.Read(r, networksFile, version, &m.networks) }); err != nil {
		return err
	}
	var p pathsOnDisk
	err := m.file(m.cfg.RunDir, func(r *os.Root) error { return state.Read(r, pathsFile, version, &p) })
	if err != nil && !errors.Is(err, state.ErrCorrupt) {
		return err
	}
	for text, l := range p.Paths {
		var h record.Host
		if h.UnmarshalText([]byte(text)) == nil {
			m.paths[h] = l
		}
	}
	return nil
}

// file does something in a directory. That what is read is not there is no error.
func (m *Mesh) file(dir string, do func(*os.Root) error) error {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return state.Classify(err)
	}
	defer r.Close()
	if err := do(r); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return nil
}

func (m *Mesh) saveNetworks() error {
	return m.file(m.cfg.Dir, func(r *os.Root) error { return state.Write(r, networksFile, version, m.networks) })
}

func (m *Mesh) savePaths() error {
	p := pathsOnDisk{map[string]learned{}}
	for h, l := range m.paths {
		p.Paths[h.String()] = l
	}
	return m.file(m.cfg.RunDir, func(r *os.Root) error { return state.Write(r, pathsFile, version, p) })
}

func (m *Mesh) forget() error {
	return errors.Join(m.file(m.cfg.Dir, func(r *os.Root) error { return state.Remove(r, networksFile) }),
		m.file(m.cfg.RunDir, func(r *os.Root) error { return state.Remove(r, pathsFile) }))
}

// Link is what a driver has to know of a network's bridge.
type Link struct {
	Name string
	MTU  int // of the containers' interfaces
	// Routes are those that a container needs beside the one that its address brings: the
	// whole subnet of IPv6, in halves so that they count more.
	Routes []network.Route
}

// gateway is the address of every bridge, on its link.
var gateway = netip.MustParseAddr("fe80::1")

// EnsureNetwork makes the bridge of a network, whose record this host must have, with the addresses, and returns
// when containers can be attached. Calling it again with others changes them.
func (m *Mesh) EnsureNetwork(ctx context.Context, id string, addresses ...netip.Prefix) (Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := slices.Clone(m.networks.Attached)
	i := slices.IndexFunc(m.networks.Attached, func(a plan.Attachment) bool { return a.Network == id })
	switch {
	case i < 0:
		m.networks.Attached = append(m.networks.Attached, plan.Attachment{Network: id, Addresses: addresses})
	case !slices.Equal(m.networks.Attached[i].Addresses, addresses):
		m.networks.Attached = slices.Clone(m.networks.Attached)
		m.networks.Attached[i].Addresses = addresses
	default:
		// Asked for each container: what changed since the last look is the loop's business.
		if l, ok := m.link(id, addresses); ok && m.err == nil && kernel.Exists(l.Name) {
			return l, nil
		}
	}
	if err := m.saveNetworks(); err != nil {
		m.networks.Attached = before
		return Link{}, err
	}
	err := m.apply(ctx, true)
	if l, ok := m.link(id, addresses); ok {
		return l, err
	}
	m.networks.Attached = before
	return Link{}, errors.Join(errdefs.Errorf(errdefs.ErrNotFound, "network %q: this host knows of none", id), m.saveNetworks())
}

// link is what is known of a bridge since the last look. m.mu is held.
func (m *Mesh) link(id string, addresses []netip.Prefix) (Link, bool) {
	for _, b := range m.last.Bridges {
		if b.Network != id {
			continue
		}
		l := Link{Name: b.Name, MTU: b.MTU}
		for _, p := range addresses {
			if p.Addr().Is6() {
				l.Routes = append(l.Routes, halves(p.Masked())...)
			}
		}
		return l, true
	}
	return Link{}, false
}

// halves routes a subnet by the bridge, since nobody answers for hosts elsewhere in neighbour discovery.
func halves(p netip.Prefix) []network.Route {
	if p.Bits() >= 128 {
		return nil
	}
	b := p.Addr().As16()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	return []network.Route{
		{Destination: netip.PrefixFrom(p.Addr(), p.Bits()+1), NextHop: gateway},
		{Destination: netip.PrefixFrom(netip.AddrFrom16(b), p.Bits()+1), NextHop: gateway},
	}
}

// Has reports whether this host has a part in a network.
func (m *Mesh) Has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.networks.Attached, func(a plan.Attachment) bool { return a.Network == id })
}

// RemoveNetwork takes the bridge of a network away. One that is not there is no error.
func (m *Mesh) RemoveNetwork(ctx context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.networks.Attached)
	m.networks.Attached = slices.DeleteFunc(slices.Clone(m.networks.Attached), func(a plan.Attachment) bool { return a.Network == id })
	if len(m.networks.Attached) == n {
		return nil
	}
	if err := m.saveNetworks(); err != nil {
		return err
	}
	return m.apply(ctx, true)
}

// Expose lets a whole network reach this host at addresses of its own; none takes that back.
func (m *Mesh) Expose(ctx context.Context, id string, addresses ...netip.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.networks.Attached, func(a plan.Attachment) bool { return a.Network == id })
	if i < 0 {
		return errdefs.Errorf(errdefs.ErrNotFound, "network %q: this host has no part in it", id)
	}
	m.networks.Attached = slices.Clone(m.networks.Attached)
	m.networks.Attached[i].Exposed = addresses
	if err := m.saveNetworks(); err != nil {
		return err
	}
	return m.apply(ctx, true)
}

// AttachPort connects one end of a container's link to the bridge of its network. If the bridge is ever made
// again, the mesh connects it again.
func (m *Mesh) AttachPort(network, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return kernel.AttachPort(network, name)
}
