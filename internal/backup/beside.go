package backup

import (
	"crypto/rand"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// besidePrefix is how the directories begin in which what is restored into a volume lies until it is whole.
const besidePrefix = ".remora-restore-"

// beside makes such a directory in a volume, and locks it until it is closed: those that nobody has locked were left by who was killed.
func beside(volume *os.Root) (name string, locked *os.File, err error) {
	for {
		name = besidePrefix + strings.ToLower(rand.Text())
		if err := volume.Mkdir(name, 0o700); err != nil {
			return "", nil, target("", err)
		}
		locked, err = openDir(volume, name)
		if err == nil && !errors.Is(unix.Flock(int(locked.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) { // some file systems have no locks
			return name, locked, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", nil, errors.Join(target("", err), volume.Remove(name))
		}
		_ = locked.Close() // another restore is just sweeping it; nil if it has
	}
}

// sweep removes what restores that were killed have left in a volume, as far as that can be told.
func sweep(volume *os.Root) {
	top, err := openDir(volume, ".")
	if err != nil {
		return
	}
	names, _ := top.Readdirnames(-1) // what is not read is swept another time
	_ = top.Close()
	for _, name := range names {
		if !strings.HasPrefix(name, besidePrefix) {
			continue
		}
		dir, err := openDir(volume, name)
		if err != nil {
			continue
		}
		if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = volume.RemoveAll(name)
		}
		_ = dir.Close()
	}
}
