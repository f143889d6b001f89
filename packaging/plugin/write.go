package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// when is the time of every file: the same input makes the same bytes.
var when = time.Unix(0, 0).UTC()

// entries returns the bundle as the entries of a tar, sorted, each directory before what is in it.
func (r *rootfs) entries(config []byte) []*tar.Header {
	modes := map[string]int64{"": 0o755}
	add := func(dir string) {
		for ; dir != "."; dir = path.Dir(dir) {
			modes[dir] = cmp.Or(dirs[dir], 0o755)
		}
	}
	for dir := range dirs {
		add(dir)
	}
	for name := range r.files {
		add(path.Dir(name))
	}
	headers := []*tar.Header{{Typeflag: tar.TypeReg, Name: "config.json", Mode: 0o644, Size: int64(len(config))}}
	for dir, mode := range modes {
		headers = append(headers, &tar.Header{Typeflag: tar.TypeDir, Name: path.Join("rootfs", dir) + "/", Mode: mode})
	}
	for name, f := range r.files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/" + name, Mode: f.mode, Size: int64(len(f.data))}
		if f.link != "" {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.link, 0
		}
		headers = append(headers, h)
	}
	slices.SortFunc(headers, func(a, b *tar.Header) int { return cmp.Compare(a.Name, b.Name) })
	for _, h := range headers {
		h.ModTime, h.Format = when, tar.FormatPAX
	}
	return headers
}

// content returns what is in a file of the bundle.
func (r *rootfs) content(name string, config []byte) []byte {
	if name == "config.json" {
		return config
	}
	return r.files[name[len("rootfs/"):]].data
}

// writeTar writes the bundle as the tar that an engine takes, and returns its digest.
func (r *rootfs) writeTar(to string, config []byte) (digest string, err error) {
	f, err := os.Create(to)
	if err != nil {
		return "", err
	}
	defer f.Close() // once more on the way out of an error
	sum := sha256.New()
	w := tar.NewWriter(io.MultiWriter(f, sum))
	for _, h := range r.entries(config) {
		if err := w.WriteHeader(h); err != nil {
			return "", fmt.Errorf("%s: %w", h.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.Copy(w, bytes.NewReader(r.content(h.Name, config))); err != nil {
				return "", fmt.Errorf("%s: %w", h.Name, err)
			}
		}
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), f.Close()
}

// writeDir writes the bundle as the directory that "docker plugin create" takes. dir is
// replaced.
func (r *rootfs) writeDir(dir string, config []byte) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	headers := r.entries(config)
	for _, h := range headers {
		p := filepath.Join(dir, h.Name)
		var err error
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(p, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, p)
		default:
			err = os.WriteFile(p, r.content(h.Name, config), 0o644)
		}
		if err != nil {
			return err
		}
	}
	for _, h := range slices.Backward(headers) { // a directory after what was written into it
		p := filepath.Join(dir, h.Name)
		if h.Typeflag != tar.TypeSymlink {
			if err := unix.Chmod(p, uint32(h.Mode)); err != nil {
				return &os.PathError{Op: "chmod", Path: p, Err: err}
			}
		}
		times := []unix.Timespec{unix.NsecToTimespec(0), unix.NsecToTimespec(0)}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "utimes", Path: p, Err: err}
		}
	}
	return nil
}

// size returns how much all files hold, and how many there are.
func (r *rootfs) size() (bytes int64, files int) {
	for f := range maps.Values(r.files) {
		bytes += int64(len(f.data))
	}
	return bytes, len(r.files)
}
