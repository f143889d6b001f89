package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/kernel"
	"github.com/remora-plugins/remora/internal/mesh/plan"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// look is one turn of the loop. The kernel is compared with a plan that is as it was only if compare says so.
func (m *Mesh) look(ctx context.Context, compare bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.err
	if err := m.apply(ctx, compare); err != nil && (before == nil || before.Error() != err.Error()) {
		m.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the data plane is not whole", slog.Any("error", err))
	}
}

// apply plans, and makes it so. m.mu is held.
func (m *Mesh) apply(ctx context.Context, compare bool) error {
	m.err = m.tryApply(ctx, compare)
	m.applied = time.Now()
	return m.err
}

func (m *Mesh) tryApply(ctx context.Context, compare bool) error {
	in, err := m.input()
	if err != nil {
		return err
	}
	if _, ok := in.Members[m.self]; !ok {
		return errdefs.Errorf(errdefs.ErrUnavailable, "data plane: this host has not said yet what it is; everything stays as it was")
	}
	p := plan.Compute(in)
	again := reflect.DeepEqual(p, m.last)
	if again && !compare && m.err == nil {
		return nil
	}
	m.last = p
	m.peers.want(p.Paths)
	changes, terr := m.applyTunnel(ctx, p)
	lost := slices.Contains(changes, lostTunnel)
	more, kerr := kernel.Apply(ctx, p)
	// With another plan there is always something to do; only a tunnel that is gone is never meant.
	if changes = append(changes, more...); len(changes) > 0 && (again || lost) {
		m.repairs += len(changes)
		m.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the kernel was not as it was left, and is again", slog.Any("repaired", changes))
	}
	return errors.Join(terr, kerr)
}

// input is what the plan is made from.
func (m *Mesh) input() (plan.Input, error) {
	in := plan.Input{
		Self: m.self, Private: m.cfg.Private, Secret: m.cfg.Secret, Blocks: m.cfg.Blocks(), Attached: m.networks.Attached,
		TunnelPort: m.cfg.TunnelPort, VXLANPort: m.cfg.VXLANPort, FastPath: m.cfg.FastPath,
	}
	m.bad = in.Gather(m.cfg.Records.Records)
	var addrs []netip.Addr
	for h, member := range in.Members {
		if h == m.self {
			continue
		}
		for _, a := range member.Tunnel {
			addrs = append(addrs, a.Addr().Unmap())
		}
	}
	f := &in.Facts
	var err error
	if f.Uplink, f.OnLink, err = kernel.Underlay(addrs); err != nil {
		return in, err
	}
	m.uplink = f.Uplink
	f.Down, f.MTU, f.Endpoint = map[record.Host]bool{}, map[record.Host]int{}, map[record.Host]netip.AddrPort{}
	for h, l := range m.paths {
		if _, member := in.Members[h]; !member {
			if _, ok := in.Members[m.self]; ok {
				delete(m.paths, h)
			}
			continue
		}
		if l.Down {
			f.Down[h] = true
		}
		if l.MTU != 0 {
			f.MTU[h] = l.MTU
		}
		if l.Endpoint.IsValid() {
			f.Endpoint[h] = l.Endpoint
		}
	}
	return in, nil
}

// lostTunnel is what a tunnel that was open and is no more is called among the repairs.
const lostTunnel = "tunnel"

// tried is where a peer was last told to be, and told where it says that it is, which is not tried while it answers as it is.
type tried struct{ endpoint, told netip.AddrPort }

// freshFor is how long a handshake is good for; WireGuard's own limit.
const freshFor = 3 * time.Minute

// applyTunnel brings the tunnel to the plan. Once a peer answers, the device itself follows it to wherever its packets
// come from, so an endpoint is set only when it is a new one to be tried. Of a peer that answers it is not: what one behind NAT tells is an
// address at which others do not reach it. It is asked at once whether it answers still.
func (m *Mesh) applyTunnel(ctx context.Context, p plan.Plan) (changes []string, err error) {
	if p.Tunnel == nil {
		if m.tunnel != nil {
			_ = m.tunnel.Close()
			m.tunnel = nil
		}
		return nil, nil
	}
	var now tunnel.State
	if m.tunnel != nil {
		if now, err = m.tunnel.State(); err != nil {
			_ = m.tunnel.Close()
			m.tunnel = nil
			changes = append(changes, lostTunnel)
		}
	}
	if m.tunnel == nil {
		o := tunnel.Options{Name: plan.Tunnel, MTU: p.TunnelMTU, Dir: m.cfg.RunDir, Command: m.cfg.Command, NoKernel: m.cfg.NoKernel}
		if m.tunnel, err = tunnel.Open(ctx, o); err != nil {
			return changes, err
		}
		if now, err = m.tunnel.State(); err != nil {
			return changes, err
		}
	}
	want := *p.Tunnel
	want.Peers = map[tunnel.Key]tunnel.Peer{}
	var moved []tunnel.Key
	hosts := map[tunnel.Key]record.Host{}
	for _, path := range p.Paths {
		hosts[path.Key] = path.Host
	}
	late := 0 // endpoints that the plan before this one had as well
	for key, peer := range p.Tunnel.Peers {
		last, known := m.tried[key]
		has, there := now.Peers[key]
		handshake := now.Seen[key].Handshake
		switch {
		case !there:
		case known && last.endpoint == peer.Endpoint && has.Endpoint.IsValid():
			peer.Endpoint = has.Endpoint
		case !known && time.Since(handshake) < freshFor:
			peer.Endpoint = has.Endpoint
		case known && has.Endpoint.IsValid() && time.Since(handshake) < freshFor && m.peers.answers(hosts[key]):
			if last.told != peer.Endpoint {
				m.peers.askNow(hosts[key])
			}
			m.tried[key] = tried{last.endpoint, peer.Endpoint}
			peer.Endpoint = has.Endpoint
			want.Peers[key] = peer
			continue
		case peer.Endpoint.IsValid() && time.Since(handshake) > freshFor:
			moved = append(moved, key)
		}
		if known && last.told.IsValid() {
			late++
		}
		want.Peers[key] = peer
		m.tried[key] = tried{endpoint: p.Tunnel.Peers[key].Endpoint}
	}
	for key := range m.tried {
		if _, ok := p.Tunnel.Peers[key]; !ok {
			delete(m.tried, key)
		}
	}
	n, err := tunnel.Apply(m.tunnel, now, want)
	if n > late {
		changes = append(changes, fmt.Sprintf("%d of the tunnel", n))
	}
	for _, key := range moved { // at once, not when WireGuard would try again
		err = errors.Join(err, tunnel.Begin(m.tunnel, key, want.Peers[key]))
	}
	return changes, err
}
