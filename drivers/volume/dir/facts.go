package dir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// What lies in the directory of a volume.
const (
	factsName = "volume.json"
	dataName  = "data"
)

const (
	factsVersion = 1
	factsMode    = 0o600
)

// factsFlags open a file of facts and nothing else that may have its name.
const factsFlags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK

// facts is what is written down of a volume. Owner and mode are not: the data
// directory has them. The name of the directory counts, not Name, which is there for
// people who find the file.
type facts struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Mountpoint is where the data lies if it does not lie beside the facts.
	Mountpoint string `json:"mountpoint,omitzero"`
	// MountedAt is where the file system was mounted on which Mountpoint lay when the volume
	// was made.
	MountedAt string `json:"mounted_at,omitzero"`
	// Size is what the volume may hold, in bytes; 0 is no limit.
	Size    int64             `json:"size,omitzero"`
	Options map[string]string `json:"options,omitempty"`
}

// facts reads the facts of one volume. A name that has none is ErrNotFound.
func (p pool) facts(name string) (facts, error) {
	if err := pooldir.CheckName(name); err != nil {
		return facts{}, err
	}
	var st unix.Stat_t
	err := unix.Fstatat(p.FD, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT || err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return facts{}, pooldir.ErrNoVolume
	}
	if err != nil {
		return facts{}, factsError(name, err)
	}
	return p.readFacts(name, new(factsBuffer))
}

// factsBuffer holds the facts while they are decoded. Files that do not fit in it are
// read all the same.
type factsBuffer [2048]byte

// readFacts reads what name holds, by three system calls, because it is done for each
// of a hundred thousand volumes.
func (p pool) readFacts(name string, buf *factsBuffer) (facts, error) {
	f := facts{}
	fd, err := unix.Openat(p.FD, name+"/"+factsName, factsFlags, 0)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR:
		return f, pooldir.ErrNoVolume
	default:
		return f, factsError(name, err)
	}
	defer unix.Close(fd)
	data := buf[:0]
	for {
		n, err := unix.Read(fd, data[len(data):cap(data)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return f, factsError(name, err)
		}
		if data = data[:len(data)+n]; n == 0 || len(data) > state.MaxSize {
			break
		}
		if n > 0 && data[len(data)-1] == '\n' && len(data) < cap(data) {
			break // the end that the writer made; saves asking for the next
		}
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
	if decodeUsual(data, &f) {
		return f, nil
	}
	if len(data) == 0 && p.halfMade(name) {
		return f, pooldir.ErrNoVolume
	}
	if err := state.Decode(data, factsVersion, &f); err != nil {
		return facts{}, factsError(name, err)
	}
	return f, nil
}

// halfMade tells whether a directory is what a power cut leaves of a volume whose making
// nobody was told of: its facts empty, and no data.
func (p pool) halfMade(name string) bool {
	var st unix.Stat_t
	if unix.Fstatat(p.FD, name+"/"+factsName, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > 0 {
		return false
	}
	fd, err := unix.Openat(p.FD, name+"/"+dataName, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Is(err, unix.ENOENT)
	}
	data := os.NewFile(uintptr(fd), dataName)
	defer data.Close()
	_, err = data.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// decodeUsual decodes the facts of a volume as Create writes them for one that has
// neither options nor a mountpoint elsewhere; whatever looks different is left to
// [state.Decode]. Reading a pool of a hundred thousand volumes takes half the time.
func decodeUsual(data []byte, f *facts) bool {
	const idLen, timeLen = 36, len("2006-01-02T15:04:05Z")
	rest, ok := bytes.CutPrefix(data, []byte(`{"version":1,"name":"`))
	name, rest, ok2 := bytes.Cut(rest, []byte(`","id":"`))
	if !ok || !ok2 || bytes.ContainsAny(name, "\\\"") || len(rest) < idLen || !json.Valid(data) || !utf8.Valid(data) {
		return false
	}
	id, rest := rest[:idLen], rest[idLen:]
	rest, ok = bytes.CutPrefix(rest, []byte(`","created":"`))
	if !ok || len(rest) < timeLen || string(rest[timeLen:]) != "\"}\n" || bytes.ContainsAny(id, "\\\"") {
		return false
	}
	created, err := time.Parse(time.RFC3339, string(rest[:timeLen]))
	if err != nil {
		return false
	}
	*f = facts{Name: string(name), ID: string(id), Created: created}
	return true
}

// factsError is about the facts of a volume that cannot be read, whose data is left
// alone for that reason.
func factsError(name string, err error) error {
	err = errdefs.Hint(state.Classify(err), "the data is not touched; mend the file, or move it away and create the volume again, which adopts its data")
	return fmt.Errorf("%s/%s: %w", name, factsName, err)
}

// info makes what the Handler sees of the facts, or of the error that reading them
// made. ok is false if there is no volume.
func (d *driver) info(name string, f facts, err error) (info volume.Info, ok bool) {
	if errors.Is(err, errdefs.ErrNotFound) {
		return info, false
	}
	d.see(name, f, err)
	if err != nil {
		return volume.Info{Name: name, Status: map[string]any{"error": err.Error()}}, true
	}
	return volume.Info{Name: name, CreatedAt: f.Created, Mountpoint: d.mountpoint(name, f), External: f.Mountpoint != "", Options: f.Options}, true
}
