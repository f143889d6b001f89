package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// driver is the [volume.Driver] in front of a [Provider].
type driver struct {
	p    Provider
	t    Traits
	c    Config
	m    machine
	log  *slog.Logger
	x    *index
	jobs *jobs.Keeper

	pool  poolKey
	place string // whose volumes it has

	finds finder
	polls poller
	run   *os.Root // what is mounted, until a reboot

	ctx        context.Context //nolint:containedctx // that of the driver's own life, which stop ends
	stop       context.CancelFunc
	background sync.WaitGroup

	mu       sync.Mutex
	host     *Host
	leaving  map[string]*time.Timer // the detach to come, by disk
	holds    map[string]int         // mounts being made, by disk
	spent    map[string]spent
	lost     map[string]loss // volumes that were taken from this host, by name
	listed   chan struct{}   // closed after the first list
	listErr  error
	listedAt time.Time
	doubted  time.Time       // since when lists lack what they should not
	going    map[string]bool // disks that are being detached
	snaps    snapshots
}

// Open puts the core in front of a provider. The driver that it returns can what the provider
// can, and is closed by its user.
//
// Nothing is asked of the cloud before it returns: the volumes are those of the cache, and are
// listed in the background.
func Open(ctx context.Context, p Provider, c Config, env catalog.Env) (volume.Driver, error) {
	t := p.Traits()
	if t.Poll == 0 {
		t.Poll = firstPoll
	}
	if err := c.check(t); err != nil {
		return nil, err
	}
	d := &driver{
		p: p, t: t, c: c, m: machine{c.Dev, c.Sys}, log: env.Log(),
		x:       newIndex(filepath.Join(env.StateDir, "block", env.PoolName, "index.jsonl"), ownerOf(p, c)),
		leaving: map[string]*time.Timer{}, holds: map[string]int{}, lost: map[string]loss{}, spent: map[string]spent{}, going: map[string]bool{},
		listed: make(chan struct{}),
	}
	if err := neighbours.settle(d, env); err != nil {
		return nil, err
	}
	if err := d.x.load(); err != nil {
		d.log.WarnContext(ctx, "what is remembered of the volumes cannot be read", slog.Any("error", err))
	}
	run := filepath.Join(env.RunDir, "block", env.PoolName)
	if err := os.MkdirAll(run, 0o700); err != nil {
		neighbours.drop(d)
		return nil, state.Classify(err)
	}
	root, err := os.OpenRoot(run)
	if err != nil {
		neighbours.drop(d)
		return nil, state.Classify(err)
	}
	d.run = root
	d.jobs, err = jobs.Open(ctx, filepath.Join(env.StateDir, "block", env.PoolName, "jobs"), d.log, d.kinds()...)
	if err != nil {
		_ = root.Close()
		neighbours.drop(d)
		return nil, err
	}
	d.ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	d.finds.d, d.polls.d = d, d
	neighbours.put(d)
	if err := d.jobs.Resume(); err != nil { //nolint:contextcheck // jobs outlive the call
		d.log.ErrorContext(ctx, "jobs cannot be read, and do not go on", slog.Any("error", err))
	}
	d.background.Go(d.refreshLoop)
	d.background.Go(d.watchLoop)
	return d.able(), nil
}

// ownerOf says whose disks a pool has: what was remembered of another account's is not shown.
func ownerOf(p Provider, c Config) string {
	t := p.Traits()
	parts := []string{t.Client.account, t.Scope, c.Namespace}
	if o, ok := p.(Owner); ok {
		parts = append(parts, o.Owner())
	}
	return strings.Join(parts, "; ")
}

// able returns the driver with the methods that the provider is fit for.
func (d *driver) able() volume.Driver {
	_, snap := d.p.(Snapshotter)
	_, grow := d.p.(Resizer)
	switch {
	case snap && grow:
		return &both{snapshotting{d}, &resizing{d}}
	case snap:
		return &snapshotting{d}
	case grow:
		return &resizing{d}
	}
	return d
}

type both struct {
	snapshotting
	grower
}

// grower is the method of resizing alone, so that the rest of the driver is embedded once.
type grower interface {
	Resize(ctx context.Context, name string, size int64) error
}

// Close ends what goes on in the background. Mounts and attachments stay.
func (d *driver) Close() error {
	d.stop()
	neighbours.drop(d)
	d.mu.Lock()
	for _, t := range d.leaving {
		t.Stop()
	}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(d.ctx), 10*time.Second, errors.New("gave up after 10s"))
	defer cancel()
	err := d.jobs.Close(ctx)
	ended := make(chan struct{})
	go func() {
		d.background.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done(): // a call to the cloud, or to the kernel, that does not come back
		err = errors.Join(err, fmt.Errorf("what goes on in the background does not end: %w", context.Cause(ctx)))
	}
	neighbours.drop(d)
	err = errors.Join(err, d.x.save())
	d.x.close()
	if c, ok := d.p.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return errors.Join(err, d.run.Close())
}

// Scope is global: a volume is there for all hosts of the account.
func (d *driver) Scope() string { return "global" }

// Ping returns what the last list of the cloud came to. It asks nobody.
func (d *driver) Ping(ctx context.Context) error {
	select {
	case <-d.listed:
	case <-ctx.Done():
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s has not answered yet", d.t.Scope)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.listErr
}

// who returns who this host is.
func (d *driver) who(ctx context.Context) (Host, error) {
	d.mu.Lock()
	h := d.host
	d.mu.Unlock()
	if h != nil {
		return *h, nil
	}
	self, err := call(ctx, d.p.Self)
	if err != nil {
		return Host{}, errdefs.Hint(fmt.Errorf("which host this is cannot be found out: %w", err), "a volume can be attached only where the daemon runs on a machine of this cloud")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host = &self
	return self, nil
}

// forgetSelf has the cloud asked again who this host is.
func (d *driver) forgetSelf() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host = nil
}

// me returns the host as far as it is known already.
func (d *driver) me() (Host, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host == nil {
		return Host{}, false
	}
	return *d.host, true
}

// callLimit bounds one request to the cloud.
const callLimit = 60 * time.Second

func call[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callLimit, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the cloud does not answer within %s", callLimit), noRoute("")))
	defer cancel()
	v, err := f(ctx)
	if err != nil && ctx.Err() != nil && errdefs.Class(err) == nil {
		err = errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("the cloud does not answer: %w", context.Cause(ctx)))
	}
	return v, err
}

// again makes a request until it gets an answer: a few times, and where a job was cut off and its
// effect may be half there already, as long as the job may take.
func again[T any](ctx context.Context, r *jobs.Run, f func(context.Context) (T, error)) (T, error) {
	wait := 200 * time.Millisecond
	for n := 1; ; n++ {
		v, err := call(ctx, f)
		if err == nil || !errors.Is(err, errdefs.ErrUnavailable) || ctx.Err() != nil || n == 5 && !r.Resumed() {
			r.Trouble(nil)
			return v, err
		}
		r.Trouble(err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return v, errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("%w (%w)", context.Cause(ctx), err))
		}
		wait = min(2*wait, 30*time.Second)
	}
}

// just is for requests without a result.
func just(f func(context.Context) error) func(context.Context) (struct{}, error) {
	return func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) }
}

// margin is how much sooner than its caller a call gives up, so that its own words are heard.
const margin = 3 * time.Second

// do runs a job, and comes back in time with or without its end.
func (d *driver) do(ctx context.Context, kind, object, key string, data any) error {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, end.Add(-margin), errors.New("this call cannot wait any longer"))
		defer cancel()
	}
	return d.jobs.Do(ctx, kind, object, key, data)
}

func (d *driver) kinds() []jobs.Kind {
	return []jobs.Kind{
		{Name: jobCreate, Do: d.create},
		{Name: jobAttach, Volatile: true, Do: d.attach},
		{Name: jobDetach, Volatile: true, Do: d.detach},
		{Name: jobRemove, Do: d.remove},
		{Name: jobResize, Do: d.resize},
		{Name: jobSnapshot, Do: d.snapshot},
		{Name: jobRollback, Do: d.rollback},
		{Name: jobClone, Do: d.clone},
		{Name: jobOpen, Volatile: true, Do: d.open},
		{Name: jobMove, Limit: moveLimit, Do: d.move},
	}
}

// The kinds of jobs.
const (
	jobCreate   = "create"
	jobAttach   = "attach"
	jobDetach   = "detach"
	jobRemove   = "remove"
	jobResize   = "resize"
	jobSnapshot = "snapshot"
	jobRollback = "rollback"
	jobClone    = "clone"
	jobOpen     = "open"
	jobMove     = "move"
)

// Jobs returns what goes on, and what has failed lately.
func (d *driver) Jobs() []volume.Job {
	all := d.jobs.Jobs()
	out := make([]volume.Job, len(all))
	for i, j := range all {
		out[i] = volume.Job(j)
	}
	return out
}
