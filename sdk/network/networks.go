package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// createNetwork makes a network, once.
func (h *Handler) createNetwork(ctx context.Context, n Network) error {
	_, err := bounded.Run(ctx, h.run, networkKey(n.ID), bounded.Verb[bool]{
		Name: "create",
		Do:   func(ctx context.Context) (fresh bool, err error) { return h.makeNetwork(ctx, n) },
		Undo: func(ctx context.Context, fresh bool) {
			if fresh { // to an engine that hung up, the network was never made
				h.cleanUp(ctx, n.ID, "", func(ctx context.Context) error { return h.destroy(ctx, n.ID) })
			}
		},
	})
	return inNetwork(n.ID, err)
}

func (h *Handler) makeNetwork(ctx context.Context, n Network) (fresh bool, err error) {
	known, ok := h.book.network(n.ID)
	if ok && known.Status != ready {
		if err := h.destroy(ctx, n.ID); err != nil {
			return false, err
		}
		ok = false
	}
	if ok {
		if !equal(known.Network, n) {
			return false, errdefs.Errorf(errdefs.ErrExists, "it exists already, with other options")
		}
		return false, h.driver.CreateNetwork(ctx, n)
	}
	finished := false
	defer func() {
		if !finished { // a panic of the driver included
			h.cleanUp(ctx, n.ID, "", func(ctx context.Context) error { return h.destroy(ctx, n.ID) })
		}
	}()
	if err := h.book.setNetwork(ctx, n, creating); err != nil {
		finished = true // the driver has not heard of it
		h.remember(ctx, n.ID, "", h.book.dropNetwork(ctx, n.ID))
		return false, err
	}
	if err := h.driver.CreateNetwork(ctx, n); err != nil {
		return false, err
	}
	if err := h.book.setNetwork(ctx, n, ready); err != nil {
		return false, err
	}
	finished = true
	h.log.InfoContext(ctx, "network created", slog.String("network", n.ID))
	return true, nil
}

// equal compares two descriptions of one object as they are written down, so that one
// that was read back is the same.
func equal[T any](a, b T) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// deleteNetwork deletes a network and whatever endpoints it still has. One that is not
// known is deleted by its ID alone.
func (h *Handler) deleteNetwork(ctx context.Context, id string) error {
	return inNetwork(id, h.do(ctx, networkKey(id), "delete", func(ctx context.Context) error {
		return h.destroy(ctx, id)
	}))
}

// destroy is deleteNetwork for one who has the network's lock.
func (h *Handler) destroy(ctx context.Context, id string) error {
	known, ok := h.book.network(id)
	if !ok {
		return gone(h.driver.DeleteNetwork(ctx, Network{ID: id}))
	}
	// From here on no endpoint comes in any more.
	h.remember(ctx, id, "", h.book.setNetwork(ctx, known.Network, deleting))
	var errs []error
	for _, ep := range h.book.endpoints(id) {
		unlock, err := h.run.Lock(ctx, endpointKey(id, ep))
		if err == nil {
			err = h.clear(ctx, id, ep)
			unlock()
		}
		errs = append(errs, prefixed("endpoint "+short(ep), err))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := gone(h.driver.DeleteNetwork(ctx, known.Network)); err != nil {
		return err
	}
	if err := h.book.dropNetwork(ctx, id); err != nil {
		return err
	}
	if known.Status != creating { // of which nobody was told that it had been created
		h.log.InfoContext(ctx, "network deleted", slog.String("network", id))
	}
	return nil
}

// remember logs that a change could not be written down. It is for changes on the way to
// a deletion, which a full disk must not prevent.
func (h *Handler) remember(ctx context.Context, network, endpoint string, err error) {
	if err != nil {
		h.log.WarnContext(ctx, "state is not up to date", slog.String("network", network),
			slog.String("endpoint", endpoint), slog.Any("error", err))
	}
}

// scopes returns what the driver says of its reach.
func (h *Handler) scopes() (scope, connectivity Scope) {
	if s, ok := h.driver.(Scoper); ok {
		scope, connectivity = s.Scope()
	}
	if scope != Global {
		scope = Local
	}
	if connectivity != Global && connectivity != Local {
		connectivity = scope
	}
	return scope, connectivity
}

// skipGateway asks a driver that can tell whether gateways are needed.
func (h *Handler) skipGateway(ctx context.Context, n Network) (ipv4, ipv6 bool, err error) {
	s, ok := h.driver.(GatewaySkipper)
	if !ok {
		return false, false, nil
	}
	err = h.do(ctx, "", "check gateway", func(ctx context.Context) (err error) {
		ipv4, ipv6, err = s.SkipGateway(ctx, n)
		return err
	})
	if err != nil {
		return false, false, err
	}
	return ipv4, ipv6, nil
}

// allocateNetwork returns the options with which the nodes create a network.
func (h *Handler) allocateNetwork(ctx context.Context, n Network) (map[string]string, error) {
	a, ok := h.driver.(Allocator)
	if !ok {
		return n.Options, nil
	}
	options, err := bounded.Run(ctx, h.run, networkKey(n.ID), bounded.Verb[map[string]string]{
		Name: "allocate",
		Do:   func(ctx context.Context) (map[string]string, error) { return a.AllocateNetwork(ctx, n) },
		Undo: func(ctx context.Context, _ map[string]string) {
			h.cleanUp(ctx, n.ID, "", func(ctx context.Context) error { return gone(a.FreeNetwork(ctx, n.ID)) })
		},
	})
	return options, inNetwork(n.ID, err)
}

// freeNetwork undoes allocateNetwork.
func (h *Handler) freeNetwork(ctx context.Context, id string) error {
	a, ok := h.driver.(Allocator)
	if !ok {
		return nil
	}
	return inNetwork(id, h.do(ctx, networkKey(id), "free", func(ctx context.Context) error {
		return gone(a.FreeNetwork(ctx, id))
	}))
}

// node tells the driver of a node.
func (h *Handler) node(ctx context.Context, node Node, name string, tell func(context.Context, Node) error) error {
	return prefixed("node "+node.Address.String(), h.do(ctx, "node "+node.Address.String(), name,
		func(ctx context.Context) error { return tell(ctx, node) }))
}
