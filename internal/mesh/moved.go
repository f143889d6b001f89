package mesh

import (
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
)

// Moved says that the addresses or routes of this host have changed. Each peer is told by a packet at once: its tunnel follows
// to where it comes from.
func (m *Mesh) Moved() {
	m.mu.Lock()
	if m.tunnel != nil {
		// wireguard-go goes on sending from the address that it used last, until it has heard nothing for 15 seconds.
		if now, err := m.tunnel.State(); err == nil {
			_ = tunnel.Resend(m.tunnel, now)
		}
	}
	m.mu.Unlock()
	m.Nudge()
	p := &m.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.byHost {
		one.ask()
	}
}

// ask has a peer asked at once.
func (p *peer) ask() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// askNow has a host asked at once.
func (p *peers) askNow(h record.Host) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.byHost[h]; one != nil {
		one.ask()
	}
}

// answers reports whether a host answered when it was last asked.
func (p *peers) answers(h record.Host) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.byHost[h]
	return one != nil && one.misses == 0 && !one.at.IsZero()
}

// again has a value when the host is to be asked at once.
func (p *peers) again(h record.Host) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.byHost[h]; one != nil {
		return one.again
	}
	return nil
}

// latency is how long its last answer took.
func (p *peers) latency(h record.Host) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.byHost[h]; one != nil {
		return one.latency
	}
	return 0
}
