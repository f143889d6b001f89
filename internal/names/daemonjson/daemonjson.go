// Package daemonjson has an engine's configuration file tell its containers which DNS servers to ask and in which
// domains to look, and takes exactly that back. Everything else in the file stays as it is, byte for byte. What will be
// written can be shown first.
package daemonjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Path is where dockerd looks unless it is told otherwise.
const Path = "/etc/docker/daemon.json"

// The keys that are changed, in the order in which they are written.
const (
	keyDNS    = "dns"
	keySearch = "dns-search"
)

// maxFile bounds what is read; a file is a few hundred bytes.
const maxFile = 1 << 20

// Wanted is what containers are to be told.
type Wanted struct {
	Servers []string // addresses, of which the first is asked first
	Search  []string // domains
}

// Saved is what has to be known to take a change back. It holds nothing of the file but the values of the two keys.
type Saved struct {
	Made bool       `json:"made,omitempty"` // the file was not there
	Bare *string    `json:"bare,omitempty"` // the whole file, if it had no members
	Keys []SavedKey `json:"keys"`
}

// SavedKey is what one key was, and what was put before it.
type SavedKey struct {
	Key    string   `json:"key"`
	Before *string  `json:"before,omitempty"` // the value as it stood in the file, if the key was there
	Added  []string `json:"added"`
	Text   string   `json:"text"` // the value as it was written
}

// Change is one that can be shown, and then written.
type Change struct {
	Path          string
	Before, After []byte
	// Saved is to be kept before the change is written.
	Saved Saved

	remove bool
	target string // of a symbolic link
	info   fs.FileInfo
}

// Changes reports whether there is anything to write.
func (c *Change) Changes() bool { return c.remove || !bytes.Equal(c.Before, c.After) }

// Diff returns the change as people know it from diff(1); nothing if there is none.
func (c *Change) Diff() string {
	if !c.Changes() {
		return ""
	}
	after := c.After
	if c.remove {
		after = nil
	}
	return diff(c.Path, c.Before, after)
}

// Install returns the change that puts these servers and domains before those that are in the file. If an
// earlier change has been written and not been taken back, saved is what was kept of it: what it
// added gives way to what is wanted now.
func Install(path string, want Wanted, saved *Saved) (*Change, error) {
	c, err := load(path)
	if err != nil {
		return nil, err
	}
	c.Saved.Made = c.info == nil
	text := c.Before
	if saved != nil {
		if text, err = undo(text, *saved); err != nil {
			return nil, at(path, err)
		}
		c.Saved.Made = saved.Made
	}
	if o, err := parseOrEmpty(text); err != nil {
		return nil, at(path, err)
	} else if len(o.members) == 0 {
		bare := string(text)
		c.Saved.Bare, text = &bare, o.text
	}
	for _, k := range []struct {
		key    string
		values []string
	}{{keyDNS, want.Servers}, {keySearch, want.Search}} {
		o, err := parse(text)
		if err != nil {
			return nil, at(path, err)
		}
		if len(k.values) == 0 {
			continue
		}
		kept, err := o.list(k.key)
		if err != nil {
			return nil, at(path, err)
		}
		one := SavedKey{Key: k.key}
		if m := o.find(k.key); m != nil {
			was := string(text[m.value:m.end])
			one.Before = &was
		}
		all := slices.Clone(k.values)
		for _, v := range kept {
			if !slices.Contains(all, v) {
				all = append(all, v)
			}
		}
		for _, v := range k.values {
			if !slices.Contains(kept, v) {
				one.Added = append(one.Added, v)
			}
		}
		if one.Text = array(all); slices.Equal(all, kept) {
			one.Text = *one.Before
		}
		c.Saved.Keys = append(c.Saved.Keys, one)
		text = o.set(k.key, []byte(one.Text))
	}
	c.After = text
	return c, nil
}

// Reset returns the change that takes back what saved tells. If somebody has changed the file since, what he
// wrote stays, and only what was added is taken out.
func Reset(path string, saved Saved) (*Change, error) {
	c, err := load(path)
	if err != nil {
		return nil, err
	}
	if c.info == nil {
		return c, nil // with all that was in it
	}
	if c.After, err = undo(c.Before, saved); err != nil {
		return nil, at(path, err)
	}
	if o, err := parseOrEmpty(c.After); saved.Made && err == nil && len(o.members) == 0 {
		c.remove = true
	}
	return c, nil
}

func undo(text []byte, saved Saved) ([]byte, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return text, nil
	}
	for _, k := range slices.Backward(saved.Keys) {
		o, err := parse(text)
		if err != nil {
			return nil, err
		}
		m := o.find(k.Key)
		switch {
		case m == nil: // somebody has taken it out
		case string(text[m.value:m.end]) == k.Text && k.Before != nil:
			text = o.set(k.Key, []byte(*k.Before))
		case string(text[m.value:m.end]) == k.Text && len(o.members) == 1:
			text = o.drop(k.Key)
			if saved.Bare != nil {
				text = []byte(*saved.Bare)
			}
		case string(text[m.value:m.end]) == k.Text:
			text = o.drop(k.Key)
		default:
			now, err := o.list(k.Key)
			if err != nil {
				return nil, err
			}
			left := slices.DeleteFunc(slices.Clone(now), func(v string) bool { return slices.Contains(k.Added, v) })
			switch {
			case len(left) == 0 && k.Before == nil:
				text = o.drop(k.Key)
			case len(left) != len(now):
				text = o.set(k.Key, []byte(array(left)))
			}
		}
	}
	return text, nil
}

// Existing returns the servers and domains that the file names now beside those that a change has added, which may be out of date. They
// were put there for a reason: the server that containers ask from now on has to ask them in its turn.
func Existing(path string, saved Saved) (Wanted, error) {
	c, err := load(path)
	if err != nil {
		return Wanted{}, err
	}
	o, err := parseOrEmpty(c.Before)
	if err != nil {
		return Wanted{}, at(path, err)
	}
	var w Wanted
	var errs [2]error
	w.Servers, errs[0] = o.list(keyDNS)
	w.Search, errs[1] = o.list(keySearch)
	for _, k := range saved.Keys {
		added := func(v string) bool { return slices.Contains(k.Added, v) }
		switch k.Key {
		case keyDNS:
			w.Servers = slices.DeleteFunc(w.Servers, added)
		case keySearch:
			w.Search = slices.DeleteFunc(w.Search, added)
		}
	}
	return w, at(path, errors.Join(errs[:]...))
}

// list returns the texts that a key has.
func (o *object) list(key string) ([]string, error) {
	m := o.find(key)
	if m == nil {
		return nil, nil
	}
	var all []string
	if err := json.Unmarshal(o.text[m.value:m.end], &all); err != nil || slices.Contains(all, "") {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%q is not a list of texts", key)
	}
	return all, nil
}

// array writes a list in one line, as people do in this file.
func array(all []string) string {
	quoted := make([]string, len(all))
	for i, v := range all {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // a text has JSON
		}
		quoted[i] = string(text)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// load reads the file. One that is not there is an empty one.
func load(path string) (*Change, error) {
	c := &Change{Path: path, target: path}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		c.target = target // or the link would be replaced by a file
	} else if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() == fs.ModeSymlink {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "engine's configuration %q: is a link to a file that is not there", path)
	}
	f, err := os.Open(c.target)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, failed(path, err)
	}
	defer f.Close()
	if c.info, err = f.Stat(); err != nil {
		return nil, failed(path, err)
	}
	if !c.info.Mode().IsRegular() || c.info.Size() > maxFile {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "engine's configuration %q: is no file of at most %d bytes", path, maxFile)
	}
	c.Before = make([]byte, c.info.Size())
	n, err := f.ReadAt(c.Before, 0)
	if err != nil && n < len(c.Before) {
		return nil, failed(path, err)
	}
	c.After = c.Before
	return c, nil
}

// Apply writes the change: whoever reads the file sees it as it was or as it becomes. If it is not as it was
// when the change was made, nothing is written.
func (c *Change) Apply() error {
	now, err := load(c.Path)
	if err != nil {
		return err
	}
	if !bytes.Equal(now.Before, c.Before) || (now.info == nil) != (c.info == nil) {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "engine's configuration %q: has been changed by somebody else just now", c.Path), "look at the change again")
	}
	switch {
	case !c.Changes():
		return nil
	case c.remove:
		if err := os.Remove(c.target); err != nil {
			return failed(c.Path, err)
		}
		return failed(c.Path, syncDir(filepath.Dir(c.target)))
	}
	return failed(c.Path, c.write())
}

// write keeps the file's mode and owner.
func (c *Change) write() (err error) {
	dir := filepath.Dir(c.target)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".daemon.json-*")
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	mode := fs.FileMode(0o644)
	if c.info != nil {
		mode = c.info.Mode().Perm()
		var st unix.Stat_t
		if err := unix.Stat(c.target, &st); err != nil {
			return err
		}
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if _, err := f.Write(c.After); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(mode), f.Sync()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), c.target); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// at says which file an error is about.
func at(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("engine's configuration %q: %w", path, err)
}

func failed(path string, err error) error {
	if err == nil {
		return nil
	}
	class := errdefs.ErrUnavailable
	if errors.Is(err, fs.ErrPermission) {
		class = errdefs.ErrDenied
	}
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	return errdefs.Errorf(class, "engine's configuration %q: %w", path, err)
}
