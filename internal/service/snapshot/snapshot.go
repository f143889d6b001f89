// Package snapshot takes snapshots of volumes, for people, for schedules and for backups, with the
// hooks around them, and says in what two states of a volume differ.
package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/hook"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// OwnPrefix begins the names of the snapshots that a backup makes for itself.
const OwnPrefix = "remora-backup-"

// NameFormat is the form of the names of snapshots that are given none.
const NameFormat = "20060102-150405"

// stale is the age from which a backup's snapshot is one of a backup that was cut off.
const stale = 48 * time.Hour

// Taker takes snapshots.
type Taker struct {
	// Hooks runs the hooks before a snapshot, and returns what runs those after it.
	Hooks func(ctx context.Context, e hook.Event) (end func(context.Context) error, err error)
}

// Seen is a snapshot that has been made, as the driver tells it if it does.
func Seen(ctx context.Context, p *pool.Pool, req control.SnapshotCreateRequest, name string) control.Snapshot {
	all, _ := p.Handler.Snapshots(ctx, req.Volume) // it is there, whatever can be said of it now
	if i := slices.IndexFunc(all, func(x volume.Snapshot) bool { return x.Name == name }); i >= 0 {
		return Told(p, req.Volume, all[i])
	}
	return control.Snapshot{Pool: p.Conf.Name, Volume: req.Volume, Name: name, Labels: req.Labels}
}

// Take makes a snapshot, with the hooks around it. There may be one although there is an
// error: that of a hook after it. Then its name is returned beside.
func (t Taker) Take(ctx context.Context, p *pool.Pool, req control.SnapshotCreateRequest) (name string, err error) {
	ctx, release, err := p.Claims.Take(ctx, p.Conf.Name, req.Volume, pool.Looking, "snapshot")
	if err != nil {
		return "", err
	}
	defer release()
	end, err := t.Begin(ctx, p, req.Volume, req.Labels)
	if err != nil {
		return "", err
	}
	name, err = Make(ctx, p, req)
	return name, errdefs.Join(err, end(context.WithoutCancel(ctx)))
}

// Make makes a snapshot, and a name for it where there is none. Two of the same second
// are told apart by a number.
func Make(ctx context.Context, p *pool.Pool, req control.SnapshotCreateRequest) (name string, err error) {
	if err := mayBeCalled(req.Name); err != nil {
		return "", fmt.Errorf("volume %q: %w", req.Volume, err)
	}
	if req.Name != "" {
		if err := p.Handler.CreateSnapshot(ctx, req.Volume, req.Name, req.Labels); err != nil {
			return "", err
		}
		return req.Name, nil
	}
	now := time.Now().Format(NameFormat)
	for n := 1; n < 100; n++ {
		name = now
		if n > 1 {
			name = fmt.Sprintf("%s-%d", now, n)
		}
		err = p.Handler.CreateSnapshot(ctx, req.Volume, name, req.Labels)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, errdefs.ErrExists) {
			break
		}
	}
	return "", err
}

// mayBeCalled refuses the names that are not a person's to give.
func mayBeCalled(name string) error {
	if strings.HasPrefix(name, OwnPrefix) {
		return errdefs.Errorf(errdefs.ErrInvalid, "snapshot %q: names with %q are those of backups, which remove them", name, OwnPrefix)
	}
	return nil
}

// Together makes snapshots of several volumes of a pool at one moment, under one name: all or none. It is ErrUnsupported
// where the storage cannot.
func Together(ctx context.Context, p *pool.Pool, volumes []string, name string, labels map[string]string) error {
	if err := mayBeCalled(name); err != nil {
		return err
	}
	return p.Handler.CreateSnapshots(ctx, volumes, name, labels)
}

// Told is a snapshot as the control API has it.
func Told(p *pool.Pool, of string, s volume.Snapshot) control.Snapshot {
	return control.Snapshot{Pool: p.Conf.Name, Volume: of, Name: s.Name, CreatedAt: s.CreatedAt, Labels: s.Labels}
}

// Begin runs the hooks before a snapshot of a volume. Whose it is, its label tells.
func (t Taker) Begin(ctx context.Context, p *pool.Pool, name string, labels map[string]string) (end func(context.Context) error, err error) {
	return t.Hooks(ctx, hook.Event{Pool: p.Conf.Name, Volume: name, Schedule: labels[schedule.Label]})
}

// Prepared is a volume around which the hooks are somebody else's matter, with a snapshot that has
// been made for a backup; it is empty where the driver can make none.
type Prepared struct {
	Snapshot string
}

// Still has read look at a volume as it is at one moment, if the driver can: at the snapshot that
// has been prepared, or at one of its own. Any other is read as it lies there. The hooks are
// around the snapshot, or around all of the reading. What one after it came to is told beside.
func (t Taker) Still(ctx context.Context, p *pool.Pool, req control.BackupCreateRequest, from *Prepared, read func(ctx context.Context, dir string, still bool) error) (beside, err error) {
	live := func(ctx context.Context, dir string) error { return read(ctx, dir, false) }
	still := func(ctx context.Context, dir string) error { return read(ctx, dir, true) }
	switch {
	case from != nil && from.Snapshot != "":
		return nil, p.Handler.ReadSnapshot(ctx, req.Name, from.Snapshot, still)
	case from != nil:
		return nil, p.Mounted(ctx, req.Name, live)
	}
	end, err := t.Begin(ctx, p, req.Name, req.Labels)
	if err != nil {
		return nil, err
	}
	if !volume.Can[volume.SnapshotOpener](p.Handler) {
		err := p.Mounted(ctx, req.Name, live)
		return end(context.WithoutCancel(ctx)), err
	}
	snapshot, err := ForBackup(ctx, p, req.Name)
	beside = end(context.WithoutCancel(ctx))
	if err != nil {
		return nil, errdefs.Join(err, beside)
	}
	defer func() {
		err = errdefs.Join(err, p.Handler.RemoveSnapshot(context.WithoutCancel(ctx), req.Name, snapshot))
	}()
	return beside, p.Handler.ReadSnapshot(ctx, req.Name, snapshot, still)
}

// ForBackup makes a snapshot that is there for a backup alone.
func ForBackup(ctx context.Context, p *pool.Pool, name string) (string, error) {
	if err := dropStale(ctx, p, name); err != nil {
		return "", err
	}
	snapshot := ownName()
	if err := p.Handler.CreateSnapshot(ctx, name, snapshot, nil); err != nil {
		return "", err
	}
	return snapshot, nil
}

// TogetherForBackup is ForBackup for several volumes of a pool, see [Together].
func TogetherForBackup(ctx context.Context, p *pool.Pool, volumes []string) (string, error) {
	for _, name := range volumes {
		if err := dropStale(ctx, p, name); err != nil {
			return "", err
		}
	}
	snapshot := ownName()
	return snapshot, p.Handler.CreateSnapshots(ctx, volumes, snapshot, nil)
}

func ownName() string { return OwnPrefix + strings.ToLower(rand.Text()[:10]) }

// dropStale removes what backups that were cut off have left.
func dropStale(ctx context.Context, p *pool.Pool, name string) error {
	all, err := p.Handler.Snapshots(ctx, name)
	if err != nil {
		return err
	}
	for _, s := range all {
		if strings.HasPrefix(s.Name, OwnPrefix) && time.Since(s.CreatedAt) > stale {
			if err := p.Handler.RemoveSnapshot(ctx, name, s.Name); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}
