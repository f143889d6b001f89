package store

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxLinks is how many links one path may go through, as in the kernel.
const maxLinks = 40

// maxPath is that of the kernel.
const maxPath = 4096

// clean makes the name of an entry a path below the root, without "..".
func clean(name string) (string, error) {
	if len(name) > maxPath || strings.ContainsRune(name, 0) {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "it is no path")
	}
	c := path.Clean(strings.TrimLeft(name, "/"))
	if c == ".." || strings.HasPrefix(c, "../") {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "it leads out of the rootfs")
	}
	return c, nil
}

// within refuses the target of a symbolic link, in a directory of the rootfs, that climbs above it.
// In the plugin it would end at the top; who follows it on the host would be somewhere else.
func within(dir, target string) error {
	if target == "" || len(target) > maxPath || strings.ContainsRune(target, 0) {
		return errdefs.Errorf(errdefs.ErrInvalid, "it links to no path")
	}
	if path.IsAbs(target) {
		return nil
	}
	if c := path.Join(dir, target); c == ".." || strings.HasPrefix(c, "../") {
		return errdefs.Errorf(errdefs.ErrInvalid, "it links to %q, which leads out of the rootfs", target)
	}
	return nil
}

// enter makes a directory of the archive the one in which the next entry is made. Where there is
// none it is made, and where links lead elsewhere in the rootfs that is where it is.
func (x *extractor) enter(name string) error {
	if x.dir != nil && x.name == name {
		return nil
	}
	where, err := x.resolve(name, true)
	if err != nil {
		return err
	}
	f, err := x.root.OpenFile(where, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	x.leave()
	x.dir, x.name, x.real = f, name, where
	return nil
}

func (x *extractor) leave() {
	if x.dir != nil {
		_ = x.dir.Close() // it was only looked up in
		x.dir, x.name = nil, ""
	}
}

// resolve returns where a directory is, without any link.
func (x *extractor) resolve(name string, missing bool) (string, error) {
	at, links := ".", 0
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		c := rest[0]
		rest = rest[1:]
		switch c {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, c)
		fi, err := x.root.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist) && missing:
			if err := x.lim.entry(); err != nil {
				return "", err
			}
			if err := x.root.Mkdir(next, 0o755); err != nil {
				return "", err
			}
		case err != nil:
			return "", err
		case fi.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", errdefs.Errorf(errdefs.ErrInvalid, "its path goes through more than %d links", maxLinks)
			}
			target, err := x.root.Readlink(next)
			if err != nil {
				return "", err
			}
			if path.IsAbs(target) {
				at = "."
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		case !fi.IsDir():
			return "", errdefs.Errorf(errdefs.ErrInvalid, "%q is no directory", next)
		}
		at = next
	}
	return at, nil
}

// link makes a hard link to what an earlier entry made.
func (x *extractor) link(target, base string) error {
	name, err := clean(target)
	if err != nil || name == "." {
		return errdefs.Errorf(errdefs.ErrInvalid, "it is a link to %q, which is no file of the rootfs", target)
	}
	dir, last := path.Split(name)
	where, err := x.resolve(path.Clean(dir), false)
	if err != nil {
		return err
	}
	f, err := x.root.OpenFile(where, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Linkat(int(f.Fd()), last, int(x.dir.Fd()), base, 0)
}
