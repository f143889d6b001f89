package blocktest

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Faults stand between the core and a provider, as what happens on the way to a cloud.
type Faults struct {
	mu     sync.Mutex
	before func(op string) error
	after  func(op string) error
	token  string // what the tokens of this host end in, as if they were of another minute
	poll   time.Duration
	dead   bool
	died   chan struct{}
	ops    []string
	inside time.Duration // the calls, in all
}

// Set has every call ask before it is made, and after it had its effect, whether it fails. Either
// may be nil.
func (f *Faults) Set(before, after func(op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

// Ops returns the calls that were made since it was asked last.
func (f *Faults) Ops() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	ops := f.ops
	f.ops = nil
	return ops
}

// spent returns how long calls took since it was asked last, one after the other.
func (f *Faults) spent() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	took := f.inside
	f.inside = 0
	return took
}

// die has no call come to an end any more: the process is dead.
func (f *Faults) die() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dead {
		f.dead = true
		close(f.died)
	}
}

func (f *Faults) isDead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

func newFaults() *Faults { return &Faults{died: make(chan struct{})} }

func hook[T any](ctx context.Context, f *Faults, op string, do func() (T, error)) (T, error) {
	var none T
	f.mu.Lock()
	before, after := f.before, f.after
	if !f.dead {
		f.ops = append(f.ops, op)
	}
	f.mu.Unlock()
	if before != nil && !f.isDead() {
		if err := before(op); err != nil {
			return none, err
		}
	}
	if f.isDead() {
		<-ctx.Done()
		return none, context.Cause(ctx)
	}
	began := time.Now()
	v, err := do()
	f.mu.Lock()
	f.inside += time.Since(began)
	f.mu.Unlock()
	if err == nil && after != nil && !f.isDead() {
		if err := after(op); err != nil {
			return none, err
		}
	}
	if f.isDead() {
		<-ctx.Done()
		return none, context.Cause(ctx)
	}
	return v, err
}

func hookErr(ctx context.Context, f *Faults, op string, do func() error) error {
	_, err := hook(ctx, f, op, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// Wrap puts faults in front of a provider, which can what it could.
func (f *Faults) Wrap(p block.Provider) block.Provider {
	w := &faulty{p, f}
	s, snaps := p.(block.Snapshotter)
	r, grows := p.(block.Resizer)
	b, rolls := p.(block.Rollbacker)
	c, copies := p.(block.SnapshotCopier)
	switch {
	case snaps && grows && rolls && copies:
		return &faultyRollCopy{&faultyRoll{&faultySnap{w, s, r}, b}, faultyCopy{f, c}}
	case snaps && grows && copies:
		return &faultySnapCopy{&faultySnap{w, s, r}, faultyCopy{f, c}}
	case snaps && grows && rolls:
		return &faultyRoll{&faultySnap{w, s, r}, b}
	case snaps && grows:
		return &faultySnap{w, s, r}
	}
	return w
}

type faulty struct {
	block.Provider
	f *Faults
}

func (w *faulty) Traits() block.Traits {
	t := w.Provider.Traits()
	if w.f.poll > 0 {
		t.Poll = w.f.poll
	}
	return t
}

func (w *faulty) Self(ctx context.Context) (block.Host, error) {
	return hook(ctx, w.f, "Self", func() (block.Host, error) { return w.Provider.Self(ctx) })
}

func (w *faulty) List(ctx context.Context, q block.Query) ([]block.Disk, error) {
	return hook(ctx, w.f, "List", func() ([]block.Disk, error) { return w.Provider.List(ctx, q) })
}

func (w *faulty) Create(ctx context.Context, s block.Spec) (block.Disk, error) {
	if w.f.token != "" {
		s.UUID = s.UUID[:len(s.UUID)-len(w.f.token)] + w.f.token
		s.Tags = maps.Clone(s.Tags)
		s.Tags[block.TagUUID] = s.UUID
	}
	return hook(ctx, w.f, "Create", func() (block.Disk, error) { return w.Provider.Create(ctx, s) })
}

func (w *faulty) Delete(ctx context.Context, d block.Disk) error {
	return hookErr(ctx, w.f, "Delete", func() error { return w.Provider.Delete(ctx, d) })
}

func (w *faulty) Attach(ctx context.Context, d block.Disk, self block.Host) error {
	return hookErr(ctx, w.f, "Attach", func() error { return w.Provider.Attach(ctx, d, self) })
}

func (w *faulty) Detach(ctx context.Context, d block.Disk, host string, force bool) error {
	return hookErr(ctx, w.f, "Detach", func() error { return w.Provider.Detach(ctx, d, host, force) })
}

func (w *faulty) SetTags(ctx context.Context, d block.Disk, tags block.Tags) error {
	return hookErr(ctx, w.f, "SetTags", func() error { return w.Provider.SetTags(ctx, d, tags) })
}

func (w *faulty) Gone(ctx context.Context, host string) (bool, error) {
	p, ok := w.Provider.(block.Prober)
	if !ok {
		return false, nil
	}
	return hook(ctx, w.f, "Gone", func() (bool, error) { return p.Gone(ctx, host) })
}

func (w *faulty) Find(ctx context.Context, ref string) ([]block.Foreign, error) {
	p, ok := w.Provider.(block.Finder)
	if !ok {
		return nil, errdefs.Errorf(errdefs.ErrUnsupported, "the provider finds nothing")
	}
	return hook(ctx, w.f, "Find", func() ([]block.Foreign, error) { return p.Find(ctx, ref) })
}

func (w *faulty) Adopt(ctx context.Context, d block.Foreign, tags block.Tags) error {
	p, ok := w.Provider.(block.Finder)
	if !ok {
		return errdefs.Errorf(errdefs.ErrUnsupported, "the provider finds nothing")
	}
	return hookErr(ctx, w.f, "Adopt", func() error { return p.Adopt(ctx, d, tags) })
}

type faultySnap struct {
	*faulty
	s block.Snapshotter
	r block.Resizer
}

func (w *faultySnap) Snapshots(ctx context.Context, q block.Query) ([]block.Snapshot, error) {
	return hook(ctx, w.f, "Snapshots", func() ([]block.Snapshot, error) { return w.s.Snapshots(ctx, q) })
}

func (w *faultySnap) CreateSnapshot(ctx context.Context, d block.Disk, tags block.Tags) (block.Snapshot, error) {
	return hook(ctx, w.f, "CreateSnapshot", func() (block.Snapshot, error) { return w.s.CreateSnapshot(ctx, d, tags) })
}

func (w *faultySnap) DeleteSnapshot(ctx context.Context, s block.Snapshot) error {
	return hookErr(ctx, w.f, "DeleteSnapshot", func() error { return w.s.DeleteSnapshot(ctx, s) })
}

func (w *faultySnap) Resize(ctx context.Context, d block.Disk, size int64) error {
	return hookErr(ctx, w.f, "Resize", func() error { return w.r.Resize(ctx, d, size) })
}

func (w *faultySnap) Online() bool { return w.r.Online() }

type faultyRoll struct {
	*faultySnap
	b block.Rollbacker
}

func (w *faultyRoll) Rollback(ctx context.Context, d block.Disk, s block.Snapshot) error {
	return hookErr(ctx, w.f, "Rollback", func() error { return w.b.Rollback(ctx, d, s) })
}

type faultyCopy struct {
	to *Faults
	c  block.SnapshotCopier
}

func (w faultyCopy) CopySnapshot(ctx context.Context, s block.Snapshot, from block.Traits, tags block.Tags) (block.Snapshot, error) {
	return hook(ctx, w.to, "CopySnapshot", func() (block.Snapshot, error) { return w.c.CopySnapshot(ctx, s, from, tags) })
}

type faultySnapCopy struct {
	*faultySnap
	faultyCopy
}

type faultyRollCopy struct {
	*faultyRoll
	faultyCopy
}
