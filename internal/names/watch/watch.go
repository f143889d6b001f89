// Package watch writes the records of the names of an engine's containers. A driver is never told what a container
// is called, so the engine is asked: its events say where to look, and what is found there
// counts. All containers are looked at when the stream of events begins anew, and every minute.
package watch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/names"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	resync    = time.Minute
	again     = 2 * time.Second  // after which what failed is tried again
	lookTime  = 10 * time.Second // for one container
	minPause  = 100 * time.Millisecond
	maxPause  = 5 * time.Second // between two tries to reach the engine
	maxDirty  = 10_000          // of containers to look at, before it is simply all of them
	maxLooks  = 8               // at a time: one that the engine is busy with must not hold up the others
	everybody = ""              // stands for all containers among those to look at
)

// Config is what a watcher stands on.
type Config struct {
	Engine engine.Engine
	// Key begins the names of the records, so that several engines of a host do not touch each other's. Empty is
	// what the engine's socket is called; [Keys] makes them for several.
	Key     string
	Domains []string
	// Network tells which network of the cluster one of the engine's is, if it is one. The engine may be
	// asked nothing meanwhile.
	Network func(engine.Network) (id string, ok bool)
	Store   names.Writer
	Log     *slog.Logger
}

// OfDriver is a Config.Network for the networks of a driver, which an engine may know by its tag as a managed plugin: id tells
// the network of the cluster that has a name.
func OfDriver(driver string, id func(name string) (string, bool)) func(engine.Network) (string, bool) {
	return func(n engine.Network) (string, bool) {
		if (engine.Volume{Driver: n.Driver}).Pool() != driver {
			return "", false
		}
		return id(n.Name)
	}
}

// Watcher watches one engine.
type Watcher struct {
	cfg  Config
	kick chan struct{}

	mu       sync.Mutex
	dirty    map[string]bool
	failed   map[string]bool
	busy     map[string]bool
	mine     map[string]map[string]bool // keys of records, by the container
	networks map[string]engine.Network  // by ID and by name
	up       bool
}

// New returns a watcher. Run does the work.
func New(cfg Config) *Watcher {
	if cfg.Key == "" {
		cfg.Key = base(cfg.Engine.Socket)
	}
	if len(cfg.Domains) == 0 {
		cfg.Domains = []string{names.DefaultDomain}
	}
	return &Watcher{
		cfg: cfg, kick: make(chan struct{}, 1),
		dirty: map[string]bool{}, failed: map[string]bool{}, busy: map[string]bool{}, mine: map[string]map[string]bool{},
		networks: map[string]engine.Network{},
	}
}

// Up reports whether the engine's events are coming in.
func (w *Watcher) Up() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.up
}

// Resync has all containers looked at, for one who knows that something has changed: a network, say.
func (w *Watcher) Resync() { w.mark(everybody) }

// Run keeps the records as the containers are, until ctx ends. The records stay then: the containers do, too. While the
// engine is away they stay as well.
func (w *Watcher) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { w.listen(ctx) })
	every := time.NewTicker(resync)
	defer every.Stop()
	retry := time.NewTicker(again)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
		case <-every.C:
			w.mark(everybody)
		case <-retry.C:
			w.retry()
		}
		for {
			id, ok := w.next()
			if !ok {
				break
			}
			all.Go(func() { w.look(ctx, id) })
		}
	}
}

// listen reads events for as long as it may, and waits for an engine that is not there.
func (w *Watcher) listen(ctx context.Context) {
	pause := minPause
	for ctx.Err() == nil {
		err := w.cfg.Engine.Events(ctx, []string{"container", "network"}, func() {
			pause = minPause
			w.setUp(true)
			w.mark(everybody) // whatever happened while nobody listened
		}, w.event)
		if w.setUp(false) && ctx.Err() == nil {
			w.cfg.Log.WarnContext(ctx, "names: the engine's events have ended", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		}
	}
}

// setUp returns what it was before.
func (w *Watcher) setUp(up bool) (was bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, w.up = w.up, up
	return was
}

// event notes where to look. It does nothing else: an engine drops events that are not taken at once.
func (w *Watcher) event(ev engine.Event) {
	id := ev.Container()
	switch {
	case ev.Type == "network" && id == "":
		w.mu.Lock()
		clear(w.networks) // one was made or removed
		w.mu.Unlock()
	case id == "", strings.HasPrefix(ev.Action, "exec_"), strings.HasPrefix(ev.Action, "health_status"), ev.Action == "top", ev.Action == "attach", ev.Action == "resize":
	default:
		w.mark(id)
	}
}

func (w *Watcher) mark(id string) {
	w.mu.Lock()
	if w.dirty[id] = true; len(w.dirty) > maxDirty {
		clear(w.dirty)
		w.dirty[everybody] = true
	}
	w.mu.Unlock()
	w.wake()
}

func (w *Watcher) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *Watcher) retry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.failed {
		w.dirty[id] = true
	}
	clear(w.failed)
	if len(w.dirty) > 0 {
		w.wake()
	}
}

// next takes one that is to be looked at and that nobody looks at now.
func (w *Watcher) next() (id string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.busy) >= maxLooks {
		return "", false
	}
	for id := range w.dirty {
		if !w.busy[id] {
			delete(w.dirty, id)
			w.busy[id] = true
			return id, true
		}
	}
	return "", false
}

// look makes the records of a container as it is now, or finds all that there are.
func (w *Watcher) look(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var err error
	if id == everybody {
		err = w.all(ctx)
	} else {
		err = w.one(ctx, id)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.busy, id)
	if err != nil && !errors.Is(err, context.Canceled) {
		w.failed[id] = true
		if w.up {
			w.cfg.Log.WarnContext(ctx, "names: a container could not be looked at, which is tried again", "container", id, "error", err)
		}
	}
	w.wake()
}

// all has every container looked at that runs, and every one that has a record.
func (w *Watcher) all(ctx context.Context) error {
	if err := w.load(ctx); err != nil {
		return err
	}
	ids, err := w.cfg.Engine.Running(ctx)
	if err != nil {
		return err
	}
	records := w.cfg.Store.Records(record.KindName)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range records {
		if key, ours := strings.CutPrefix(r.Name, w.cfg.Key+"/"); ours && r.Writer == w.cfg.Store.Self() {
			id, _, _ := strings.Cut(key, "/")
			if w.mine[id] == nil {
				w.mine[id] = map[string]bool{}
			}
			w.mine[id][r.Name] = true
			w.dirty[id] = true
		}
	}
	for _, id := range ids {
		w.dirty[id] = true
	}
	return nil
}

// load asks the engine for its networks.
func (w *Watcher) load(ctx context.Context) error {
	list, err := w.cfg.Engine.Networks(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.networks)
	for _, n := range list {
		w.networks[n.Name], w.networks[n.ID] = n, n
	}
	return nil
}

// network finds one that a container is in.
func (w *Watcher) network(ctx context.Context, name, id string) (engine.Network, error) {
	for range 2 {
		w.mu.Lock()
		n, ok := w.networks[id]
		if !ok {
			n, ok = w.networks[name]
		}
		w.mu.Unlock()
		if ok {
			return n, nil
		}
		if err := w.load(ctx); err != nil {
			return engine.Network{}, err
		}
	}
	return engine.Network{}, nil // it has been removed since
}

// one writes the records of a container, and removes those that it has no more.
func (w *Watcher) one(ctx context.Context, id string) error {
	c, err := w.cfg.Engine.Attached(ctx, id)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	want := map[string]record.Name{}
	if err == nil && c.Running {
		for name, ep := range c.Networks {
			n, err := w.network(ctx, name, ep.NetworkID)
			if err != nil {
				return err
			}
			network, ok := "", false
			if n.ID != "" {
				network, ok = w.cfg.Network(n)
			}
			if ok {
				if body := describe(c, ep, network, w.cfg.Domains); len(body.Names) > 0 && len(body.Addresses) > 0 {
					want[w.cfg.Key+"/"+id+"/"+network] = body
				}
			}
		}
	}
	return w.write(id, want)
}

// write is called for one container at a time.
func (w *Watcher) write(id string, want map[string]record.Name) error {
	w.mu.Lock()
	had := maps.Clone(w.mine[id])
	w.mu.Unlock()
	have := map[string]bool{}
	var errs []error
	for key, body := range want {
		have[key] = true
		errs = append(errs, w.cfg.Store.Put(record.KindName, key, body))
	}
	for key := range had {
		if _, wanted := want[key]; wanted {
			continue
		}
		if err := w.cfg.Store.Delete(record.KindName, key); err != nil {
			have[key] = true
			errs = append(errs, err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mine[id] = have; len(have) == 0 {
		delete(w.mine, id)
	}
	return errors.Join(errs...)
}
