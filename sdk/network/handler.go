package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// DefaultTimeout is how long one call to a driver may take where [Options] says nothing.
// Engines have no limit of their own for network plugins, so without one a container
// would start for ever.
const DefaultTimeout = 45 * time.Second

// Options of a [Handler]. The zero value works, but forgets everything when the plugin
// ends, and engines tell nothing twice.
type Options struct {
	// Logger is told of what changes and of what fails; nil is silent.
	Logger *slog.Logger
	// Observe is told of each call that was answered; nil is nobody.
	Observe sdk.Observer
	// Timeout bounds each call to the driver; 0 is DefaultTimeout.
	Timeout time.Duration
	// State remembers networks and endpoints; see [Dir]. nil keeps them in memory alone.
	State State
}

// Handler stands between engines and a [Driver]: a [sdk.Plugin] on the one side, the only
// caller of the driver on the other. Make it with [NewHandler]. It is safe for concurrent
// use: calls for one endpoint wait for each other, calls for different endpoints never do.
type Handler struct {
	driver  Driver
	options Options
	log     *slog.Logger
	run     *bounded.Runner
	book    *book
}

var _ sdk.Plugin = (*Handler)(nil)

// NewHandler puts a Handler in front of driver: it reads what a Handler before it
// remembered, tells the driver of that if it is a [Restorer], and has it delete what
// was half made or half deleted, a failure of which is logged alone. It fails when the
// state cannot be read, or the driver cannot restore it. Each of the two takes
// [Options.Timeout] at the most; what is not deleted by then is at the next start.
//
// ctx bounds the start alone. Close the Handler when its server has stopped.
func NewHandler(ctx context.Context, driver Driver, o Options) (*Handler, error) {
	if driver == nil {
		panic("network: NewHandler without a Driver")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	h := &Handler{
		driver: driver, options: o, log: o.Logger,
		run: &bounded.Runner{Limit: o.Timeout, Log: o.Logger},
	}
	var err error
	if h.book, err = openBook(ctx, o.State); err != nil {
		return nil, err
	}
	if r, ok := driver.(Restorer); ok {
		if err := h.restore(ctx, r); err != nil {
			return nil, fmt.Errorf("restore networks: %w", err)
		}
	}
	h.sweep(ctx)
	return h, nil
}

// restore bounds Restore, of a driver that does not look at its context too.
func (h *Handler) restore(ctx context.Context, r Restorer) error {
	ctx, cancel := h.run.Context(ctx)
	defer cancel()
	_, err := bounded.Look(ctx, h.run, func(ctx context.Context) (nothing, error) { return nothing{}, r.Restore(ctx, h.Networks()) })
	return err
}

// Networks returns the networks, by the order of their IDs, and their endpoints.
func (h *Handler) Networks() []Restored {
	var list []Restored
	for _, n := range h.book.all() {
		if n.Status != ready {
			continue
		}
		r := Restored{Network: n.Network}
		for _, id := range slices.Sorted(maps.Keys(n.Endpoints)) {
			if ep := n.Endpoints[id]; ep.Status == ready {
				r.Endpoints = append(r.Endpoints, ep.endpoint())
			}
		}
		list = append(list, r)
	}
	return list
}

// Close waits for calls that still run in the driver, and closes the driver if it is an
// [io.Closer]. Networks stay as they are: their containers run on. ctx bounds the
// waiting.
func (h *Handler) Close(ctx context.Context) error {
	return errors.Join(h.run.Wait(ctx), bounded.Close(ctx, h.log, h.driver))
}

// sweep deletes what a Handler before this one had not finished, as far as it comes.
func (h *Handler) sweep(ctx context.Context) {
	ctx, cancel := h.run.Context(ctx)
	defer cancel()
	warn := func(n, ep string, err error) {
		if err != nil {
			h.log.WarnContext(ctx, "rest of an unfinished call cannot be deleted", slog.String("network", n),
				slog.String("endpoint", ep), slog.Any("error", err))
		}
	}
	for _, n := range h.book.all() {
		id := n.Network.ID
		if n.Status != ready && ctx.Err() == nil {
			warn(id, "", h.deleteNetwork(ctx, id))
			continue
		}
		for _, ep := range slices.Sorted(maps.Keys(n.Endpoints)) {
			if n.Endpoints[ep].Status != ready && ctx.Err() == nil {
				warn(id, ep, h.deleteEndpoint(ctx, id, ep))
			}
		}
	}
}

// nothing is the value of a verb that has none.
type nothing = struct{}

// do runs a verb that has no value and is not undone.
func (h *Handler) do(ctx context.Context, key, name string, f func(context.Context) error) error {
	_, err := bounded.Run(ctx, h.run, key, bounded.Verb[nothing]{
		Name: name, Do: func(ctx context.Context) (nothing, error) { return nothing{}, f(ctx) },
	})
	return err
}

// cleanUp runs f to take back what failed, in a time of its own, since that of the call
// may be over, and logs what it cannot take back.
func (h *Handler) cleanUp(ctx context.Context, network, endpoint string, f func(context.Context) error) {
	ctx, cancel := h.run.Context(context.WithoutCancel(ctx))
	defer cancel()
	if err := f(ctx); err != nil {
		h.log.WarnContext(ctx, "failed call cannot be undone", slog.String("network", network),
			slog.String("endpoint", endpoint), slog.Any("error", err))
	}
}

// gone takes ErrNotFound, from a call that undoes, for success.
func gone(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

func networkKey(id string) string           { return "network " + id }
func endpointKey(network, id string) string { return "endpoint " + network + " " + id }
func inNetwork(id string, err error) error  { return prefixed("network "+short(id), err) }
func inEndpoint(n, ep string, err error) error {
	return prefixed("network "+short(n)+": endpoint "+short(ep), err)
}

func prefixed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func unknownNetwork() error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "this plugin does not know the network"),
		"the plugin lost its state; remove the network and create it again")
}

func unknownEndpoint() error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "this plugin does not know the endpoint"),
		"restart the container")
}
