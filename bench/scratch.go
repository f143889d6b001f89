package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// imageSize is that of the file system that is made for the volumes; the file is sparse.
const imageSize = 8 << 30

// newScratch makes the directory for volumes below parent, the temporary directory if that
// is empty; done removes it. Where nobody chose it, and it lies on an ext4 without a
// journal, as hosts do not have, an ext4 with one is made in a file and mounted.
func newScratch(parent string) (dir string, done func() error, err error) {
	// The path is kept short: that of a socket has 107 bytes (unix(7)).
	dir, err = os.MkdirTemp(parent, "rb")
	if err != nil {
		return "", nil, err
	}
	top := dir // what is returned may lie below it
	remove := func() error { return os.RemoveAll(top) }
	name, err := fileSystemOf(dir)
	if err != nil {
		return "", nil, errors.Join(err, remove())
	}
	if parent != "" || name != withoutJournal || os.Geteuid() != 0 {
		return dir, remove, nil
	}
	image, at := filepath.Join(dir, "ext4"), filepath.Join(dir, "m")
	err = errors.Join(os.Mkdir(at, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, imageSize))
	for _, c := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, at}} {
		if err != nil {
			break
		}
		if out, cerr := exec.Command(c[0], c[1:]...).CombinedOutput(); cerr != nil {
			err = fmt.Errorf("%s: %w: %s", c[0], cerr, out)
		}
	}
	if err != nil {
		return "", nil, errors.Join(err, remove())
	}
	return at, func() error {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			return fmt.Errorf("umount: %w: %s", err, out)
		}
		return remove()
	}, nil
}

// workplace makes a scratch directory and the programs in it; done removes both. As /run is on every host, so is the
// run directory in memory, where the machine has such a place.
func workplace(daemon, scratch string) (bin binaries, dir string, done func() error, err error) {
	dir, removeScratch, err := newScratch(scratch)
	if err != nil {
		return bin, "", nil, err
	}
	if bin, err = build(dir, daemon); err != nil {
		return bin, "", nil, errors.Join(err, removeScratch())
	}
	if bin.run, err = os.MkdirTemp("/dev/shm", "rb"); err != nil {
		bin.run = filepath.Join(dir, "run")
	}
	return bin, dir, func() error { return errors.Join(os.RemoveAll(bin.run), removeScratch()) }, nil
}
