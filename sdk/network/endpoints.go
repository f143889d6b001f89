package network

import (
	"context"
	"errors"
	"log/slog"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// createEndpoint makes an endpoint, once, and returns what the driver chose for it.
func (h *Handler) createEndpoint(ctx context.Context, network string, ep Endpoint) (Assigned, error) {
	type made struct {
		assigned Assigned
		fresh    bool
	}
	m, err := bounded.Run(ctx, h.run, endpointKey(network, ep.ID), bounded.Verb[made]{
		Name: "create",
		Do: func(ctx context.Context) (m made, err error) {
			m.assigned, m.fresh, err = h.makeEndpoint(ctx, network, ep)
			return m, err
		},
		Undo: func(ctx context.Context, m made) {
			if m.fresh { // an engine that hung up never asks for its deletion
				h.cleanUp(ctx, network, ep.ID, func(ctx context.Context) error { return h.clear(ctx, network, ep.ID) })
			}
		},
	})
	return m.assigned, inEndpoint(network, ep.ID, err)
}

func (h *Handler) makeEndpoint(ctx context.Context, network string, ep Endpoint) (_ Assigned, fresh bool, err error) {
	n, known, ok := h.book.endpoint(network, ep.ID)
	if ok && known.Status != ready {
		if err := h.clear(ctx, network, ep.ID); err != nil {
			return Assigned{}, false, err
		}
		ok = false
	}
	if ok {
		if !equal(known.Asked, ep) {
			return Assigned{}, false, errdefs.Errorf(errdefs.ErrExists, "it exists already, with other addresses or options")
		}
		whole := known.endpoint()
		a, err := h.driver.CreateEndpoint(ctx, n, whole)
		if err == nil {
			_, err = admit(whole, a)
		}
		return known.Assigned, false, err
	}
	record := endpointRecord{Status: creating, Asked: ep}
	finished := false
	defer func() {
		if !finished { // a panic of the driver included
			h.cleanUp(ctx, network, ep.ID, func(ctx context.Context) error { return h.clear(ctx, network, ep.ID) })
		}
	}()
	if err := h.book.setEndpoint(ctx, network, record); err != nil {
		finished = true // the driver has not heard of it
		if _, _, ok := h.book.endpoint(network, ep.ID); ok {
			h.remember(ctx, network, ep.ID, h.book.dropEndpoint(ctx, network, ep.ID))
		}
		return Assigned{}, false, err
	}
	a, err := h.driver.CreateEndpoint(ctx, n, ep)
	if err != nil {
		return Assigned{}, false, err
	}
	if record.Assigned, err = admit(ep, a); err != nil {
		return Assigned{}, false, err
	}
	record.Status = ready
	if err := h.book.setEndpoint(ctx, network, record); err != nil {
		return Assigned{}, false, err
	}
	finished = true
	h.log.DebugContext(ctx, "endpoint created", slog.String("network", network), slog.String("endpoint", ep.ID))
	return record.Assigned, true, nil
}

// deleteEndpoint deletes an endpoint, which is left first if an engine forgot that. One
// that is not known is deleted by its ID alone.
func (h *Handler) deleteEndpoint(ctx context.Context, network, id string) error {
	return inEndpoint(network, id, h.do(ctx, endpointKey(network, id), "delete", func(ctx context.Context) error {
		n, _, ok := h.book.endpoint(network, id)
		if !ok {
			return gone(h.driver.DeleteEndpoint(ctx, n, Endpoint{ID: id}))
		}
		return h.clear(ctx, network, id)
	}))
}

// clear takes an endpoint back, as far as it has come. What fails is left for the next
// time. The caller has the endpoint's lock.
func (h *Handler) clear(ctx context.Context, network, id string) error {
	n, r, ok := h.book.endpoint(network, id)
	if !ok {
		return nil
	}
	if r.Status == ready {
		r.Status = deleting
		h.remember(ctx, network, id, h.book.setEndpoint(ctx, network, r))
	}
	var errs []error
	if r.External {
		errs = append(errs, prefixed("revoke", h.revoked(ctx, n, &r)))
	}
	if r.Sandbox != nil {
		if err := h.left(ctx, n, &r); err != nil {
			return errors.Join(append(errs, prefixed("leave", err))...)
		}
	}
	errs = append(errs, gone(h.driver.DeleteEndpoint(ctx, n, r.endpoint())))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	h.remember(ctx, network, id, h.book.dropEndpoint(ctx, network, id))
	h.log.DebugContext(ctx, "endpoint deleted", slog.String("network", network), slog.String("endpoint", id))
	return nil
}

// join connects an endpoint with a sandbox.
func (h *Handler) join(ctx context.Context, network, id string, s Sandbox) (Attachment, error) {
	a, err := bounded.Run(ctx, h.run, endpointKey(network, id), bounded.Verb[Attachment]{
		Name: "join",
		Do:   func(ctx context.Context) (Attachment, error) { return h.attach(ctx, network, id, s) },
		// No Undo: an engine that gave up on a join deletes the endpoint.
	})
	return a, inEndpoint(network, id, err)
}

func (h *Handler) attach(ctx context.Context, network, id string, s Sandbox) (a Attachment, err error) {
	n, r, err := h.ready(network, id)
	if err != nil {
		return a, err
	}
	before := r.endpoint()
	first := r.Sandbox == nil
	if !first && r.Sandbox.Key != s.Key {
		return a, errdefs.Errorf(errdefs.ErrInUse, "it is joined to sandbox %q already", r.Sandbox.Key)
	}
	r.Sandbox = &s
	finished := false
	defer func() {
		if first && !finished { // a panic of the driver included
			h.cleanUp(ctx, network, id, func(ctx context.Context) error { return h.left(ctx, n, &r) })
		}
	}()
	if err := h.book.setEndpoint(ctx, network, r); err != nil {
		return a, err
	}
	if a, err = h.driver.Join(ctx, n, before, s); err == nil {
		a, err = checkAttachment(n, before, a)
	}
	if err != nil {
		return Attachment{}, err
	}
	finished = true
	h.log.DebugContext(ctx, "endpoint joined", slog.String("network", network), slog.String("endpoint", id),
		slog.String("sandbox", s.Key), slog.String("interface", a.Interface))
	return a, nil
}

// leave undoes join.
func (h *Handler) leave(ctx context.Context, network, id string) error {
	return inEndpoint(network, id, h.do(ctx, endpointKey(network, id), "leave", func(ctx context.Context) error {
		n, r, ok := h.book.endpoint(network, id)
		switch {
		case !ok:
			return gone(h.driver.Leave(ctx, n, Endpoint{ID: id}))
		case r.Sandbox == nil:
			return nil
		}
		var err error
		if r.External {
			err = prefixed("revoke", h.revoked(ctx, n, &r))
		}
		return errors.Join(err, h.left(ctx, n, &r))
	}))
}

// left has the driver leave, and notes it in r and in the book.
func (h *Handler) left(ctx context.Context, n Network, r *endpointRecord) error {
	if err := gone(h.driver.Leave(ctx, n, r.endpoint())); err != nil {
		return err
	}
	r.Sandbox = nil
	h.remember(ctx, n.ID, r.Asked.ID, h.book.setEndpoint(ctx, n.ID, *r))
	return nil
}

// ready returns an endpoint that is there and not about to go.
func (h *Handler) ready(network, id string) (Network, endpointRecord, error) {
	n, r, ok := h.book.endpoint(network, id)
	if nr, known := h.book.network(network); !known || nr.Status != ready {
		return n, r, unknownNetwork()
	}
	if !ok || r.Status != ready {
		return n, r, unknownEndpoint()
	}
	return n, r, nil
}

// program makes an endpoint its container's way out.
func (h *Handler) program(ctx context.Context, c ExternalConnector, network, id string, o EndpointOptions) error {
	return inEndpoint(network, id, h.do(ctx, endpointKey(network, id), "program", func(ctx context.Context) error {
		n, r, err := h.ready(network, id)
		if err != nil {
			return err
		}
		first := !r.External
		r.External = true
		finished := false
		defer func() {
			if first && !finished { // a panic of the driver included
				h.cleanUp(ctx, network, id, func(ctx context.Context) error { return h.revoked(ctx, n, &r) })
			}
		}()
		if err := h.book.setEndpoint(ctx, network, r); err != nil {
			return err
		}
		if err := c.ProgramExternal(ctx, n, r.endpoint(), o); err != nil {
			return err
		}
		finished = true
		return nil
	}))
}

// revoke undoes program.
func (h *Handler) revoke(ctx context.Context, c ExternalConnector, network, id string) error {
	return inEndpoint(network, id, h.do(ctx, endpointKey(network, id), "revoke", func(ctx context.Context) error {
		n, r, ok := h.book.endpoint(network, id)
		switch {
		case !ok:
			return gone(c.RevokeExternal(ctx, n, Endpoint{ID: id}))
		case !r.External:
			return nil
		}
		return h.revoked(ctx, n, &r)
	}))
}

// revoked has the driver revoke, and notes it in r and in the book.
func (h *Handler) revoked(ctx context.Context, n Network, r *endpointRecord) error {
	if c, ok := h.driver.(ExternalConnector); ok {
		if err := gone(c.RevokeExternal(ctx, n, r.endpoint())); err != nil {
			return err
		}
	}
	r.External = false
	h.remember(ctx, n.ID, r.Asked.ID, h.book.setEndpoint(ctx, n.ID, *r))
	return nil
}

// info returns what the driver has to say of an endpoint; nothing where it cannot.
func (h *Handler) info(ctx context.Context, network, id string) map[string]any {
	i, ok := h.driver.(Informer)
	n, r, known := h.book.endpoint(network, id)
	if !ok || !known {
		return map[string]any{}
	}
	value, err := bounded.Run(ctx, h.run, "", bounded.Verb[map[string]any]{
		Name: "info",
		Do:   func(ctx context.Context) (map[string]any, error) { return i.EndpointInfo(ctx, n, r.endpoint()) },
	})
	if err != nil {
		h.log.WarnContext(ctx, "nothing is known of an endpoint", slog.String("network", network),
			slog.String("endpoint", id), slog.Any("error", err))
	}
	if value == nil {
		value = map[string]any{}
	}
	return value
}
