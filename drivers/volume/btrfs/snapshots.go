package btrfs

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// labelsSuffix is what the file of a snapshot's labels has behind the snapshot's name.
const labelsSuffix = ".json"

const labelsVersion = 1

// labels is what is written down of a snapshot. When it was made the file system knows. The
// file without the subvolume is nothing; it is what a crash leaves.
type labels struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
}

var errNoSnapshot = errdefs.Errorf(errdefs.ErrNotFound, "no such snapshot")

// checkSnapshot refuses what cannot be the name of a snapshot. One that ended in the suffix
// would be the labels of another.
func checkSnapshot(name string) error {
	err := pooldir.CheckName(name)
	if err == nil && strings.HasSuffix(name, labelsSuffix) || len(name) > unix.NAME_MAX-len(labelsSuffix) {
		err = errdefs.Errorf(errdefs.ErrInvalid, "snapshot %q: too long, or ends in %q", name, labelsSuffix)
	}
	return err
}

// lock gets the one place for a change of snapshots.
func (d *driver) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case d.snapshots <- struct{}{}:
		return func() { <-d.snapshots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// CreateSnapshot writes the labels down and then makes the snapshot, which is there at once.
func (d *driver) CreateSnapshot(ctx context.Context, name, snap string, with map[string]string) error {
	if err := checkSnapshot(snap); err != nil {
		return err
	}
	p, err := d.pool(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.facts(name); err != nil {
		return err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	data, err := p.data(name)
	if err != nil {
		return err
	}
	defer unix.Close(data)
	dir := name + "/" + snapshotsName
	if err := unix.Mkdirat(p.FD, dir, 0o700); err != nil && err != unix.EEXIST {
		return d.Fail(dir, err)
	}
	var st unix.Stat_t
	if unix.Fstatat(p.FD, dir+"/"+snap, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return errdefs.Errorf(errdefs.ErrExists, "the snapshot exists")
	}
	root, err := p.Root()
	if err != nil {
		return d.Fail("", err)
	}
	file := dir + "/" + snap + labelsSuffix
	if err := state.Write(root, file, labelsVersion, labels{snap, with}); err != nil {
		return d.Fail("", err)
	}
	fd, err := openDir(p.FD, dir)
	if err == nil {
		err = snapshot(fd, snap, data, true)
		_ = unix.Close(fd)
	}
	if err != nil {
		_ = root.Remove(file)
	}
	return d.Fail(dir+"/"+snap, err)
}

// openSnapshot opens the top directory of a snapshot.
func (p pool) openSnapshot(name, snap string) (fd int, err error) {
	if checkSnapshot(snap) != nil {
		return -1, errNoSnapshot
	}
	fd, err = openDir(p.FD, name+"/"+snapshotsName+"/"+snap)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return -1, errNoSnapshot
	}
	if err == nil && !isSubvol(fd) {
		_ = unix.Close(fd)
		return -1, errNoSnapshot
	}
	return fd, err
}

// Snapshots returns what the file system knows. Subvolumes that somebody else put there are
// snapshots without labels.
func (d *driver) Snapshots(ctx context.Context, name string) ([]volume.Snapshot, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if _, err := p.facts(name); err != nil {
		return nil, err
	}
	root, err := p.Root()
	if err != nil {
		return nil, d.Fail("", err)
	}
	dir := name + "/" + snapshotsName
	fd, err := openDir(p.FD, dir)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, d.Fail(dir, err)
	}
	file := os.NewFile(uintptr(fd), dir)
	defer file.Close()
	entries, err := file.ReadDir(-1)
	if err != nil {
		return nil, d.Fail(dir, err)
	}
	var all []volume.Snapshot
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		made, err := p.snapshotMade(name, e.Name())
		if errors.Is(err, errNoSnapshot) {
			continue
		}
		if err != nil {
			return nil, d.Fail(dir+"/"+e.Name(), err)
		}
		var l labels
		if err := state.Read(root, dir+"/"+e.Name()+labelsSuffix, labelsVersion, &l); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			l.Labels = map[string]string{"error": err.Error()}
		}
		all = append(all, volume.Snapshot{Name: e.Name(), CreatedAt: made, Labels: l.Labels})
	}
	slices.SortFunc(all, func(a, b volume.Snapshot) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return all, nil
}

func (p pool) snapshotMade(name, snap string) (time.Time, error) {
	fd, err := p.openSnapshot(name, snap)
	if err != nil {
		return time.Time{}, err
	}
	defer unix.Close(fd)
	info, err := subvolInfo(fd)
	return info.made, err
}

// RemoveSnapshot destroys the snapshot and then its labels.
func (d *driver) RemoveSnapshot(ctx context.Context, name, snap string) error {
	p, err := d.pool(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.facts(name); err != nil {
		return err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	fd, err := p.openSnapshot(name, snap)
	if errors.Is(err, errNoSnapshot) {
		return err
	}
	_ = unix.Close(fd)
	dir := name + "/" + snapshotsName
	if err := p.NothingMounted(dir + "/" + snap); err != nil {
		return err
	}
	if fd, err = openDir(p.FD, dir); err != nil {
		return d.Fail(dir, err)
	}
	defer unix.Close(fd)
	if err := subvolDestroy(fd, snap); err != nil {
		return d.Fail(dir+"/"+snap, err)
	}
	_ = unix.Unlinkat(fd, snap+labelsSuffix, 0)
	return d.Fail(dir, unix.Fsync(fd))
}

// OpenSnapshot returns the snapshot itself, which nobody can write to.
func (d *driver) OpenSnapshot(ctx context.Context, name, snap, _ string) (string, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return "", err
	}
	defer p.Close()
	if _, err := p.facts(name); err != nil {
		return "", err
	}
	fd, err := p.openSnapshot(name, snap)
	if err != nil {
		return "", err
	}
	_ = unix.Close(fd)
	return d.Path + "/" + name + "/" + snapshotsName + "/" + snap, nil
}

// CloseSnapshot has nothing to undo.
func (d *driver) CloseSnapshot(context.Context, string, string, string) error { return nil }
