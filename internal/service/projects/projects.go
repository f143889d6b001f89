// Package projects makes snapshots and backups of all volumes of a Compose project at once.
package projects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/pause"
	"github.com/remora-plugins/remora/internal/service/backups"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/service/snapshot"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// composeProject is the label by which Compose marks what belongs to a project.
const composeProject = "com.docker.compose.project"

// Service answers the control API's questions about Compose projects.
type Service struct {
	Options
}

// Options are what the service stands on.
type Options struct {
	Pools     *pool.Set
	Backups   *backups.Service
	Snapshots snapshot.Taker
	// Engines are those that may be asked for the volumes of a project.
	Engines func() []engine.Engine
	// Pauser pauses the containers that use the volumes.
	Pauser *pause.Pauser
	// Parallel is how many backups are made at a time.
	Parallel int
	Log      *slog.Logger
}

// New returns a service.
func New(o Options) *Service { return &Service{o} }

// member is a volume of a project, and how far it has come.
type member struct {
	p        *pool.Pool
	name     string
	ctx      context.Context //nolint:containedctx // that of the claim on this one
	release  func()
	done     func()                      // with ctx
	end      func(context.Context) error // the hooks after it
	snapshot string
	together bool  // its snapshot is of the same moment as those of other members of its pool
	err      error // why nothing can be made of it
	beside   error // what else went wrong
}

// members returns the volumes of a project that are in pools, each claimed for a use, and those
// that are not. leave has to be called.
func (x *Service) members(ctx context.Context, project string, claim func(ctx context.Context, p *pool.Pool, name string) (context.Context, func(), error)) (all []*member, sum control.ProjectSum, leave func(), err error) {
	if project == "" {
		return nil, sum, nil, errdefs.Errorf(errdefs.ErrInvalid, "project has no name")
	}
	found, err := x.find(ctx, project)
	if err != nil {
		return nil, sum, nil, fmt.Errorf("project %q: %w", project, err)
	}
	leave = func() {
		for _, m := range all {
			if m.release != nil {
				m.release()
			}
			m.done()
			m.p.Leave()
		}
	}
	for _, v := range found {
		p := x.Pools.Find(v[0])
		if p == nil || !p.Enter() {
			sum.Warnings = append(sum.Warnings, fmt.Sprintf("volume %q: its driver %q is no pool here, and it is left out", v[1], v[0]))
			continue
		}
		m := &member{p: p, name: v[1]}
		all = append(all, m)
		m.ctx, m.done = p.Within(ctx) //nolint:fatcontext // each has its own
		m.ctx, m.release, m.err = claim(m.ctx, p, m.name)
	}
	if len(all) == 0 {
		return nil, sum, nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "project %q: no volume of a pool belongs to it", project),
			"docker compose ls --all shows the projects; volumes of other drivers cannot be kept so")
	}
	return all, sum, leave, nil
}

// find asks the engines for the volumes of a project, by driver and name. Every engine has to
// answer: what it did not tell would be left out without a word.
func (x *Service) find(ctx context.Context, project string) (found [][2]string, err error) {
	engines := x.Engines()
	if len(engines) == 0 {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "no engine here to ask for its volumes"),
			"name its socket: engine.sockets in the configuration")
	}
	label := composeProject + "=" + project
	for _, e := range engines {
		volumes, err := e.Volumes(ctx, label)
		if err != nil {
			return nil, err
		}
		for _, v := range volumes {
			found = append(found, [2]string{v.Pool(), v.Name})
		}
		containers, err := e.Having(ctx, label)
		if err != nil {
			return nil, err
		}
		for _, c := range containers {
			for _, v := range c.Volumes {
				found = append(found, [2]string{v.Pool(), v.Name})
			}
		}
	}
	slices.SortFunc(found, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(found), nil
}

// eachMember does something with all members that are in order, at the same time.
func eachMember(all []*member, do func(m *member)) {
	var wg sync.WaitGroup
	for _, m := range all {
		if m.err == nil {
			wg.Go(func() { do(m) })
		}
	}
	wg.Wait()
}

// begin runs the hooks before the snapshots of all members, one after the other, so that all are
// at rest when the first snapshot is made.
func (x *Service) begin(all []*member, labels map[string]string) {
	for _, m := range all {
		if m.err == nil {
			m.end, m.err = x.Snapshots.Begin(m.ctx, m.p, m.name, labels)
		}
	}
}

// endHooks runs the hooks after them, the last first.
func endHooks(ctx context.Context, all []*member, of func(*member) bool) {
	for _, m := range slices.Backward(all) {
		if m.end != nil && of(m) {
			m.beside = m.end(context.WithoutCancel(ctx))
			m.end = nil
		}
	}
}

// sumUp adds what went wrong with the members.
func sumUp(sum *control.ProjectSum, all []*member) {
	for _, m := range all {
		for _, err := range []error{m.err, m.beside} {
			if err == nil {
				continue
			}
			text := errdefs.OneLine(err.Error())
			if !strings.Contains(text, fmt.Sprintf("volume %q", m.name)) {
				text = fmt.Sprintf("volume %q: %s", m.name, text)
			}
			sum.Errors = append(sum.Errors, text)
		}
	}
}

// Snapshot implements [control.Projects].
func (x *Service) Snapshot(ctx context.Context, req control.ProjectSnapshotRequest) (a control.ProjectSnapshots, err error) {
	all, sum, leave, err := x.members(ctx, req.Project, func(ctx context.Context, p *pool.Pool, name string) (context.Context, func(), error) {
		return p.Claims.Take(ctx, p.Conf.Name, name, pool.Looking, "snapshot")
	})
	a.ProjectSum = sum
	if err != nil {
		return a, err
	}
	defer leave()
	name := req.Name
	if name == "" {
		name = time.Now().Format(snapshot.NameFormat)
	}
	of := func(m *member) control.SnapshotCreateRequest {
		return control.SnapshotCreateRequest{Volume: m.name, Name: name, Labels: req.Labels}
	}
	x.begin(all, req.Labels)
	err = x.atOnce(ctx, all, volume.Can[volume.Snapshotter], req.Pause, &a.ProjectSum, taking{
		one: func(ctx context.Context, m *member) (string, error) { return snapshot.Make(ctx, m.p, of(m)) },
		several: func(ctx context.Context, p *pool.Pool, names []string) (string, error) {
			return name, snapshot.Together(ctx, p, names, name, req.Labels)
		},
	})
	endHooks(ctx, all, func(*member) bool { return true })
	if err != nil {
		return a, fmt.Errorf("project %q: %w", req.Project, err)
	}
	for _, m := range all {
		if m.snapshot != "" {
			a.Snapshots = append(a.Snapshots, snapshot.Seen(ctx, m.p, of(m), m.snapshot))
		}
	}
	sumUp(&a.ProjectSum, all)
	x.Log.InfoContext(ctx, "snapshots of a project made", slog.String("project", req.Project), slog.Int("snapshots", len(a.Snapshots)),
		slog.Duration("within", time.Duration(a.Within)), slog.Int("errors", len(a.Errors)))
	return a, nil
}

// Backup implements [control.Projects].
func (x *Service) Backup(ctx context.Context, req control.ProjectBackupRequest, progress func(control.Progress)) (a control.ProjectBackups, err error) {
	of := func(p *pool.Pool, name string) control.BackupCreateRequest {
		return control.BackupCreateRequest{
			Repository: req.Repository, Pool: p.Conf.Name, Name: name, Kind: req.Kind, Reread: req.Reread, Labels: req.Labels,
		}
	}
	if _, err := x.Backups.Place(req.Repository); err != nil {
		return a, err
	}
	all, sum, leave, err := x.members(ctx, req.Project, func(ctx context.Context, p *pool.Pool, name string) (context.Context, func(), error) {
		return x.Backups.Claim(ctx, p, of(p, name))
	})
	a.ProjectSum = sum
	if err != nil {
		return a, err
	}
	defer leave()
	// A repository that cannot be reached is found before hooks are run and snapshots made for it.
	if err := x.Backups.With(ctx, req.Repository, func(context.Context, *backup.Repository, backup.Place) error { return nil }); err != nil {
		return a, err
	}
	still := func(m *member) bool { return volume.Can[volume.SnapshotOpener](m.p.Handler) }
	x.begin(all, req.Labels)
	err = x.atOnce(ctx, all, volume.Can[volume.SnapshotOpener], req.Pause, &a.ProjectSum, taking{
		one: func(ctx context.Context, m *member) (string, error) {
			if !still(m) {
				return "", nil // it is read as it lies there
			}
			return snapshot.ForBackup(ctx, m.p, m.name)
		},
		several: func(ctx context.Context, p *pool.Pool, names []string) (string, error) {
			if !volume.Can[volume.SnapshotOpener](p.Handler) {
				return "", errdefs.Errorf(errdefs.ErrUnsupported, "its snapshots cannot be read")
			}
			return snapshot.TogetherForBackup(ctx, p, names)
		},
	})
	endHooks(ctx, all, func(m *member) bool { return err != nil || still(m) || m.err != nil })
	if err != nil {
		return a, fmt.Errorf("project %q: %w", req.Project, err)
	}
	tell := together(req.Project, progress)
	slots := make(chan struct{}, x.Parallel)
	var mu sync.Mutex
	eachMember(all, func(m *member) { //nolint:contextcheck // each has its own
		slots <- struct{}{}
		defer func() { <-slots }()
		one, err := x.Backups.Store(m.ctx, m.p, of(m.p, m.name), &snapshot.Prepared{Snapshot: m.snapshot}, tell(m.name))
		if m.snapshot != "" {
			dropErr := m.p.Handler.RemoveSnapshot(context.WithoutCancel(m.ctx), m.name, m.snapshot)
			if !errors.Is(dropErr, errdefs.ErrNotFound) {
				err = errdefs.Join(err, dropErr)
			}
		}
		m.err = err
		mu.Lock()
		defer mu.Unlock()
		if one.ID != "" {
			a.Backups = append(a.Backups, one)
		}
	})
	endHooks(ctx, all, func(*member) bool { return true })
	slices.SortFunc(a.Backups, func(a, b control.Backup) int { return strings.Compare(a.Volume, b.Volume) })
	sumUp(&a.ProjectSum, all)
	return a, nil
}

// together adds up how far several have come, and tells it one call at a time.
func together(object string, progress func(control.Progress)) func(name string) func(control.Progress) {
	var mu sync.Mutex
	parts := map[string]control.Progress{}
	return func(name string) func(control.Progress) {
		return func(p control.Progress) {
			mu.Lock()
			defer mu.Unlock()
			parts[name] = p
			sum := control.Progress{Object: object}
			for _, x := range parts {
				sum.Done, sum.Total = sum.Done+x.Done, sum.Total+x.Total
			}
			progress(sum)
		}
	}
}
