package dir

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// The kinds of hidden names.
const (
	newKind  = "new"
	goneKind = "gone"
)

// leftover is the form of hidden names: kind, host, and what makes it unique. The name
// of the volume is not part of it, because together they might be too long.
var leftover = regexp.MustCompile(`^\.remora-(new|gone)-([0-9a-f]{8})-[0-9a-f]{16}$`)

func (d *driver) hidden(kind string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf(".remora-%s-%s-%x", kind, d.host, b)
}

func isHidden(name string) bool { return leftover.MatchString(name) }

// hostID returns eight hex digits that are the same on this host at all times.
func hostID() string {
	id, err := os.ReadFile("/etc/machine-id") // machine-id(5) asks not to show it; a hash is fine
	if err != nil {
		name, _ := os.Hostname()
		id = []byte(name)
	}
	sum := sha256.Sum256(append([]byte("remora "), id...))
	return hex.EncodeToString(sum[:4])
}

// patience is how long after its last change something half made by another host, or
// on a file system that cannot lock, counts as left behind.
const patience = 24 * time.Hour

// sweep deletes leftovers in the background, until it is done or the driver is closed.
func (d *driver) sweep(ctx context.Context, names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(names) == 0 || d.closed || !d.sweeping.TryLock() {
		return // the next Volumes finds them
	}
	ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	stop := d.stop
	d.sweeps.Go(func() {
		defer d.sweeping.Unlock()
		defer stop()
		p, err := d.pool()
		if err != nil {
			return
		}
		defer p.close()
		for _, name := range names {
			if !d.leftBehind(p, name) {
				continue
			}
			if err := deleteTree(ctx, p.fd, name); err != nil && ctx.Err() == nil {
				d.log.WarnContext(ctx, "a leftover cannot be deleted", slog.String("path", d.path+"/"+name), slog.Any("error", err))
			}
		}
	})
}

// leftBehind tells whether nobody works on a leftover any more. What is gone may be
// deleted by everybody at a time. What is new is locked by its builder; a lock that was
// had says nothing of a builder on another host.
func (d *driver) leftBehind(p *pool, name string) bool {
	m := leftover.FindStringSubmatch(name)
	if m == nil {
		return false
	}
	if m[1] == goneKind {
		return true
	}
	fd, err := unix.Openat(p.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return false
	}
	if err == nil && m[2] == d.host {
		return true
	}
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && time.Since(time.Unix(st.Mtim.Unix())) > patience
}
