// Package state keeps small facts in JSON files that are whole at all times: after a
// crash, a power cut or a full disk a file is what it was before or what it was to
// become, and nothing between.
//
// Every file carries the version of its form, so that an older Remora says so instead
// of misreading what a newer one wrote. Fields it does not know are passed over.
//
// All names are below an [os.Root]. The package does not lock: writers of one name
// may race, and the last one wins.
package state

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// ErrCorrupt marks a file that is not what [Write] wrote: torn, empty, or edited by a
// hand that slipped. It is an internal error to everybody but the one who mends it.
var ErrCorrupt = errors.New("corrupt")

// MaxSize is the size in bytes over which a file is taken for corrupt.
const MaxSize = 1 << 20

// The mode of files and the form of the names of temporary ones, which [Clean] knows
// again.
const (
	fileMode   = 0o600
	tempPrefix = ".remora-tmp-"
)

// Write replaces the file by the JSON of v, an object, with its version. When it
// returns nil the file is on the disk. When it fails the file is as it was and
// nothing is left beside it. An error has the class of [Classify].
func Write(root *os.Root, name string, version int, v any) (err error) {
	temp := path.Join(path.Dir(name), tempPrefix+rand.Text())
	defer func() {
		if err != nil {
			err = Classify(fmt.Errorf("write %s: %w", name, reason(err)))
		}
	}()
	if err := create(root, temp, version, v); err != nil {
		return err
	}
	if err := root.Rename(temp, name); err != nil {
		_ = root.Remove(temp)
		return err
	}
	return SyncDir(root, path.Dir(name))
}

// Create makes the file, which must not exist, in a directory that is seen by nobody
// yet. The file's bytes are on the disk when it returns nil; its name is after the
// caller called [SyncDir]. An error has the class of [Classify].
func Create(root *os.Root, name string, version int, v any) error {
	if err := create(root, name, version, v); err != nil {
		return Classify(fmt.Errorf("write %s: %w", name, reason(err)))
	}
	return nil
}

func create(root *os.Root, name string, version int, v any) error {
	data, err := Encode(version, v)
	if err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = root.Remove(name)
		return err
	}
	return nil
}

// Read decodes the file into v. A file that is not there is ErrNotFound, one that
// makes no sense is [ErrCorrupt], one with a version above the given is
// ErrUnsupported.
func Read(root *os.Root, name string, version int, v any) error {
	data, err := root.ReadFile(name)
	if err != nil {
		return Classify(fmt.Errorf("read %s: %w", name, reason(err)))
	}
	if err := Decode(data, version, v); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// Remove deletes the file, durably. One that is not there is no error.
func Remove(root *os.Root, name string) error {
	err := root.Remove(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil:
		err = SyncDir(root, path.Dir(name))
	}
	if err != nil {
		return Classify(fmt.Errorf("remove %s: %w", name, reason(err)))
	}
	return nil
}

// Clean removes what writers that crashed left in the directory. Call it while nobody
// writes there.
func Clean(root *os.Root, dir string) error {
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return Classify(fmt.Errorf("clean %s: %w", dir, reason(err)))
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) && e.Type().IsRegular() {
			if err := root.Remove(path.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, Classify(fmt.Errorf("clean %s: %w", dir, reason(err))))
			}
		}
	}
	return errors.Join(errs...)
}

// SyncDir brings the names in the directory to the disk (fsync(2), "Calling fsync()
// does not necessarily ensure that the entry in the directory has also reached disk").
func SyncDir(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Encode returns the JSON of v, which must be an object, with its version in front.
func Encode(version int, v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(data) < 2 || data[0] != '{' {
		return nil, fmt.Errorf("%T is no JSON object", v)
	}
	comma := ","
	if data[1] == '}' {
		comma = ""
	}
	return fmt.Appendf(nil, "{\"version\":%d%s%s\n", version, comma, data[1:]), nil
}

// Decode is [Read] for bytes that were read already.
func Decode(data []byte, version int, v any) error {
	if len(data) == 0 {
		return fmt.Errorf("%w: empty", ErrCorrupt)
	}
	if len(data) > MaxSize {
		return fmt.Errorf("%w: larger than %d bytes", ErrCorrupt, MaxSize)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	switch {
	case head.Version < 1:
		return fmt.Errorf("%w: no version", ErrCorrupt)
	case head.Version > version:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "version %d is newer than the %d known here", head.Version, version),
			"run the Remora that wrote the file, or a newer one")
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}
