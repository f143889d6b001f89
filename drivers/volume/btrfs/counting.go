package btrfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// What the key "quota" of a pool says. The driver turns quota on, and never off.
const (
	quotaAuto = "auto" // when a volume has a limit
	quotaOn   = "true" // at once
	quotaOff  = "false"
)

const (
	countTime  = 75 * time.Second      // how long a limit waits for all to be counted, at the most
	answerTime = 2 * time.Second       // is left to answer in, when the caller has less time
	recountAge = 10 * time.Minute      // how soon all is counted again because somebody looks
	countPause = 50 * time.Millisecond // between two looks
)

var (
	// errNoQuota says that nobody would keep a limit.
	errNoQuota = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "quota is not enabled on the file system of the pool"),
		`leave quota=false out of the configuration of the pool, or enable it: btrfs quota enable`)
	// errOff says that nothing is counted yet.
	errOff = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "quota is off on the file system of the pool, as no volume has a limit"),
		"files are counted one by one; the first volume with a size turns quota on")
	// errCounting says that the count is under way.
	errCounting = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "quota was turned on, and what lies on the file system is still being counted"),
		"try again in a while: btrfs quota rescan --status tells how far it is")
)

// look finds out how the file system counts, and remembers it for Advice.
func (d *driver) look(fd int) (quotaState, error) {
	s, err := stateOf(fd)
	if err == nil {
		d.mu.Lock()
		d.counts = &s
		d.mu.Unlock()
	}
	return s, err
}

// found sees to the quota of a file system that is the pool's, before its first use.
func (d *driver) found(dir *pooldir.Dir) {
	s, err := d.look(dir.FD)
	switch {
	case err != nil:
	case !s.on && d.quota == quotaOn:
		err = d.turnOn(dir.FD)
	case s.on && !s.known():
		err = d.recount(dir.FD)
	}
	if err != nil && !errors.Is(err, unix.EROFS) {
		d.Log.Warn("quota cannot be enabled", slog.Any("error", err))
	}
}

func (d *driver) turnOn(fd int) error {
	if err := turnOn(fd); err != nil {
		return fmt.Errorf("turn quota on: %w", err)
	}
	d.Log.Info("quota is on now, and what lies on the file system is counted in the background", slog.String("path", d.Path))
	_, err := d.look(fd)
	return err
}

// recount has a count put right that is wrong, as that of a file system is on which a large
// snapshot was removed, or the first count of which was cut off. It does not do so all the time.
func (d *driver) recount(fd int) error {
	if d.quota == quotaOff {
		return nil // it is somebody else's
	}
	time.Sleep(countPause) // one that has just ended may not be written down yet
	s, err := d.look(fd)
	if err != nil || s.running || !s.stale {
		return err
	}
	d.mu.Lock()
	soon := time.Since(d.recounted) < recountAge
	if !soon {
		d.recounted = time.Now()
	}
	d.mu.Unlock()
	if soon {
		return nil
	}
	return recount(fd)
}

// counting turns quota on where it is off, and waits until all is counted: only then do limits
// hold, since what is written while the kernel counts is not counted before it gets there.
func (d *driver) counting(ctx context.Context, fd int) error {
	left := countTime
	if end, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(end)-answerTime)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, left, errCounting)
	defer cancel()
	for {
		s, err := d.look(fd)
		switch {
		case err != nil:
		case s.known(), s.on && d.quota == quotaOff:
			return nil
		case s.on && !s.running:
			err = d.recount(fd)
		case s.on:
		case d.quota == quotaOff:
			return errNoQuota
		default:
			err = d.turnOn(fd)
		}
		if err != nil {
			return pooldir.Classify(err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(countPause):
		}
	}
}

// hold puts the limit of a volume that is there already in force, where it is not: quota may
// have been turned off, which forgets limits, or the volume carried to another file system.
// Where that cannot be, the volume can be used all the same.
func (d *driver) hold(ctx context.Context, fd int, name string, size int64) error {
	if size == 0 {
		return nil
	}
	s, err := d.look(fd)
	switch {
	case err != nil:
	case !s.on && d.quota != quotaOff:
		err = d.turnOn(fd)
	case s.on && !s.known():
		err = d.recount(fd)
	}
	if err == nil {
		err = limitTo(fd, size)
	}
	if errors.Is(err, errNoQuota) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) {
		d.Log.WarnContext(ctx, "volume is not kept to its size", slog.String("volume", name), slog.Any("error", err))
		err = nil
	}
	if err != nil {
		return pooldir.Classify(fmt.Errorf("limit: %w", err))
	}
	return nil
}

// holdIn is hold for the data in a directory.
func (d *driver) holdIn(ctx context.Context, dir int, name string, size int64) error {
	data, err := openDir(dir, dataName)
	if err != nil {
		return err
	}
	defer unix.Close(data)
	return d.hold(ctx, data, name, size)
}
