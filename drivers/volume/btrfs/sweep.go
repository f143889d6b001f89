package btrfs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"regexp"

	"golang.org/x/sys/unix"
)

// The kinds of hidden names.
const (
	newKind   = "new"   // is being made; locked by its maker
	goneKind  = "gone"  // is being destroyed
	adoptKind = "adopt" // holds a subvolume of the user's, which becomes a volume; never destroyed
)

// leftover is the form of hidden names: the kind, and what makes it unique. The name of the
// volume is not part of it, because together they might be too long.
var leftover = regexp.MustCompile(`^\.remora-(new|gone|adopt)-[0-9a-f]{16}$`)

func hidden(kind string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf(".remora-%s-%x", kind, b)
}

// sweep destroys leftovers in the background, until it is done or the driver is closed.
func (d *driver) sweep(ctx context.Context, names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(names) == 0 || d.closed || !d.sweeping.TryLock() {
		return // the next Volumes finds them
	}
	ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	stop := d.stop
	d.work.Go(func() {
		defer d.sweeping.Unlock()
		defer stop()
		p, err := d.pool(ctx)
		if err != nil {
			return
		}
		defer p.close()
		for _, name := range names {
			if !p.leftBehind(name) {
				continue
			}
			if err := p.demolish(ctx, name); err != nil && ctx.Err() == nil {
				d.log.WarnContext(ctx, "a leftover cannot be destroyed", slog.String("path", d.path+"/"+name), slog.Any("error", err))
			}
		}
	})
}

// leftBehind tells whether nobody works on a leftover any more. What is gone may be
// destroyed by everybody at a time; what is new is locked by its maker (flock(2)).
func (p *pool) leftBehind(name string) bool {
	switch m := leftover.FindStringSubmatch(name); {
	case m == nil, m[1] == adoptKind:
		return false
	case m[1] == goneKind:
		return true
	}
	fd, err := unix.Openat(p.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil
}

// finishAdoption gives a volume its name whose adoption a crash cut off after the user's
// subvolume had moved in. It returns the name, empty if there is none to give.
func (d *driver) finishAdoption(ctx context.Context, p *pool, aside string) string {
	fd, err := openDir(p.fd, aside)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return "" // under way
	}
	f, err := p.readFacts(aside)
	if err == nil {
		err = checkName(f.Name)
	}
	data, derr := openDir(fd, dataName)
	if derr == nil {
		_ = unix.Close(data)
	} else if errors.Is(derr, unix.ENOENT) {
		_ = unix.Unlinkat(fd, factsName, 0) // nothing had moved yet
		_ = unix.Unlinkat(p.fd, aside, unix.AT_REMOVEDIR)
		return ""
	}
	if err == nil {
		err = unix.Renameat2(p.fd, aside, p.fd, f.Name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		d.log.WarnContext(ctx, "a subvolume that was to become a volume stays aside", slog.String("path", d.path+"/"+aside), slog.Any("error", err))
		return ""
	}
	return f.Name
}
