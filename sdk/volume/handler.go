package volume

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// Handler stands between engines and a [Driver]: a [sdk.Plugin] on the one side, the
// only caller of the driver on the other. Make it with [NewHandler].
//
// Its methods in domain terms are what the wire uses, and are there for a program that
// has the volumes in its own hands, such as a command line. All are safe for
// concurrent use and idempotent; calls for one volume wait for each other, calls for
// different volumes never do.
type Handler struct {
	driver      Driver
	options     Options
	log         *slog.Logger
	index       *index
	mounts      *mounts
	mountpoints mountpoints
	answer      answer
	listing     chan struct{} // full while the driver lists its volumes
	runner      *bounded.Runner
	stop        context.CancelCauseFunc
	background  sync.WaitGroup // ends soon after stop
}

// Volume is what a Handler knows of a volume: the driver's [Info], where it is mounted
// now, and for whom.
type Volume struct {
	Info
	// Mounts is nil while nobody has the volume mounted.
	Mounts []MountRef
}

// MountRef is one mount ID that has a volume mounted, and how often.
type MountRef struct {
	ID    string
	Count int
	Since time.Time
}

// NewHandler puts a Handler in front of driver. It reads the ledger, lists the volumes,
// and takes back what a crash left mounted. Storage that is out of reach does not fail
// it, nor keep it for more than 10 seconds: the Handler goes on in the background until it
// answers. It fails when the ledger is kept by
// another process (ErrInUse) or the mount root cannot be used.
//
// ctx bounds the start alone. Close the Handler when its server has stopped.
func NewHandler(ctx context.Context, driver Driver, o Options) (*Handler, error) {
	o = o.withDefaults()
	h := &Handler{
		driver:      driver,
		options:     o,
		log:         o.Logger,
		index:       newIndex(),
		mountpoints: newMountpoints(o.MountRoot, o.GuardMountpoints),
		listing:     make(chan struct{}, 1),
		runner:      &bounded.Runner{Log: o.Logger},
	}
	if err := h.mountpoints.open(); err != nil {
		return nil, err
	}
	l, err := openLedger(o.Ledger)
	if err != nil {
		return nil, err
	}
	h.mounts = newMounts(l)
	background, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	h.stop = stop
	orphans, err := h.dropOrphans(background)
	if err != nil {
		stop(errStopped)
		return nil, errors.Join(err, l.close())
	}
	h.start(ctx, orphans)
	if o.Refresh > 0 {
		h.background.Go(func() { h.refreshLoop(background) })
	}
	return h, nil
}

// startTime bounds how long a start waits for storage that does not answer: an engine
// that finds no plugin gives up after 15 seconds.
const startTime = 10 * time.Second

// start lists the volumes and waits until there are no orphans any more, and is cut short
// where the listing will be made again anyway.
func (h *Handler) start(ctx context.Context, orphans <-chan struct{}) {
	if h.options.Refresh > 0 {
		var cancel context.CancelFunc
		ctx, cancel = h.limit(ctx, startTime)
		defer cancel()
	}
	if err := h.RefreshNow(ctx); err != nil {
		h.log.WarnContext(ctx, "volumes cannot be listed yet", slog.Any("error", err))
	}
	select {
	case <-orphans:
	case <-ctx.Done():
		h.log.WarnContext(ctx, "rest of a crash is not unmounted yet", slog.Any("error", context.Cause(ctx)))
	}
}

// Close waits for calls that still run in the driver, gives up lingering, and closes
// the ledger and the driver, if it is an [io.Closer]. Volumes that are mounted stay
// mounted: their containers run on. ctx bounds the waiting, for calls and for the driver.
func (h *Handler) Close(ctx context.Context) error {
	h.stop(errStopped)
	h.mounts.stopLingering()
	h.background.Wait()
	err := h.runner.Wait(ctx)
	if err != nil {
		err = fmt.Errorf("close: %w", err)
	}
	return errors.Join(err, h.mounts.ledger.close(), bounded.Close(ctx, h.log, h.driver))
}

// CloseDriver closes a driver that came to no Handler, as [Handler.Close] would have.
func CloseDriver(ctx context.Context, driver Driver) error {
	return bounded.Close(ctx, slog.New(slog.DiscardHandler), driver)
}

// Scope returns "local" or "global".
func (h *Handler) Scope() string {
	if s, ok := h.driver.(Scoper); ok && s.Scope() == "global" {
		return "global"
	}
	return "local"
}

// Ping tells whether the driver's storage is in reach; a driver that cannot tell is
// asked for its volumes.
func (h *Handler) Ping(ctx context.Context) error {
	ctx, cancel := h.limit(ctx, h.options.ShortTimeout)
	defer cancel()
	if p, ok := h.driver.(Pinger); ok {
		_, err := bounded.Look(ctx, h.runner, func(ctx context.Context) (struct{}, error) { return struct{}{}, p.Ping(ctx) })
		return redact(err, nil)
	}
	if _, loaded := h.index.list(); !loaded {
		return errdefs.Errorf(errdefs.ErrUnavailable, "volumes have not been listed yet")
	}
	return nil
}

// Create makes the volume, or adopts one that exists.
func (h *Handler) Create(ctx context.Context, name string, opts map[string]string) error {
	if err := h.options.CheckName(name); err != nil {
		return err
	}
	if opts == nil {
		opts = map[string]string{}
	}
	if _, ok := opts[h.options.MakeOption]; ok && h.options.MakeOption != "" {
		return redact(h.options.Make(ctx, name, opts), opts)
	}
	_, err := run(ctx, h, name, bounded.Verb[struct{}]{Name: "create", Limit: h.options.LongTimeout, Do: func(ctx context.Context) (struct{}, error) {
		return struct{}{}, redact(h.withOwn(ctx, name, opts, func(opts map[string]string) error { return h.create(ctx, name, opts) }), opts)
	}})
	return err
}

func (h *Handler) create(ctx context.Context, name string, opts map[string]string) error {
	if from, ok := h.cloneOf(opts); ok {
		return h.createFrom(ctx, name, from, opts)
	}
	if err := h.driver.Create(ctx, name, opts); err != nil {
		return err
	}
	return h.made(ctx, name)
}

// made takes a volume into memory that the driver has just made, or adopted.
func (h *Handler) made(ctx context.Context, name string) error {
	info, known := h.index.get(name)
	info.Name = name
	if i, ok := h.driver.(Inspector); ok {
		seen, err := i.Inspect(ctx, name)
		if err != nil {
			return fmt.Errorf("made, but not there: %w", err)
		}
		info = seen
		info.Name = name
	}
	h.index.put(info)
	if !known {
		h.log.InfoContext(ctx, "volume created", slog.String("volume", name))
	}
	return nil
}

// Remove destroys the volume, or brings it into the trash. It is ErrInUse while the volume is mounted and
// ErrNotFound when there is none.
func (h *Handler) Remove(ctx context.Context, name string) error {
	if err := h.options.CheckName(name); err != nil {
		return err
	}
	_, err := run(ctx, h, name, bounded.Verb[struct{}]{Name: "remove", Limit: h.options.ShortTimeout, Do: func(ctx context.Context) (struct{}, error) {
		return struct{}{}, h.remove(ctx, name, h.discard)
	}})
	return err
}

// mayUse refuses a volume that is not whole.
func (h *Handler) mayUse(ctx context.Context, name string) error {
	if h.options.MayUse == nil {
		return nil
	}
	return h.options.MayUse(ctx, name)
}

// unused makes sure that nobody has the volume mounted: ErrInUse where somebody has, and an
// unmount now where it only lingers.
func (h *Handler) unused(ctx context.Context, name string) error {
	if err := h.dropStale(ctx, name, min(removeGrace, h.options.MountGrace)); err != nil {
		return err
	}
	rec := h.mounts.get(name)
	if err := rec.inUse(); err != nil {
		return err
	}
	if rec.Mountpoint == "" {
		return nil
	}
	return h.unmount(ctx, name, rec.Mountpoint)
}

func (h *Handler) remove(ctx context.Context, name string, discard func(context.Context, string) error) error {
	partial := h.mayUse(ctx, name) != nil
	if h.options.MayRemove != nil {
		if err := h.options.MayRemove(ctx, name); err != nil {
			return err
		}
	}
	if err := h.unused(ctx, name); err != nil {
		return err
	}
	// Only what is not whole from first to last: one that begins to be filled meanwhile, or
	// whose filling has just ended, is no less worth keeping than any other.
	if partial && h.mayUse(ctx, name) != nil {
		discard = h.driver.Remove
	}
	err := discard(ctx, name)
	if err == nil || errors.Is(err, errdefs.ErrNotFound) {
		h.index.drop(name)
		if h.options.Removed != nil {
			h.options.Removed(ctx, name)
		}
	}
	if err == nil {
		h.log.InfoContext(ctx, "volume removed", slog.String("volume", name))
	}
	return err
}

// Get returns the volume from memory, or from the driver where memory has none. It is
// ErrNotFound only when the driver is in reach and has no such volume; otherwise
// ErrUnavailable or the end of a time limit.
func (h *Handler) Get(ctx context.Context, name string) (Volume, error) {
	if err := h.options.CheckName(name); err != nil {
		// No volume can have this name, and to ask for it is no mistake of an engine.
		return Volume{}, errdefs.As(errdefs.ErrNotFound, err)
	}
	if info, ok := h.index.get(name); ok {
		if s, ok := h.driver.(Stater); ok {
			if status, known := s.Status(name); known {
				info.Status = status
			}
		}
		return h.volume(info), nil
	}
	ctx, cancel := h.limit(ctx, h.options.ShortTimeout)
	defer cancel()
	since := h.index.begin()
	defer h.index.end()
	info, err := bounded.Look(ctx, h.runner, func(ctx context.Context) (Info, error) { return h.inspect(ctx, name) })
	if err != nil {
		return Volume{}, named(name, err)
	}
	h.index.found(since, info)
	return h.volume(info), nil
}

// List yields every volume by name, from memory. Its only error is ErrUnavailable,
// before the driver has been heard of once.
func (h *Handler) List(_ context.Context) iter.Seq2[Volume, error] {
	return func(yield func(Volume, error) bool) {
		all, loaded := h.index.list()
		if !loaded {
			yield(Volume{}, errNotListed())
			return
		}
		for _, info := range all {
			if !yield(h.volume(info), nil) {
				return
			}
		}
	}
}

// errNotListed says that there is no memory to answer from.
func errNotListed() error {
	return errdefs.Errorf(errdefs.ErrUnavailable, "volumes have not been listed yet: the storage is out of reach")
}

// volume adds what the ledger knows to info.
func (h *Handler) volume(info Info) Volume {
	rec := h.mounts.get(info.Name)
	if rec.Mountpoint != "" {
		info.Mountpoint = rec.Mountpoint
	}
	return Volume{Info: info, Mounts: rec.list()}
}

// inspect asks the driver for one volume.
func (h *Handler) inspect(ctx context.Context, name string) (Info, error) {
	if i, ok := h.driver.(Inspector); ok {
		info, err := i.Inspect(ctx, name)
		info.Name = name
		return info, err
	}
	for info, err := range h.driver.Volumes(ctx) {
		if err != nil {
			return Info{}, err
		}
		if info.Name == name {
			return info, nil
		}
	}
	return Info{}, errdefs.Errorf(errdefs.ErrNotFound, "no such volume")
}

// limit bounds ctx with a cause that a user can read.
func (h *Handler) limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, errdefs.Errorf(context.DeadlineExceeded, "gave up after %s: the storage does not answer", d))
}

// named puts the volume's name in front of err, and hides what secrets it shows.
func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("volume %q: %w", name, redact(err, nil))
}
