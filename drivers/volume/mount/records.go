package mount

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/state"
)

const (
	mountsName    = "mounts"
	recordName    = "mount.json"
	recordVersion = 1
)

// record says whose a mount is. Many file systems have no room in the kernel's table of
// mounts for a mark. It lies where a reboot ends it as it does the mount, is written before
// the mount is made, and means nothing while there is none.
type record struct {
	Volume     string   `json:"volume"`
	ID         string   `json:"id"`
	Mountpoint string   `json:"mountpoint"`
	Types      []string `json:"types"`
}

// is tells whether a mount can be the one that the record is of.
func (r record) is(m mount.Info) bool {
	return m.Mountpoint == r.Mountpoint && slices.Contains(r.Types, m.FSType)
}

// recordDir is where a mount's record is, with the files that its program was given.
func (d *driver) recordDir(mountpoint string) string {
	sum := sha256.Sum256([]byte(mountpoint))
	return filepath.Join(d.run, mountsName, hex.EncodeToString(sum[:12]))
}

// note writes the record of a mount that is about to be made.
func (d *driver) note(r record) (dir string, err error) {
	dir = d.recordDir(r.Mountpoint)
	if err := os.RemoveAll(dir); err != nil {
		return "", state.Classify(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", state.Classify(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", state.Classify(err)
	}
	defer root.Close()
	return dir, state.Write(root, recordName, recordVersion, r)
}

func readRecord(dir string) (r record, ok bool) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return r, false
	}
	defer root.Close()
	return r, state.Read(root, recordName, recordVersion, &r) == nil
}

func (d *driver) record(mountpoint string) (r record, ok bool) {
	r, ok = readRecord(d.recordDir(mountpoint))
	return r, ok && r.Mountpoint == mountpoint
}

// forget removes the record of a mountpoint where nothing is mounted.
func (d *driver) forget(mountpoint string) error {
	return state.Classify(os.RemoveAll(d.recordDir(mountpoint)))
}

// records yields what is mounted of what is on record, and the directories of the records
// of which nothing is.
func (d *driver) records() (mounted []record, stale []string, err error) {
	dirs, err := filepath.Glob(filepath.Join(d.run, mountsName, "*"))
	if err != nil || len(dirs) == 0 {
		return nil, nil, err
	}
	list, err := mount.List("/")
	if err != nil {
		return nil, nil, err
	}
	top := map[string]mount.Info{}
	for _, m := range list {
		top[m.Mountpoint] = m
	}
	for _, dir := range dirs {
		if r, ok := readRecord(dir); ok && r.is(top[r.Mountpoint]) {
			mounted = append(mounted, r)
		} else {
			stale = append(stale, dir)
		}
	}
	return mounted, stale, nil
}

// mounted returns what volumes of the pool are mounted where: a restart of the daemon does
// not change that.
func (d *driver) mounted() (map[string]string, error) {
	found, _, err := d.records()
	at := map[string]string{}
	for _, r := range found {
		if f, err := d.facts(r.Volume); err == nil && f.ID == r.ID && !d.isMoment(r.Mountpoint) {
			at[r.Volume] = r.Mountpoint
		}
	}
	return at, err
}

// isMoment tells whether a mount is there only to make a directory in it.
func (d *driver) isMoment(mountpoint string) bool { return filepath.Dir(mountpoint) == d.run }

// sweep takes away what a crash left: moments, records of what is not mounted, and what
// rclone kept of volumes that are no more.
func (d *driver) sweep() error {
	var errs []error
	moments, _ := filepath.Glob(filepath.Join(d.run, "base-*"))
	for _, place := range moments {
		if err := remote.Detach(place); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.Remove(place); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	_, stale, err := d.records()
	errs = append(errs, err)
	for _, dir := range stale {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(append(errs, d.sweepCache())...)
}

func (d *driver) sweepCache() error {
	entries, err := os.ReadDir(filepath.Join(d.dir, cacheName))
	if err != nil || len(entries) == 0 {
		return nil //nolint:nilerr // there is none
	}
	names, err := d.store.Names()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, name := range names {
		f, err := d.facts(name)
		if err != nil { // whose it is cannot be known
			d.log.Warn("facts of a volume cannot be read", slog.String("volume", name), slog.Any("error", err))
			return nil
		}
		known[f.ID] = true
	}
	var errs []error
	for _, e := range entries {
		if !known[e.Name()] && !strings.HasPrefix(e.Name(), ".") {
			errs = append(errs, os.RemoveAll(filepath.Join(d.dir, cacheName, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// look asks the file system, and then the server: some programs answer out of what they
// remember.
func (d *driver) look(ctx context.Context, f facts, at string) error {
	if err := d.looks.At(ctx, at); err != nil {
		return err
	}
	t, j, err := d.job(f)
	if err != nil { // of the configuration of now, which is not what was mounted by
		return nil //nolint:nilerr // it answers
	}
	return probe(ctx, t.servers(j))
}
