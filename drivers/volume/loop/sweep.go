package loop

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
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

// leftover is the form of hidden names: kind, host, and what makes it unique.
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
	sum := sha256.Sum256(append([]byte("remora loop "), id...))
	return hex.EncodeToString(sum[:4])
}

// patience is how old a volume must be that is being made by another host, or on a file
// system that cannot lock, to count as left behind.
const patience = 24 * time.Hour

// newAside makes the hidden directory in which a volume is built. It is open, and locked
// (flock(2)) as long as the builder lives: who can lock it too knows that it was left
// behind.
func (d *driver) newAside(p *pool) (*os.File, string, error) {
	for {
		aside := d.hidden(newKind)
		if err := p.Mkdir(aside, 0o700); err != nil {
			return nil, "", err
		}
		dir, err := p.Open(aside)
		if errors.Is(err, fs.ErrNotExist) {
			continue // swept before it was locked
		}
		if err != nil {
			_ = p.Remove(aside)
			return nil, "", err
		}
		_ = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) // some servers cannot; the age decides there
		var st unix.Stat_t
		if err := unix.Fstat(int(dir.Fd()), &st); err == nil && st.Nlink == 0 {
			_ = dir.Close()
			continue
		}
		return dir, aside, nil
	}
}

// leftBehind tells whether nobody works on a leftover any more. What is gone may be deleted by
// everybody at a time. What is new is locked by its builder; a lock that was had says nothing
// of a builder on another host.
func (d *driver) leftBehind(p *pool, name string) bool {
	m := leftover.FindStringSubmatch(name)
	if m == nil {
		return false
	}
	if m[1] == goneKind {
		return true
	}
	f, err := p.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false
	}
	if err == nil && m[2] == d.host {
		return true
	}
	fi, err := f.Stat()
	return err == nil && time.Since(fi.ModTime()) > patience
}

// sweep deletes leftovers in the background. The channel is closed when it has ended. A file
// system may take seconds to free a large image, and cannot be asked to stop.
func (d *driver) sweep(names []string) (done <-chan struct{}) {
	end := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(names) == 0 || d.closed {
		close(end)
		return end
	}
	d.sweeps.Go(func() {
		defer close(end)
		d.sweeping.Lock()
		defer d.sweeping.Unlock()
		p, err := d.pool()
		if err != nil {
			return
		}
		defer p.close()
		for _, name := range names {
			if !d.leftBehind(p, name) {
				continue
			}
			if err := p.RemoveAll(name); err != nil {
				d.log.Warn("a leftover cannot be deleted", slog.String("path", d.path+"/"+name), slog.Any("error", err))
			}
		}
	})
	return end
}

// destroy takes a directory of the pool out of sight, which is the moment at which it is gone,
// and deletes it. What a crash or an impatient caller leaves is deleted later.
func (d *driver) destroy(ctx context.Context, p *pool, path string) error {
	gone := d.hidden(goneKind)
	err := p.Rename(path, gone)
	if errors.Is(err, fs.ErrNotExist) {
		return errNoVolume // another host was faster
	}
	if err == nil {
		err = p.dir.Sync()
	}
	if err != nil {
		return d.fail(path, err)
	}
	select {
	case <-d.sweep([]string{gone}):
	case <-ctx.Done():
	}
	return nil
}
