package ipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
	"github.com/remora-plugins/remora/sdk/internal/rpc"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// DefaultTimeout is how long one call to a driver may take where [Options] says nothing.
// Engines have no limit of their own for IPAM plugins.
const DefaultTimeout = 45 * time.Second

// Options of a [Handler]. The zero value works.
type Options struct {
	// Logger is told of what fails; nil is silent.
	Logger *slog.Logger
	// Observe is told of each call that was answered; nil is nobody.
	Observe sdk.Observer
	// Timeout bounds each call to the driver; 0 is DefaultTimeout.
	Timeout time.Duration
}

// Handler stands between engines and a [Driver]: a [sdk.Plugin] on the one side, the only
// caller of the driver on the other. Make it with [NewHandler]. It is safe for concurrent
// use: calls for one pool wait for each other, calls for different pools never do.
type Handler struct {
	driver  Driver
	options Options
	run     *bounded.Runner
}

var _ sdk.Plugin = (*Handler)(nil)

// NewHandler puts a Handler in front of driver. It panics when driver is nil, as a driver
// that is not there is a mistake to be seen at start.
func NewHandler(driver Driver, o Options) *Handler {
	if driver == nil {
		panic("ipam: NewHandler without a Driver")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	return &Handler{driver: driver, options: o, run: &bounded.Runner{Limit: o.Timeout, Log: o.Logger}}
}

// Close waits for calls that still run in the driver, and closes the driver if it is an
// [io.Closer]. ctx bounds the waiting.
func (h *Handler) Close(ctx context.Context) error {
	return errors.Join(h.run.Wait(ctx), bounded.Close(ctx, h.options.Logger, h.driver))
}

// Implements returns "IpamDriver".
func (h *Handler) Implements() string { return wire.IpamDriver }

// Methods returns the handler of each method of an IPAM plugin.
func (h *Handler) Methods() map[string]http.Handler {
	return map[string]http.Handler{
		wire.IpamGetCapabilities:         method(h, wire.IpamGetCapabilities, nil, h.capabilities),
		wire.IpamGetDefaultAddressSpaces: method(h, wire.IpamGetDefaultAddressSpaces, nil, h.addressSpaces),
		wire.IpamRequestPool:             method(h, wire.IpamRequestPool, func(r *wire.RequestPoolRequest) string { return r.Pool }, h.requestPool),
		wire.IpamReleasePool:             method(h, wire.IpamReleasePool, func(r *wire.ReleasePoolRequest) string { return r.PoolID }, h.releasePool),
		wire.IpamRequestAddress:          method(h, wire.IpamRequestAddress, func(r *wire.RequestAddressRequest) string { return r.PoolID }, h.requestAddress),
		wire.IpamReleaseAddress:          method(h, wire.IpamReleaseAddress, func(r *wire.ReleaseAddressRequest) string { return r.PoolID }, h.releaseAddress),
	}
}

func method[Req, Resp any](h *Handler, name string, object func(*Req) string, f func(context.Context, *Req) (Resp, error)) http.Handler {
	m := rpc.Method{
		Name: name, NoArgument: name == wire.IpamGetCapabilities || name == wire.IpamGetDefaultAddressSpaces, Advise: true,
		ErrorBody: func(text string) any { return wire.IpamError{Error: text, Err: text} },
	}
	return rpc.Handle(rpc.Hooks{Logger: h.options.Logger, Observe: h.options.Observe}, m, object, f)
}

func (h *Handler) capabilities(context.Context, *struct{}) (wire.IpamCapabilitiesResponse, error) {
	var c Capabilities
	if d, ok := h.driver.(Capabler); ok {
		c = d.Capabilities()
	}
	return wire.IpamCapabilitiesResponse{RequiresMACAddress: c.RequiresMACAddress, RequiresRequestReplay: c.RequiresRequestReplay}, nil
}

func (h *Handler) addressSpaces(ctx context.Context, _ *struct{}) (wire.AddressSpacesResponse, error) {
	return bounded.Run(ctx, h.run, "", bounded.Verb[wire.AddressSpacesResponse]{
		Name: "address spaces",
		Do: func(ctx context.Context) (resp wire.AddressSpacesResponse, err error) {
			resp.LocalDefaultAddressSpace, resp.GlobalDefaultAddressSpace, err = h.driver.DefaultAddressSpaces(ctx)
			if err == nil && (resp.LocalDefaultAddressSpace == "" || resp.GlobalDefaultAddressSpace == "") {
				err = mistake("an address space without a name")
			}
			return resp, err
		},
	})
}

func (h *Handler) requestPool(ctx context.Context, w *wire.RequestPoolRequest) (wire.RequestPoolResponse, error) {
	r, err := poolRequestFromWire(w)
	if err != nil {
		return wire.RequestPoolResponse{}, err
	}
	release := func(ctx context.Context, p Pool) {
		h.takeBack(ctx, p.ID, func(ctx context.Context) error { return h.driver.ReleasePool(ctx, p.ID) })
	}
	p, err := bounded.Run(ctx, h.run, "space "+r.AddressSpace, bounded.Verb[Pool]{
		Name: "request pool",
		Do: func(ctx context.Context) (Pool, error) {
			p, err := h.driver.RequestPool(ctx, r)
			if err != nil {
				return p, err
			}
			if err := checkPool(r, p); err != nil {
				if p.ID != "" {
					release(ctx, p)
				}
				return p, err
			}
			return p, nil
		},
		Undo: release,
	})
	if err != nil {
		return wire.RequestPoolResponse{}, err
	}
	return poolToWire(p), nil
}

func checkPool(r PoolRequest, p Pool) error {
	switch {
	case p.ID == "":
		return mistake("a pool without an ID")
	case !p.Prefix.IsValid() || p.Prefix != p.Prefix.Masked():
		return mistake("%s is no pool", p.Prefix)
	case p.Prefix.Addr().Is6() != r.V6:
		return mistake("pool %s is not of the family that was asked for", p.Prefix)
	case r.Pool.IsValid() && p.Prefix != r.Pool:
		return mistake("pool %s in the place of %s", p.Prefix, r.Pool)
	case p.Gateway.IsValid() && !p.Prefix.Contains(p.Gateway.Addr()):
		return mistake("gateway %s is not in pool %s", p.Gateway, p.Prefix)
	}
	return nil
}

func (h *Handler) releasePool(ctx context.Context, w *wire.ReleasePoolRequest) (wire.IpamEmptyResponse, error) {
	if w.PoolID == "" {
		return wire.IpamEmptyResponse{}, noPool()
	}
	return wire.IpamEmptyResponse{}, h.release(ctx, w.PoolID, "release pool", func(ctx context.Context) error {
		return h.driver.ReleasePool(ctx, w.PoolID)
	})
}

func (h *Handler) requestAddress(ctx context.Context, w *wire.RequestAddressRequest) (wire.RequestAddressResponse, error) {
	r, err := addressRequestFromWire(w)
	if err == nil && r.PoolID == "" {
		err = noPool()
	}
	if err != nil {
		return wire.RequestAddressResponse{}, err
	}
	release := func(ctx context.Context, a Address) {
		h.takeBack(ctx, r.PoolID, func(ctx context.Context) error { return h.driver.ReleaseAddress(ctx, r.PoolID, a.Prefix.Addr()) })
	}
	a, err := bounded.Run(ctx, h.run, "pool "+r.PoolID, bounded.Verb[Address]{
		Name: "request address",
		Do: func(ctx context.Context) (Address, error) {
			a, err := h.driver.RequestAddress(ctx, r)
			switch {
			case err != nil:
			case !a.Prefix.IsValid():
				err = mistake("no address")
			case r.Address.IsValid() && a.Prefix.Addr() != r.Address:
				release(ctx, a)
				err = mistake("address %s in the place of %s", a.Prefix.Addr(), r.Address)
			}
			return a, err
		},
		Undo: release,
	})
	if err != nil {
		return wire.RequestAddressResponse{}, inPool(r.PoolID, err)
	}
	return addressToWire(a), nil
}

func (h *Handler) releaseAddress(ctx context.Context, w *wire.ReleaseAddressRequest) (wire.IpamEmptyResponse, error) {
	a, err := address(w.Address)
	if err == nil && w.PoolID == "" {
		err = noPool()
	}
	if err != nil {
		return wire.IpamEmptyResponse{}, err
	}
	return wire.IpamEmptyResponse{}, h.release(ctx, w.PoolID, "release address", func(ctx context.Context) error {
		return h.driver.ReleaseAddress(ctx, w.PoolID, a)
	})
}

// release runs a call that gives something back, for which it is no mistake to find it
// given back already.
func (h *Handler) release(ctx context.Context, poolID, name string, f func(context.Context) error) error {
	_, err := bounded.Run(ctx, h.run, "pool "+poolID, bounded.Verb[struct{}]{
		Name: name,
		Do: func(ctx context.Context) (struct{}, error) {
			if err := f(ctx); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return struct{}{}, err
			}
			return struct{}{}, nil
		},
	})
	return inPool(poolID, err)
}

// takeBack gives back what nobody is going to use, in a time of its own.
func (h *Handler) takeBack(ctx context.Context, poolID string, f func(context.Context) error) {
	ctx, cancel := h.run.Context(context.WithoutCancel(ctx))
	defer cancel()
	if err := f(ctx); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		h.options.Logger.WarnContext(ctx, "failed call cannot be undone", slog.String("pool", poolID), slog.Any("error", err))
	}
}

// mistake is an answer of the driver that the engine must not see. It has no class: the
// user can neither cause nor mend it.
func mistake(format string, args ...any) error {
	return fmt.Errorf("the driver's answer is wrong: "+format, args...)
}

func noPool() error { return errdefs.Errorf(errdefs.ErrInvalid, "the request names no pool") }

func inPool(id string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pool %.100q: %w", id, err)
}
