package block

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/state"
)

type line struct {
	Put  *Disk     `json:"put,omitempty"`
	Mine Tags      `json:"mine,omitempty"` // of its tags, those that we changed
	Drop string    `json:"drop,omitempty"`
	At   time.Time `json:"at,omitzero"` // when it was dropped, or changed by us
	Head string    `json:"head,omitempty"`
	Of   string    `json:"of,omitempty"` // in the head: whose the disks are
}

// head is the first line of the file.
const head = "remora block index 1"

// load reads the file. One that is not there, is not ours, or has the disks of another account, is as
// an empty one.
func (x *index) load() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	f, err := os.Open(x.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return state.Classify(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for first := true; lines.Scan(); first = false {
		var l line
		if json.Unmarshal(lines.Bytes(), &l) != nil { // the last line of a crash
			continue
		}
		switch {
		case first:
			if l.Head != head || l.Of != x.owner {
				return nil
			}
			x.loaded = true
		case l.Put != nil:
			delete(x.gone, l.Put.ID)
			x.set(&entry{*l.Put, l.At, l.Mine})
		case l.Drop != "":
			x.unset(l.Drop)
			x.gone[l.Drop] = l.At
		}
	}
	if err := lines.Err(); err != nil || !x.loaded {
		return err
	}
	x.file, err = os.OpenFile(x.path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return state.Classify(err)
	}
	end := make([]byte, 1)
	if fi, err := x.file.Stat(); err == nil && fi.Size() > 0 {
		_, _ = x.file.ReadAt(end, fi.Size()-1)
	}
	if end[0] != '\n' { // a crash came in the middle of a line
		_, err = x.file.WriteString("\n")
	}
	return err
}

// note adds a line to the file. It is not synced: what a power cut loses, the next list brings.
func (x *index) note(l line) {
	if x.file == nil {
		return
	}
	text, err := json.Marshal(l)
	if err == nil {
		_, err = x.file.Write(append(text, '\n'))
	}
	if err != nil { // no file is better than one that lacks something
		_ = x.file.Close()
		_ = os.Remove(x.path)
		x.file, x.sum = nil, 0
		return
	}
	x.sum = 0
}

// line is what the file says of a disk. What lists know by now is not told of.
func (e *entry) line() line {
	l := line{Put: &e.Disk}
	if time.Since(e.changed) < settled {
		l.At, l.Mine = e.changed, e.mine
	}
	return l
}

// save writes the whole file, if it is not what is there.
func (x *index) save() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.loaded {
		return nil
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	if err := enc.Encode(line{Head: head, Of: x.owner}); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(x.disks)) {
		if err := enc.Encode(x.disks[id].line()); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(x.gone)) {
		if err := enc.Encode(line{Drop: id, At: x.gone[id]}); err != nil {
			return err
		}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(b.String()))
	if x.file != nil && x.sum == h.Sum64() {
		return nil
	}
	temp := x.path + ".new"
	if err := os.MkdirAll(filepath.Dir(x.path), 0o700); err != nil {
		return state.Classify(err)
	}
	if err := os.WriteFile(temp, []byte(b.String()), 0o600); err != nil {
		return state.Classify(fmt.Errorf("write the index: %w", err))
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		err = os.Rename(temp, x.path)
	}
	if err != nil {
		return state.Classify(err)
	}
	if x.file != nil {
		_ = x.file.Close()
	}
	x.file, x.sum = f, h.Sum64()
	return nil
}

func (x *index) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.file != nil {
		_ = x.file.Close()
		x.file = nil
	}
}
