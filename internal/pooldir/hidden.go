package pooldir

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// The kinds of hidden names.
const (
	New   = "new"   // is being made; locked by its maker
	Gone  = "gone"  // is being deleted
	Adopt = "adopt" // holds what is a user's, which becomes a volume; never deleted
)

// leftover is the form of hidden names: kind, host, and what makes it unique. The name of the
// volume is not part of it, because together they might be too long.
var leftover = regexp.MustCompile(`^\.remora-(new|gone|adopt)-(?:([0-9a-f]{8})-)?[0-9a-f]{16}$`)

// HiddenName returns a new hidden name. host may be empty.
func HiddenName(kind, host string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	if host != "" {
		kind += "-" + host
	}
	return fmt.Sprintf(".remora-%s-%x", kind, b)
}

// Hidden returns a new hidden name of the pool.
func (p *Pool) Hidden(kind string) string { return HiddenName(kind, p.Host) }

// HiddenKind returns the kind of a hidden name of the pool, empty if it is none.
func (p *Pool) HiddenKind(name string) string {
	kind, _ := p.parse(name)
	return kind
}

func (p *Pool) parse(name string) (kind, host string) {
	m := leftover.FindStringSubmatch(name)
	if m == nil || (m[2] == "") != (p.Host == "") {
		return "", ""
	}
	return m[1], m[2]
}

// Host returns eight hex digits that are the same on this host at all times.
func Host() string {
	id, err := os.ReadFile("/etc/machine-id") // machine-id(5) asks not to show it; a hash is fine
	if err != nil {
		name, _ := os.Hostname()
		id = []byte(name)
	}
	sum := sha256.Sum256(append([]byte("remora "), id...))
	return hex.EncodeToString(sum[:4])
}

// Patience is how long after its last change something half made by another host, or on a file
// system that cannot lock, counts as left behind.
const Patience = 24 * time.Hour

// NewAside makes a hidden directory in which something is built. fd is open, and locked (flock(2))
// as long as the builder lives: who can lock it too knows that it was left behind.
func (p *Pool) NewAside(dir *Dir, kind string, mode uint32) (aside string, fd int, err error) {
	for {
		aside = p.Hidden(kind)
		if err := unix.Mkdirat(dir.FD, aside, mode); err != nil {
			return "", -1, err
		}
		fd, err = unix.Openat(dir.FD, aside, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue // swept before it was locked
		}
		if err != nil {
			_ = unix.Unlinkat(dir.FD, aside, unix.AT_REMOVEDIR)
			return "", -1, err
		}
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) // some servers cannot; the age decides there
		var st unix.Stat_t
		if errors.Is(err, unix.EWOULDBLOCK) || unix.Fstat(fd, &st) == nil && st.Nlink == 0 {
			_ = unix.Close(fd) // a sweep has it
			continue
		}
		if err := unix.Fchmod(fd, mode); err != nil { // whatever the umask says
			_ = unix.Close(fd)
			_ = unix.Unlinkat(dir.FD, aside, unix.AT_REMOVEDIR)
			return "", -1, err
		}
		return aside, fd, nil
	}
}

// claim looks whether nobody works on a leftover any more, and keeps it that way until release is called, which is nil where
// somebody does. What is gone may be deleted by everybody at a time. What is new is locked by its builder, who may have made it
// and not locked it yet: the lock is kept, so that he finds it taken, and builds elsewhere. A lock that was had says nothing of
// a builder on another host.
func (p *Pool) claim(dir *Dir, name string) (release func()) {
	kind, host := p.parse(name)
	switch kind {
	case New:
	case Gone:
		return func() {}
	default:
		return nil
	}
	fd, err := unix.Openat(dir.FD, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	release = func() { _ = unix.Close(fd) }
	locked := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if locked == nil && host == p.Host {
		return release
	}
	var st unix.Stat_t
	if errors.Is(locked, unix.EWOULDBLOCK) || unix.Fstat(fd, &st) != nil || time.Since(time.Unix(st.Mtim.Unix())) <= Patience {
		release()
		return nil
	}
	return release
}
