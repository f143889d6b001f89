package mesh

import (
	"net/netip"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// Status is how the data plane is.
type Status struct {
	// Tunnel is "kernel" or "process", or nothing where this host encrypts nothing.
	Tunnel string `json:"tunnel,omitempty"`
	Peers  []Peer `json:"peers"`
	// Repairs counts what somebody else had changed and was put back.
	Repairs int `json:"repairs"`
	// Applied is when the kernel was last compared with what is wanted.
	Applied time.Time `json:"applied"`
	// BadRecords could not be read, and are left out.
	BadRecords int      `json:"badRecords,omitempty"`
	Problems   []string `json:"problems,omitempty"`
}

// Peer is how another host is reached.
type Peer struct {
	Host      record.Host `json:"host"`
	Nickname  string      `json:"nickname"`
	Path      string      `json:"path"`      // direct, relayed or none
	Transport string      `json:"transport"` // wireguard, vxlan, route or none
	Encrypted bool        `json:"encrypted"`
	Via       record.Host `json:"via,omitzero"`
	// FastPath is that packets to it pass this host without its firewall.
	FastPath bool `json:"fastPath,omitempty"`
	// Endpoint is where its packets come from, and go to.
	Endpoint  netip.AddrPort `json:"endpoint,omitzero"`
	MTU       int            `json:"mtu,omitempty"`
	Up        bool           `json:"up"` // it answers
	Latency   time.Duration  `json:"latency,omitempty"`
	Handshake time.Time      `json:"handshake,omitzero"`
	Received  int64          `json:"received"`
	Sent      int64          `json:"sent"`
	Problem   string         `json:"problem,omitempty"`
}

// Status returns how the data plane is.
func (m *Mesh) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{Repairs: m.repairs, Applied: m.applied, BadRecords: m.bad, Problems: m.last.Problems}
	if m.tunnel != nil {
		s.Tunnel = m.tunnel.Kind()
	}
	if m.err != nil {
		s.Problems = append(slices.Clip(s.Problems), m.err.Error())
	}
	m.peers.mu.Lock()
	defer m.peers.mu.Unlock()
	for _, p := range m.last.Paths {
		one := Peer{Host: p.Host, Nickname: p.Nickname, Path: "direct", Transport: p.Kind, Encrypted: p.Kind == plan.Sealed, Via: p.Via, MTU: p.MTU, Problem: p.Problem}
		one.FastPath = p.Kind != plan.Sealed && slices.ContainsFunc(m.last.Shortcuts, func(s plan.Shortcut) bool {
			return slices.ContainsFunc(s.Ways, func(w plan.Way) bool { return w.Host == p.Host })
		})
		switch {
		case p.Kind == plan.None:
			one.Path = plan.None
		case !p.Via.IsZero():
			one.Path = "relayed"
		}
		one.Endpoint = p.Endpoint
		if p.Kind != plan.Sealed && p.Address.IsValid() {
			one.Endpoint = netip.AddrPortFrom(p.Address, 0)
		}
		if seen, ok := m.peers.seen[p.Key]; ok && p.Kind == plan.Sealed {
			one.Handshake, one.Received, one.Sent = seen.Handshake, seen.Received, seen.Sent
			if seen.LastEndpoint.IsValid() {
				one.Endpoint = seen.LastEndpoint
			}
		}
		if asked := m.peers.byHost[p.Host]; asked != nil {
			one.Up, one.Latency = asked.misses < downAfter && !asked.at.IsZero(), asked.latency
		}
		s.Peers = append(s.Peers, one)
	}
	return s
}
