package network

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/keylock"
	"github.com/remora-plugins/remora/sdk/internal/statedir"
)

// Dir keeps one JSON file of mode 0600 for each network in the directory at path, which
// is absolute and is made with mode 0700. It belongs to one Handler alone, and should
// survive a reboot, as the engine's own networks do.
func Dir(path string) State { return statedir.New(path) }

// status is how far an object has come.
type status string

const (
	ready    status = ""
	creating status = "creating" // the driver may have made some of it; the engine has not heard of it
	deleting status = "deleting" // the driver may have deleted some of it; the engine has forgotten it
)

// networkVersion is the version of the text of a network.
const networkVersion = 1

// networkRecord is what is remembered of a network.
type networkRecord struct {
	Version   int
	Status    status `json:",omitempty"`
	Network   Network
	Endpoints map[string]endpointRecord `json:",omitempty"`
}

// endpointRecord is what is remembered of an endpoint.
type endpointRecord struct {
	Status status `json:",omitempty"`
	// Asked is the endpoint as the engine asked for it, by which a repeated call is known.
	Asked Endpoint
	// Assigned is what the engine was answered.
	Assigned Assigned
	// External: the driver was told to program the way out.
	External bool     `json:",omitempty"`
	Sandbox  *Sandbox `json:",omitempty"`
}

// endpoint returns the whole that the driver gets to see.
func (r endpointRecord) endpoint() Endpoint {
	ep := r.Asked.with(r.Assigned)
	ep.Sandbox = r.Sandbox
	return ep
}

// book is the memory of networks and endpoints, with a State behind it that may be nil.
// The records in it are replaced and never changed.
type book struct {
	state  State
	saving keylock.Locks
	mu     sync.Mutex
	pages  map[string]*page
}

// page is one network. changes counts what happened to it, saved how much of that the
// State has.
type page struct {
	record         networkRecord
	changes, saved int
}

// openBook reads what state has.
func openBook(ctx context.Context, state State) (*book, error) {
	b := &book{state: state, pages: map[string]*page{}}
	if state == nil {
		return b, nil
	}
	texts, err := state.Load(ctx)
	if err != nil {
		return nil, err
	}
	for key, text := range texts {
		var r networkRecord
		err := json.Unmarshal(text, &r)
		switch {
		case err != nil:
		case r.Version != networkVersion:
			err = fmt.Errorf("version %d, this program reads %d", r.Version, networkVersion)
		case r.Network.ID != key:
			err = fmt.Errorf("it is of network %.40q", r.Network.ID)
		}
		if err != nil {
			return nil, errdefs.Hint(fmt.Errorf("state of network %s: %w", short(key), err),
				"the state was changed from outside, or belongs to another version; remove this entry and the network to go on")
		}
		b.pages[key] = &page{record: r}
	}
	return b, nil
}

// all returns every network in the order of IDs.
func (b *book) all() []networkRecord {
	b.mu.Lock()
	defer b.mu.Unlock()
	records := make([]networkRecord, 0, len(b.pages))
	for _, id := range slices.Sorted(maps.Keys(b.pages)) {
		r := b.pages[id].record
		r.Endpoints = maps.Clone(r.Endpoints)
		records = append(records, r)
	}
	return records
}

// network returns a network without its endpoints.
func (b *book) network(id string) (networkRecord, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.pages[id]
	if !ok {
		return networkRecord{}, false
	}
	r := p.record
	r.Endpoints = nil
	return r, true
}

// endpoint returns an endpoint and its network.
func (b *book) endpoint(network, id string) (Network, endpointRecord, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.pages[network]
	if !ok {
		return Network{ID: network}, endpointRecord{}, false
	}
	r, ok := p.record.Endpoints[id]
	return p.record.Network, r, ok
}

// endpoints returns the IDs of a network's endpoints in order.
func (b *book) endpoints(network string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.pages[network]; ok {
		return slices.Sorted(maps.Keys(p.record.Endpoints))
	}
	return nil
}

// setNetwork makes s the status of a network, which is new if there is none of that ID.
func (b *book) setNetwork(ctx context.Context, n Network, s status) error {
	b.mu.Lock()
	p, ok := b.pages[n.ID]
	if !ok {
		p = &page{record: networkRecord{Version: networkVersion, Network: n, Endpoints: map[string]endpointRecord{}}}
		b.pages[n.ID] = p
	}
	p.record.Status = s
	p.changes++
	b.mu.Unlock()
	return b.save(ctx, n.ID)
}

// setEndpoint replaces an endpoint. A new one is let in only while its network is ready.
func (b *book) setEndpoint(ctx context.Context, network string, r endpointRecord) error {
	b.mu.Lock()
	p, ok := b.pages[network]
	if ok && p.record.Status != ready {
		_, ok = p.record.Endpoints[r.Asked.ID]
	}
	if !ok {
		b.mu.Unlock()
		return unknownNetwork()
	}
	if p.record.Endpoints == nil {
		p.record.Endpoints = map[string]endpointRecord{}
	}
	p.record.Endpoints[r.Asked.ID] = r
	p.changes++
	b.mu.Unlock()
	return b.save(ctx, network)
}

// dropEndpoint forgets an endpoint.
func (b *book) dropEndpoint(ctx context.Context, network, id string) error {
	b.mu.Lock()
	if p, ok := b.pages[network]; ok {
		delete(p.record.Endpoints, id)
		p.changes++
	}
	b.mu.Unlock()
	return b.save(ctx, network)
}

// dropNetwork forgets a network and all in it.
func (b *book) dropNetwork(ctx context.Context, id string) error {
	b.mu.Lock()
	delete(b.pages, id)
	b.mu.Unlock()
	return b.save(ctx, id)
}

// save brings the State up to date with a network, and returns when it is. Of several
// calls that wait for each other the first that gets to it saves for all.
func (b *book) save(ctx context.Context, id string) error {
	if b.state == nil {
		return nil
	}
	b.mu.Lock()
	target := 0
	if p, ok := b.pages[id]; ok {
		target = p.changes
	}
	b.mu.Unlock()
	unlock, err := b.saving.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	b.mu.Lock()
	p, ok := b.pages[id]
	if !ok {
		b.mu.Unlock()
		return b.state.Delete(ctx, id)
	}
	if p.saved >= target && p.saved > 0 {
		b.mu.Unlock()
		return nil
	}
	text, err := json.Marshal(p.record)
	changes := p.changes
	b.mu.Unlock()
	if err != nil {
		return err
	}
	if err := b.state.Save(ctx, id, append(text, '\n')); err != nil {
		return err
	}
	b.mu.Lock()
	p.saved = changes
	b.mu.Unlock()
	return nil
}
