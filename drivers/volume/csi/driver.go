package csi

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/kubeshim"
	"github.com/remora-plugins/remora/internal/csi/launch"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// driver is the volume driver of one pool.
type driver struct {
	c     config
	s     settings
	log   *slog.Logger
	run   *launch.Process
	kube  *kubeshim.Shim // nil without one
	conn  *conn.Driver
	store *store
	jobs  *jobs.Keeper
	dir   string // below which staging and target paths are
	pace  pace

	attaches, makes, single limit
	grouping                limit // of who makes snapshots of several volumes
	looks                   looks
	lasting                 []string // file systems that may stay mounted

	ctx        context.Context //nolint:containedctx // that of the driver's own life, which stop ends
	stop       context.CancelFunc
	background sync.WaitGroup

	mu      sync.Mutex
	leaving map[string]*time.Timer // the way down to come, by volume
}

var (
	_ volume.Inspector        = (*driver)(nil)
	_ volume.Stater           = (*driver)(nil)
	_ volume.Scoper           = (*driver)(nil)
	_ volume.Pinger           = (*driver)(nil)
	_ volume.Worker           = (*driver)(nil)
	_ volume.Rollbacker       = (*driver)(nil)
	_ volume.Snapshotter      = (*driver)(nil)
	_ volume.GroupSnapshotter = (*driver)(nil)
	_ volume.SnapshotOpener   = (*driver)(nil)
	_ volume.Cloner           = (*driver)(nil)
	_ volume.Sizer            = (*driver)(nil)
	_ volume.Resizer          = (*driver)(nil)
	_ volume.Attacher         = (*driver)(nil)
	_ volume.Trasher          = (*driver)(nil)
)

// start opens a pool. The CSI driver is not asked anything before it returns.
func start(ctx context.Context, c config, s settings, env catalog.Env) (*driver, error) {
	d := &driver{
		c: c, s: s, log: env.Log(), pace: s.pace, leaving: map[string]*time.Timer{},
		attaches: make(limit, maxAttaching), makes: make(limit, maxMaking), single: make(limit, 1), grouping: make(limit, 1), lasting: networkFS,
		dir: filepath.Join(env.RunDir, "csi", env.PoolName, "m"),
	}
	var err error
	if d.store, err = openStore(env); err != nil {
		return nil, err
	}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(err, d.store.close())
	}
	if err := d.store.load(d.log); err != nil {
		return nil, errors.Join(err, d.store.close())
	}
	if err := d.launch(ctx, env); err != nil {
		return nil, errors.Join(err, d.store.close())
	}
	d.jobs, err = jobs.Open(ctx, filepath.Join(env.StateDir, "csi", env.PoolName, "jobs"), d.log, d.kinds()...)
	if err != nil {
		return nil, errors.Join(err, d.letGo(), d.store.close())
	}
	d.conn = conn.Open(conn.Config{
		Controller: d.run.Controller(), Node: d.run.Endpoint(), Name: c.Name, Timeouts: s.timeouts, Quirks: s.quirks, Log: d.log, Pool: env.PoolName,
	})
	d.ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := d.jobs.Resume(); err != nil { //nolint:contextcheck // jobs outlive the call
		d.log.ErrorContext(ctx, "jobs cannot be read, and do not go on", slog.Any("error", err))
	}
	d.recover()
	return d, nil
}

// Close ends what goes on in the background. What is mounted and attached stays.
func (d *driver) Close() error {
	d.stop()
	d.mu.Lock()
	for _, t := range d.leaving {
		t.Stop()
	}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(d.ctx), 10*time.Second, errors.New("gave up after 10s"))
	defer cancel()
	err := d.jobs.Close(ctx)
	err = errors.Join(err, d.conn.Close())
	d.background.Wait() // for jobs that have ended
	err = errors.Join(err, d.letGo())
	if d.c.Kind() == launch.External {
		err = errors.Join(err, d.unprepare())
	} // any other runs on, and has the directory as it is
	return errors.Join(err, d.store.close())
}

// Scope is local: the records of the volumes are this host's.
func (d *driver) Scope() string { return "local" }

// margin is how much sooner than its caller a call gives up, so that its own words are heard.
const margin = 3 * time.Second

// do runs a job, and comes back in time with or without its end.
func (d *driver) do(ctx context.Context, kind, object, key string, data any) error {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, end.Add(-min(margin, time.Until(end)/4)), errors.New("this call cannot wait any longer"))
		defer cancel()
	}
	return d.jobs.Do(ctx, kind, object, key, data)
}

// The kinds of jobs. None has a file: the records of volumes and snapshots say what there is to finish.
const (
	jobCreate     = "create"
	jobMount      = "mount"
	jobUnmount    = "unmount"
	jobDetach     = "detach"
	jobRemove     = "remove"
	jobSnapshot   = "snapshot"
	jobUnsnapshot = "remove snapshot"
	jobGroup      = "snapshots"
	jobUngroup    = "remove snapshots"
	jobClone      = "clone"
	jobRollback   = "rollback"
	jobResize     = "resize"
	jobAttach     = "attach"
	jobOpen       = "open"
	jobClose      = "close"
	jobTrash      = "trash"
	jobForget     = "forget"
	jobResume     = "resume"
	jobTidy       = "tidy"
)

func (d *driver) kinds() []jobs.Kind {
	all := []jobs.Kind{
		{Name: jobCreate, Do: d.create},
		{Name: jobMount, Do: d.raise},
		{Name: jobUnmount, Do: d.unstage},
		{Name: jobDetach, Do: d.detach},
		{Name: jobRemove, Do: d.remove},
		{Name: jobSnapshot, Do: d.snapshot},
		{Name: jobUnsnapshot, Do: d.unsnapshot},
		{Name: jobGroup, Do: d.groupJob},
		{Name: jobUngroup, Do: d.mendGroupsJob},
		{Name: jobClone, Do: d.clone},
		{Name: jobRollback, Do: d.rollback},
		{Name: jobResize, Do: d.resize},
		{Name: jobAttach, Do: d.fetch},
		{Name: jobOpen, Do: d.openHidden},
		{Name: jobClose, Do: d.remove},
		{Name: jobTrash, Do: d.trash},
		{Name: jobForget, Do: d.forgetJob},
		{Name: jobResume, Do: d.resumeJob},
		{Name: jobTidy, Do: d.tidy},
	}
	for i := range all {
		all[i].Volatile = true
	}
	return all
}

// Jobs returns what goes on, and what has failed lately.
func (d *driver) Jobs() []volume.Job {
	all := d.jobs.Jobs()
	out := make([]volume.Job, len(all))
	for i, j := range all {
		out[i] = volume.Job(j)
	}
	return out
}

// get returns a volume that there is.
func (d *driver) get(name string) (*vol, error) {
	v, ok := d.store.find(name)
	if !ok {
		return nil, errNoVolume
	}
	return v, nil
}

// turnOf returns a volume and its turn.
func (d *driver) turnOf(ctx context.Context, name string) (*vol, func(), error) {
	for {
		v, err := d.get(name)
		if err != nil {
			return nil, nil, err
		}
		free, err := v.take(ctx)
		if err != nil {
			return nil, nil, err
		}
		if !d.store.gone(v) {
			return v, free, nil
		}
		free()
	}
}

var errBeingRemoved = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "it is being removed"), "remove it again to wait for that, then create it")
