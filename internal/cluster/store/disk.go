package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Names below the store's directory.
const (
	metaName   = "store.json"
	ownName    = "own.log"    // what this host wrote; on the disk before it counts
	othersName = "others.log" // what the others wrote; may lag behind
	newSuffix  = ".new"       // of a log that is being written anew
)

const metaVersion = 1

// meta is what is remembered besides the records.
type meta struct {
	Cluster     record.Cluster `json:"cluster"`
	Host        record.Host    `json:"host"`
	Incarnation uint64         `json:"incarnation"`
	// Gap are the versions of which this directory may not know what was written under them.
	Gap gap `json:"gap,omitzero"`
}

// gap are the versions above Low and below the incarnation Below.
type gap struct {
	Low   record.Version `json:"low"`
	Below uint64         `json:"below"`
}

func (g gap) has(v record.Version) bool { return v.Compare(g.Low) > 0 && v.Incarnation < g.Below }

// with returns the smallest gap that has all that g and o have.
func (g gap) with(o gap) gap {
	if g.Below == 0 {
		return o
	}
	if o.Low.Compare(g.Low) < 0 {
		g.Low = o.Low
	}
	g.Below = max(g.Below, o.Below)
	return g
}

// logFile is a log that is open for appending.
type logFile struct {
	root *os.Root
	name string
	f    *os.File
	size int64
	// broken: an earlier write failed, so that what the file holds is not known. It is written
	// anew before anything is appended.
	broken bool
}

// openLog opens the log, or makes it, and calls take for each record in it. What cannot be read at the end
// is cut off, so that what is appended can be.
func openLog(root *os.Root, name string, take func(record.Record)) (*logFile, damage, error) {
	_ = root.Remove(name + newSuffix)
	l := &logFile{root: root, name: name, broken: true}
	b, err := root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return l, damage{}, nil
	}
	if err != nil {
		return nil, damage{}, readError(name, err)
	}
	d := readLog(b, take)
	if d.lost > 0 || len(b)-d.torn < len(logHeader) {
		return l, d, nil // written anew, without what is not believed
	}
	if l.f, err = root.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, d, readError(name, err)
	}
	l.size, l.broken = int64(len(b)-d.torn), false
	if d.torn > 0 {
		if err := l.f.Truncate(l.size); err != nil {
			l.broken = true
		}
	}
	return l, d, nil
}

// append writes frames at the end, and to the disk if durable.
func (l *logFile) append(frames []byte, durable bool) (err error) {
	if l.f == nil {
		return writeError(l.name, fs.ErrClosed)
	}
	if _, err = l.f.Write(frames); err == nil && durable {
		err = l.f.Sync()
	}
	if err != nil {
		l.broken = true
		return writeError(l.name, err)
	}
	l.size += int64(len(frames))
	return nil
}

// rewrite replaces the log by one that holds the frames alone.
func (l *logFile) rewrite(frames []byte) error {
	f, err := l.root.OpenFile(l.name+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return writeError(l.name, err)
	}
	_, err = f.Write(append([]byte(logHeader), frames...))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.root.Rename(l.name+newSuffix, l.name)
	}
	if err == nil {
		err = state.SyncDir(l.root, ".")
	}
	if err != nil {
		_ = f.Close()
		l.broken = true
		return writeError(l.name, err)
	}
	l.close()
	l.f, l.size, l.broken = f, int64(len(logHeader)+len(frames)), false
	return nil
}

// wasteful reports whether the log is much longer than the living bytes need.
func (l *logFile) wasteful(living int) bool { return l.size > 2*int64(living)+256<<10 }

func (l *logFile) close() {
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
}

func readError(name string, err error) error {
	return state.Classify(fmt.Errorf("read %s: %w", name, bare(err)))
}

func writeError(name string, err error) error {
	return state.Classify(fmt.Errorf("write %s: %w", name, bare(err)))
}

// bare drops the path that package os puts before an error.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// readMeta returns what was remembered, and lost if that cannot be read any more.
func readMeta(root *os.Root, cluster record.Cluster, self record.Host) (m meta, lost bool, err error) {
	err = state.Read(root, metaName, metaVersion, &m)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return meta{Cluster: cluster, Host: self}, false, nil
	case errors.Is(err, state.ErrCorrupt):
		return meta{Cluster: cluster, Host: self}, true, nil
	case err != nil:
		return meta{}, false, err
	case m.Cluster != cluster:
		return meta{}, false, errdefs.Errorf(errdefs.ErrInvalid, "store: holds the records of cluster %s, not of %s", m.Cluster, cluster)
	case m.Host != self:
		return meta{}, false, errdefs.Errorf(errdefs.ErrInvalid, "store: was written with another key, of host %s, not %s", m.Host.Short(), self.Short())
	}
	return m, false, nil
}
