package volume

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// ledgerVersion is written into the first line. A ledger of another version is not
// read: it describes mounts, and a plugin that cannot tell must not guess.
const ledgerVersion = 1

// compactAfter is how many lines may be added before the ledger is written anew, on
// top of what is alive.
const compactAfter = 4096

// ledger remembers mounts across restarts, as a file of lines that is only added to.
// Each line is one write(2), whole or not there for whoever reads after a kill. It is
// not synced: a reboot, which would lose lines, ends the mounts that they tell of.
type ledger struct {
	mu     sync.Mutex
	path   string
	file   *os.File // nil: memory only
	lock   *os.File
	closed bool
	size   int64 // of file
	added  int   // lines since it was written anew
	header header
	live   map[string]record // by volume
}

// record is the last word on one volume: where it is mounted and for whom. A record
// without Mountpoint and Refs says that the volume is not mounted.
type record struct {
	Volume     string         `json:"volume"`
	Mountpoint string         `json:"mountpoint,omitempty"`
	Refs       map[string]ref `json:"refs,omitempty"`
	// Place is what was at Mountpoint when it was mounted, to notice when it is not there
	// any more.
	Place place `json:"place,omitzero"`
}

// ref counts the mounts of one volume by one mount ID.
type ref struct {
	Count int       `json:"count"`
	Since time.Time `json:"since"`
}

// header is the first line.
type header struct {
	Ledger int    `json:"remora_ledger"`
	Boot   string `json:"boot"`
}

// openLedger reads the ledger at path, if it was written since the last boot, and keeps
// others from it until close. A last line that was cut short is dropped.
func openLedger(path string) (*ledger, error) {
	l := &ledger{path: path, live: map[string]record{}}
	if path == "" {
		return l, nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("ledger %q: %w", path, err)
	}
	if l.lock, err = os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("ledger %q: %w", path, err)
	}
	if err := syscall.Flock(int(l.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil { //nolint:gosec // a descriptor fits an int
		err = errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "ledger %q: another process keeps it", path),
			"this plugin runs already; stop the other one first")
		return nil, errors.Join(err, l.lock.Close())
	}
	l.header = header{ledgerVersion, string(bytes.TrimSpace(boot))}
	b, err := os.ReadFile(path)
	if err == nil {
		l.live, err = readLedger(b, l.header)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = l.rewrite(l.header)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %q: %w", path, err), l.close())
	}
	return l, nil
}

// readLedger returns what the lines add up to; nothing when they are from before the last
// boot. What cannot be read is an error and never the same as nothing: that would be to
// unmount what containers use.
func readLedger(b []byte, want header) (map[string]record, error) {
	live := map[string]record{}
	if len(b) == 0 {
		return live, nil
	}
	first, rest, _ := bytes.Cut(b, []byte{'\n'})
	var h header
	if err := json.Unmarshal(first, &h); err != nil || h.Boot == "" {
		return nil, foreign(fmt.Errorf("not a ledger: %w", cmp.Or(err, errors.New("the first line names no boot"))))
	}
	if h.Boot != want.Boot {
		return live, nil
	}
	if h.Ledger != want.Ledger {
		return nil, foreign(errdefs.Errorf(errdefs.ErrUnsupported, "written by another version of this plugin: its format is %d, this one's %d", h.Ledger, want.Ledger))
	}
	for line := range bytes.Lines(rest) {
		var r record
		if !bytes.HasSuffix(line, []byte{'\n'}) {
			break
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, foreign(fmt.Errorf("line is not a record: %w", err))
		}
		r.apply(live)
	}
	return live, nil
}

// foreign says what to do about a ledger that somebody else has written.
func foreign(err error) error {
	return errdefs.Hint(err, "remove the file when no container uses a volume of this plugin; a reboot makes it worthless")
}

func (r record) apply(live map[string]record) {
	if r.Mountpoint == "" && len(r.Refs) == 0 {
		delete(live, r.Volume)
	} else {
		live[r.Volume] = r
	}
}

// rewrite replaces the file by one that has the living records alone.
func (l *ledger) rewrite(h header) (err error) {
	// What is written in vain would take the room of the lines to come.
	defer func() {
		if err != nil {
			_ = os.Remove(l.path + ".new")
		}
	}()
	f, err := os.OpenFile(l.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	err = enc.Encode(h)
	for _, name := range slices.Sorted(maps.Keys(l.live)) {
		err = errors.Join(err, enc.Encode(l.live[name]))
	}
	err = errors.Join(err, w.Flush())
	var size int64
	if err == nil {
		size, err = f.Seek(0, io.SeekEnd)
	}
	if err == nil {
		err = os.Rename(l.path+".new", l.path)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if l.file != nil {
		err = l.file.Close()
	}
	l.file, l.size, l.added = f, size, 0
	return err
}

// set makes r the last word on its volume. When the ledger cannot be written nothing
// has changed.
func (l *ledger) set(r record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("ledger %q: %w", l.path, errStopped)
	}
	if l.file == nil {
		r.apply(l.live)
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	n, err := l.file.Write(append(line, '\n'))
	if err != nil {
		return errors.Join(fmt.Errorf("ledger %q: %w", l.path, err), l.file.Truncate(l.size))
	}
	l.size += int64(n)
	r.apply(l.live)
	if l.added++; l.added > compactAfter+4*len(l.live) {
		// Where this fails the ledger is right as it is, only longer than it need be.
		_ = l.rewrite(l.header)
	}
	return nil
}

// isClosed tells that the ledger may be another's by now.
func (l *ledger) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// all returns the living records.
func (l *ledger) all() []record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.live))
}

func (l *ledger) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var err error
	if l.file != nil {
		err = l.file.Close()
		l.file = nil
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
		l.lock = nil
	}
	return err
}
