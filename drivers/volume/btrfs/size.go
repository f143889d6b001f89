package btrfs

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// The quota counts what is on the disk, so what was written a moment ago is not in it before
// the file system was synced.
const (
	fresh    = 2 * time.Second // how long after a sync the count is believed
	soonLong = time.Second     // how long a look waits for one
)

// Usage returns what the quota counts.
func (d *driver) Usage(ctx context.Context, name string) (volume.Usage, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return volume.Usage{}, err
	}
	defer p.Close()
	if _, err := p.facts(name); err != nil {
		return volume.Usage{}, err
	}
	data, err := p.data(name)
	if err != nil {
		return volume.Usage{}, err
	}
	defer unix.Close(data)
	if err := d.known(data); err != nil {
		return volume.Usage{}, d.Fail(name, err)
	}
	soon, cancel := context.WithTimeout(ctx, soonLong)
	defer cancel()
	if err := d.settle(soon, data, fresh); err != nil && soon.Err() == nil {
		return volume.Usage{}, d.Fail(name, err)
	}
	c, ok, err := count(data) // of a moment ago, where much is being written
	if err == nil && !ok {
		err = errNoQuota
	}
	return volume.Usage{Used: c.used, Limit: c.limit}, d.Fail(name, err)
}

// known is an error where what the quota says is not so, or where it says nothing.
func (d *driver) known(fd int) error {
	s, err := d.look(fd)
	switch {
	case err != nil:
		return err
	case !s.on && d.quota == quotaAuto:
		return errOff
	case !s.on:
		return errNoQuota
	case s.known() || d.quota == quotaOff:
		return nil
	}
	if err := d.recount(fd); err != nil {
		return err
	}
	return errCounting
}

// settle syncs the file system on which the open file lies, unless that was done less than
// age ago. One sync runs at a time and is waited for as long as ctx says.
func (d *driver) settle(ctx context.Context, fd int, age time.Duration) error {
	begun := time.Now()
	for {
		d.mu.Lock()
		done := d.settling
		switch {
		case d.settled.Add(age).After(begun):
			d.mu.Unlock()
			return nil
		case done == nil:
			own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				d.mu.Unlock()
				return err
			}
			done = make(chan struct{})
			if !d.Go(ctx, func(context.Context) { d.syncAll(own, done) }) {
				d.mu.Unlock()
				_ = unix.Close(own)
				return errdefs.Errorf(errdefs.ErrUnavailable, "the pool is closed")
			}
			d.settling = done
		}
		d.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (d *driver) syncAll(fd int, done chan struct{}) {
	begun := time.Now()
	_ = unix.Syncfs(fd) // an error of the disk makes it read-only, which Ping tells
	_ = unix.Close(fd)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settled, d.settling = begun, nil
	close(done)
}

// Resize writes the limit down and then sets it; a crash between the two is mended by Mount.
func (d *driver) Resize(ctx context.Context, name string, size int64) error {
	if size <= 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "size %d: not more than nothing", size)
	}
	p, err := d.pool(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	f, err := p.facts(name)
	if err != nil {
		return err
	}
	data, err := p.data(name)
	if err != nil {
		return err
	}
	defer unix.Close(data)
	c, _, err := count(data)
	if err != nil {
		return d.Fail(name, err)
	}
	if c.limit == 0 || size < c.limit {
		if err := d.counting(ctx, data); err != nil {
			return err
		}
		if err := d.settle(ctx, data, 0); err != nil {
			return pooldir.Classify(fmt.Errorf("count what is used: %w", err))
		}
		if err := fits(data, size); err != nil {
			return err
		}
	}
	if f.Size != size {
		f.Size = size
		root, err := p.Root()
		if err != nil {
			return d.Fail("", err)
		}
		if err := state.Write(root, name+"/"+factsName, factsVersion, f); err != nil {
			return d.Fail("", err)
		}
	}
	if err := limitTo(data, size); err != nil {
		return pooldir.Classify(fmt.Errorf("limit: %w", err))
	}
	return nil
}

// fits tells whether what is in the subvolume that is open leaves room for nothing less than
// size.
func fits(data int, size int64) error {
	c, _, err := count(data)
	if err == nil && c.used > size {
		err = errdefs.Errorf(errdefs.ErrInvalid, "size %s: the volume has %s in it", catalog.Bytes(size), catalog.Bytes(c.used))
	}
	return err
}
