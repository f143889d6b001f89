package loop

import (
	"context"
	"errors"
	"io/fs"
	"maps"
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

// cloning has volumes in a pool whose files can share blocks, as on xfs and btrfs.
type cloning struct{ *driver }

// What stands behind the name of a snapshot. Its facts make it one: they are written last,
// and removed first.
const (
	imageSuffix = ".image"
	factsSuffix = ".json"
)

const snapshotVersion = 1

type snapshotFacts struct {
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
}

var errNoSnapshot = errdefs.Errorf(errdefs.ErrNotFound, "no such snapshot")

func snapshotPath(name, snapshot string) string { return name + "/" + snapshotsName + "/" + snapshot }

// snapshotOf returns the name of the snapshot that a file belongs to.
func snapshotOf(file, suffix string) (string, bool) {
	snapshot, ok := strings.CutSuffix(file, suffix)
	return snapshot, ok && pooldir.CheckName(snapshot) == nil
}

// snapshot reads the facts of a snapshot.
func (p pool) snapshot(name, snapshot string) (snapshotFacts, error) {
	var f snapshotFacts
	if pooldir.CheckName(snapshot+imageSuffix) != nil {
		return f, errNoSnapshot
	}
	err := state.Read(p.Root, snapshotPath(name, snapshot)+factsSuffix, snapshotVersion, &f)
	if errors.Is(err, errdefs.ErrNotFound) {
		return f, errNoSnapshot
	}
	return f, err
}

// CreateSnapshot makes a file that shares the blocks of the image, with the file system in it
// frozen meanwhile, and then the facts that make it a snapshot.
func (d *cloning) CreateSnapshot(ctx context.Context, name, snapshot string, labels map[string]string) error {
	if err := pooldir.CheckName(snapshot + imageSuffix); err != nil {
		return err
	}
	p, _, image, err := d.volume(ctx, name)
	if err != nil {
		return err
	}
	defer p.close()
	defer image.Close()
	if _, err := p.snapshot(name, snapshot); err == nil {
		return errdefs.Errorf(errdefs.ErrExists, "there is a snapshot of this name")
	} else if !errors.Is(err, errNoSnapshot) {
		return err
	}
	dir := name + "/" + snapshotsName
	if err := p.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return d.Fail(dir, err)
	}
	if err := d.cleanSnapshots(p, name); err != nil {
		return err
	}
	path := snapshotPath(name, snapshot) + imageSuffix
	copied, err := p.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return d.Fail(path, err)
	}
	defer copied.Close()
	f := snapshotFacts{Labels: maps.Clone(labels)}
	err = d.frozen(ctx, image, func() error {
		f.Created = time.Now().UTC()
		return share(copied, image)
	})
	if err == nil {
		err = copied.Sync()
	}
	if err != nil {
		_ = p.Remove(path)
		return d.Fail(name, cannotShare(err))
	}
	return state.Write(p.Root, snapshotPath(name, snapshot)+factsSuffix, snapshotVersion, f)
}

// cannotShare says what is to be done where files cannot share blocks.
func cannotShare(err error) error {
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "the file system of the pool cannot share blocks between files"),
		"put the pool on xfs or btrfs, or use the driver btrfs")
}

// cleanSnapshots deletes what a crash left of a snapshot that was being made or removed: an
// image without facts.
func (d *driver) cleanSnapshots(p pool, name string) error {
	dir := name + "/" + snapshotsName
	entries, err := p.readDir(dir)
	if err != nil {
		return d.Fail(dir, err)
	}
	if len(entries) > 0 {
		if err := state.Clean(p.Root, dir); err != nil {
			return err
		}
	}
	for _, e := range entries {
		snapshot, ok := snapshotOf(e.Name(), imageSuffix)
		if !ok {
			continue
		}
		if _, err := p.snapshot(name, snapshot); !errors.Is(err, errNoSnapshot) {
			continue
		}
		path := dir + "/" + e.Name()
		if err := p.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return d.Fail(path, err)
		}
	}
	return nil
}

// Snapshots reads the facts of each.
func (d *cloning) Snapshots(ctx context.Context, name string) ([]volume.Snapshot, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if _, err := p.facts(name); err != nil {
		return nil, err
	}
	entries, err := p.readDir(name + "/" + snapshotsName)
	if err != nil {
		return nil, d.Fail(name, err)
	}
	all := []volume.Snapshot{}
	for _, e := range entries {
		snapshot, ok := snapshotOf(e.Name(), factsSuffix)
		if !ok {
			continue
		}
		f, err := p.snapshot(name, snapshot)
		if errors.Is(err, errNoSnapshot) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, volume.Snapshot{Name: snapshot, CreatedAt: f.Created, Labels: f.Labels})
	}
	slices.SortFunc(all, func(a, b volume.Snapshot) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return all, nil
}

// RemoveSnapshot removes the facts first.
func (d *cloning) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	p, err := d.pool(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := p.facts(name); err != nil {
		return err
	}
	if _, err := p.snapshot(name, snapshot); errors.Is(err, errNoSnapshot) {
		return err
	}
	image, err := p.image(snapshotPath(name, snapshot) + imageSuffix)
	if err == nil {
		err = released(ctx, image)
		_ = image.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d.Fail(name, err)
	}
	if err := state.Remove(p.Root, snapshotPath(name, snapshot)+factsSuffix); err != nil {
		return err
	}
	return d.cleanSnapshots(p, name)
}

// snapshotImage opens the image of a snapshot.
func (d *driver) snapshotImage(p pool, name, snapshot string) (*os.File, error) {
	if _, err := p.snapshot(name, snapshot); err != nil {
		return nil, err
	}
	path := snapshotPath(name, snapshot) + imageSuffix
	image, err := p.image(path)
	return image, d.Fail(path, err)
}
