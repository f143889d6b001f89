package btrfs

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// What lies in the directory of a volume.
const (
	factsName     = "volume.json"
	dataName      = "data"
	snapshotsName = "snapshots"
)

const (
	factsVersion = 1
	factsMode    = 0o600
)

// facts is what is written down of a volume. Owner and mode are not: the data has them. The
// name of the directory counts, not Name, which is there for people who find the file.
type facts struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Size is the limit in bytes; none is no limit. The quota enforces it, and forgets it
	// when it is turned off.
	Size    int64             `json:"size,omitzero"`
	Options map[string]string `json:"options,omitempty"`
}

// facts reads the facts of one volume. A name that has none is ErrNotFound.
func (p pool) facts(name string) (f facts, err error) {
	if err := pooldir.CheckName(name); err != nil {
		return f, err
	}
	return p.readFacts(name)
}

// readFacts reads the facts in a directory of the pool.
func (p pool) readFacts(dir string) (f facts, err error) {
	fd, err := unix.Openat(p.FD, dir+"/"+factsName, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR:
		return f, pooldir.ErrNoVolume
	default:
		return f, factsError(dir, err)
	}
	file := os.NewFile(uintptr(fd), dir)
	defer file.Close()
	buf := make([]byte, 0, 2048)
	for {
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return f, factsError(dir, err)
		}
		if buf = buf[:len(buf)+n]; n == 0 || len(buf) > state.MaxSize {
			break
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
	if err := state.Decode(buf, factsVersion, &f); err != nil {
		return facts{}, factsError(dir, err)
	}
	return f, nil
}

// factsError is about the facts of a volume that cannot be read, whose data is left
// alone for that reason.
func factsError(name string, err error) error {
	err = errdefs.Hint(state.Classify(err), "the data is not touched; mend the file, or move it away and create the volume again, which adopts its data")
	return fmt.Errorf("%s/%s: %w", name, factsName, err)
}

// data opens the data of a volume.
func (p pool) data(name string) (fd int, err error) {
	fd, err = openDir(p.FD, name+"/"+dataName)
	if err == nil && !isSubvol(fd) {
		_ = unix.Close(fd)
		err = errors.New("not a subvolume")
	}
	if err != nil {
		return -1, errdefs.Errorf(errdefs.ErrUnavailable, "data of the volume, %s/%s: %w", name, dataName, err)
	}
	return fd, nil
}

// info makes what the Handler sees of the facts, or of the error that reading them
// made. ok is false if there is no volume.
func (d *driver) info(name string, f facts, err error) (info volume.Info, ok bool) {
	if errors.Is(err, errdefs.ErrNotFound) {
		return info, false
	}
	if err != nil {
		return volume.Info{Name: name, Status: map[string]any{"error": err.Error()}}, true
	}
	return volume.Info{Name: name, CreatedAt: f.Created, Mountpoint: d.mountpoint(name), Options: f.Options}, true
}
