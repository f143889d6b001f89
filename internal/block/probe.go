package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/filesystem"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type kind = filesystem.Kind

var kinds = filesystem.Kinds

// found is what a look at the beginning and the end of a device came to.
type found struct {
	// what is the type that libblkid knows, such as "ext4", "crypto_LUKS", "LVM2_member",
	// "swap" or "zfs_member"; for a partition table "a partition table (gpt)".
	what string
	uuid string
	// zero: there is not one byte but zero in the first and the last megabyte.
	zero bool
}

// blank tells that there is nothing on the device for all that can be seen.
func (f found) blank() bool { return f.what == "" && f.zero }

func (f found) String() string {
	if f.what == "" {
		return "data of no known form"
	}
	return f.what
}

// probe looks what is on a device. It never guesses: where programs do not agree, or fail, it is
// an error.
func probe(ctx context.Context, v Device) (found, error) {
	out, err := run.Output(ctx, nil, "blkid", "-p", "-o", "export", v.Path)
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil, exited && exit.ExitCode() == 2: // nothing was found, or it cannot be read
	case exited && exit.ExitCode() == 8:
		return found{what: "more than one thing"}, nil
	default:
		if errdefs.Class(err) == nil {
			err = errdefs.As(errdefs.ErrUnavailable, err)
		}
		return found{}, errdefs.Hint(fmt.Errorf("what is on %s cannot be found out: %w", v.Path, err), "install util-linux, and look for faults of the disk in dmesg")
	}
	var f found
	table := ""
	for line := range bytes.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		switch key {
		case "TYPE":
			f.what = value
		case "UUID":
			f.uuid = value
		case "PTTYPE":
			table = value
		}
	}
	if f.what == "" && table != "" {
		f.what = "a partition table (" + table + ")"
	}
	f.zero, err = zeros(v) // which also tells a device that cannot be read from one with nothing on it
	return f, err
}

// ends is how much of the beginning and of the end of a device has to be zero.
const ends = 1 << 20

func zeros(v Device) (bool, error) {
	dev, err := os.Open(v.Path)
	if err != nil {
		return false, state.Classify(err)
	}
	defer dev.Close()
	// What was read before another host wrote is not to be believed.
	_ = unix.Fadvise(int(dev.Fd()), 0, 0, unix.FADV_DONTNEED)
	size, err := dev.Seek(0, io.SeekEnd)
	if err != nil {
		return false, errdefs.Errorf(errdefs.ErrUnavailable, "%s: %w", v.Path, err)
	}
	buf := make([]byte, min(ends, size))
	for _, at := range []int64{0, size - int64(len(buf))} {
		if _, err := dev.ReadAt(buf, at); err != nil {
			return false, errdefs.Errorf(errdefs.ErrUnavailable, "%s: %w", v.Path, err)
		}
		if slices.ContainsFunc(buf, func(b byte) bool { return b != 0 }) {
			return false, nil
		}
	}
	return true, nil
}

// super lets look at what is on a device.
func super[T any](v Device, look func(io.ReaderAt) (T, error)) (T, error) {
	f, err := os.Open(v.Path)
	if err != nil {
		var none T
		return none, state.Classify(err)
	}
	defer f.Close()
	return look(f)
}

// gap returns by how much a file system is smaller than its device. For what finds that out itself,
// and changes nothing where there is nothing to do, it is all.
func gap(k kind, v Device) (int64, error) {
	if k.Name != "ext4" {
		return v.Size, nil
	}
	is, err := super(v, filesystem.Ext4Bytes)
	return v.Size - is, err
}

// grow makes a mounted file system as large as its device.
func grow(k kind, dir *os.File, v Device) error {
	if left, err := gap(k, v); err != nil || left < filesystem.MinGap {
		return err
	}
	return k.Grow(dir, v.Size)
}

// mountsOf returns where a device is mounted, in this mount namespace. Its number is what counts:
// the name may be another disk's by now.
func mountsOf(v Device) ([]mount.Info, error) {
	list, err := mount.List("/")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(m mount.Info) bool {
		if m.FSType == "btrfs" { // whose number is made up
			return m.Source != v.Path
		}
		return m.Major != int(v.Major) || m.Minor != int(v.Minor)
	}), nil
}
