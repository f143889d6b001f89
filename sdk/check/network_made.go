package check

import (
	"context"
	"maps"
	"slices"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/network"
)

// madeNetwork is a network that a case has made, or tried to.
type madeNetwork struct {
	id        string
	there     bool            // it was made, and not removed since
	endpoints map[string]bool // the same of each endpoint
}

func (m *madeNetwork) remove(ctx context.Context, n client.Network, t *T) {
	for _, ep := range slices.Sorted(maps.Keys(m.endpoints)) {
		// What an engine sends after it was killed. The last of it tells of what is left.
		_ = n.RevokeExternal(ctx, m.id, ep)
		_ = n.Leave(ctx, m.id, ep)
		if err := n.DeleteEndpoint(ctx, m.id, ep); remains(err, m.endpoints[ep]) {
			t.left("endpoint "+ep+" of network "+m.id, err)
		}
	}
	if err := n.DeleteNetwork(ctx, m.id); remains(err, m.there) {
		t.left("network "+m.id, err)
	}
}

func (t *T) trackNetwork(id string) *madeNetwork {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.networks {
		if m.id == id {
			return m
		}
	}
	m := &madeNetwork{id: id, endpoints: map[string]bool{}}
	t.networks = append(t.networks, m)
	return m
}

func (t *T) tryNetwork(n network.Network) error {
	m := t.trackNetwork(n.ID)
	err := t.c.Network().CreateNetwork(t.ctx, n)
	m.there = m.there || err == nil
	return err
}

func (t *T) tryDeleteNetwork(n network.Network) error {
	err := t.c.Network().DeleteNetwork(t.ctx, n.ID)
	if err == nil {
		t.trackNetwork(n.ID).there = false
	}
	return err
}

func (t *T) tryEndpoint(n network.Network, ep network.Endpoint) (network.Assigned, error) {
	t.noteEndpoint(n, ep, func(there bool) bool { return there })
	a, err := t.c.Network().CreateEndpoint(t.ctx, n.ID, ep)
	t.noteEndpoint(n, ep, func(there bool) bool { return there || err == nil })
	return a, err
}

func (t *T) tryDeleteEndpoint(n network.Network, ep network.Endpoint) error {
	err := t.c.Network().DeleteEndpoint(t.ctx, n.ID, ep.ID)
	t.noteEndpoint(n, ep, func(there bool) bool { return there && err != nil })
	return err
}

func (t *T) noteEndpoint(n network.Network, ep network.Endpoint, there func(bool) bool) {
	m := t.trackNetwork(n.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	m.endpoints[ep.ID] = there(m.endpoints[ep.ID])
}

// forget takes an endpoint that is gone off the list of what is to be removed.
func (t *T) forget(n network.Network, ep network.Endpoint) {
	m := t.trackNetwork(n.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(m.endpoints, ep.ID)
}
