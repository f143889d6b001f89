package loop

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// kind is what there is to know about one file system in an image.
type kind struct {
	name string
	pkg  string // with its programs
	min  int64  // below which it cannot be made
	max  int    // length of a label
	// always are mount options that each mount needs.
	always []string
	// options are those that a user may give besides the general ones.
	options *regexp.Regexp
	// mkfs is the command that makes one; the label and the device follow. None of them
	// discards, which would give back what was reserved.
	mkfs []string
}

// kinds has the file systems by name. xfs refuses two file systems with the same ID, as a
// volume and its clone have, unless it is told not to look (xfs(5), nouuid).
var kinds = map[string]kind{
	"ext4": {
		name: "ext4", pkg: "e2fsprogs", min: 16 << 20, max: 16,
		options: regexp.MustCompile(`^(commit=\d{1,5}|data=(ordered|writeback|journal)|dioread_nolock|dioread_lock|delalloc|nodelalloc|auto_da_alloc|acl|user_xattr)$`),
		mkfs:    []string{"mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-e", "remount-ro", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", "-L"},
	},
	"xfs": {
		name: "xfs", pkg: "xfsprogs", min: 300 << 20, max: 12, always: []string{"nouuid"},
		options: regexp.MustCompile(`^(allocsize=\d{1,7}[kmg]?|inode64|inode32|largeio|nolargeio|logbsize=\d{1,6}k?|swalloc)$`),
		mkfs:    []string{"mkfs.xfs", "-q", "-K", "-L"},
	},
	"btrfs": {
		name: "btrfs", pkg: "btrfs-progs", min: 256 << 20, max: 255,
		options: regexp.MustCompile(`^(compress(-force)?(=(zlib|lzo|zstd)(:\d{1,2})?)?|autodefrag|commit=\d{1,5}|ssd|nossd|nodatacow|nodatasum|flushoncommit|skip_balance|max_inline=\d{1,6})$`),
		mkfs:    []string{"mkfs.btrfs", "-q", "-f", "-K", "-L"},
	},
}

// general are the mount options that each kind takes.
var general = []string{
	"noatime", "relatime", "strictatime", "nodiratime", "lazytime", "nosuid", "nodev", "noexec", "sync", "dirsync", "discard",
}

// takes tells whether a user may give the option.
func (k kind) takes(option string) bool {
	return slices.Contains(general, option) || k.options.MatchString(option)
}

// checkReserved refuses what would give room back that was reserved.
func checkReserved(options []string) error {
	if slices.Contains(options, "discard") {
		return errdefs.Errorf(errdefs.ErrInvalid, `mount_options: "discard" gives back the room that sparse=false reserves`)
	}
	return nil
}

func (k kind) checkSize(size int64) error {
	if size < k.min {
		return errdefs.Errorf(errdefs.ErrInvalid, "size %s: below the %s that %s needs", catalog.Bytes(size), catalog.Bytes(k.min), k.name)
	}
	if size > 1<<53 {
		return errdefs.Errorf(errdefs.ErrInvalid, "size %s: no file can be so large", catalog.Bytes(size))
	}
	return nil
}

var notInLabel = regexp.MustCompile(`[^A-Za-z0-9._-]`)

// format makes the file system on a device on which there is nothing.
func (k kind) format(ctx context.Context, device, label string) error {
	label = strings.TrimLeft(notInLabel.ReplaceAllString(label, "_"), "-")
	args := append(slices.Clone(k.mkfs[1:]), label[:min(len(label), k.max)], device)
	_, err := run.Output(ctx, nil, k.mkfs[0], args...)
	if err != nil && errdefs.Class(err) == nil { // the options were checked: it is the storage
		err = errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "look for room on the file system of the pool, and for its faults in dmesg")
	}
	return k.hint(err)
}

// check mends what a crash left, where that is not done by mounting: xfs and btrfs replay
// their logs, and so does ext4, which may know of errors besides. image is what the device
// holds, and is only read.
func (k kind) check(ctx context.Context, image io.ReaderAt, device string) (mended bool, err error) {
	if k.name != "ext4" {
		return false, nil
	}
	clean, err := ext4Clean(image)
	if err != nil || clean {
		return false, err
	}
	_, err = run.Output(ctx, nil, "e2fsck", "-p", device)
	switch {
	case mendedBy(err):
		return true, nil
	case ctx.Err() != nil:
		return false, err
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 4 {
		return false, errdefs.Errorf(errdefs.ErrUnavailable, "the file system has errors that e2fsck does not mend without being asked")
	}
	if errdefs.Class(err) == nil {
		err = errdefs.As(errdefs.ErrUnavailable, err)
		return false, err
	}
	return false, k.hint(err)
}

// mendedBy tells whether e2fsck found nothing, or mended what it found (e2fsck(8), exit
// code).
func mendedBy(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return err == nil || ok && exit.ExitCode() > 0 && exit.ExitCode()&^3 == 0
}

// hint says what to install where a program is missing.
func (k kind) hint(err error) error {
	if errors.Is(err, errdefs.ErrUnavailable) && len(errdefs.Hints(err)) == 0 {
		return errdefs.Hint(err, "install "+k.pkg)
	}
	return err
}

// Where the superblocks lie, and what is in them (ext4(5) and the kernel's
// Documentation/filesystems/ext4/super.rst; xfs_sb_t; btrfs_super_block).
const (
	ext4Super  = 1024
	btrfsSuper = 64 << 10
)

// ext4Clean tells whether the file system was unmounted and knows of no errors.
func ext4Clean(image io.ReaderAt) (bool, error) {
	var sb [0x64]byte
	if _, err := image.ReadAt(sb[:], ext4Super); err != nil {
		return false, fmt.Errorf("read superblock: %w", err)
	}
	const valid, withErrors, recover = 1, 2, 4
	state := binary.LittleEndian.Uint16(sb[0x3a:])
	incompat := binary.LittleEndian.Uint32(sb[0x60:])
	return state&(valid|withErrors) == valid && incompat&recover == 0, nil
}

// ext4Bytes returns how large the file system is.
func ext4Bytes(device io.ReaderAt) (int64, error) {
	var sb [0x154]byte
	if _, err := device.ReadAt(sb[:], ext4Super); err != nil {
		return 0, fmt.Errorf("read superblock: %w", err)
	}
	blocks := int64(binary.LittleEndian.Uint32(sb[0x04:]))
	if binary.LittleEndian.Uint32(sb[0x60:])&0x80 != 0 { // INCOMPAT_64BIT
		blocks |= int64(binary.LittleEndian.Uint32(sb[0x150:])) << 32
	}
	return blocks << (10 + binary.LittleEndian.Uint32(sb[0x18:])), nil
}

// identify returns which kind of file system an image holds. ok is false for one that is not
// among the kinds, for none, and for what is not to be told.
func identify(image io.ReaderAt) (k kind, ok bool) {
	for _, magic := range []struct {
		name, text string
		at         int64
	}{{"ext4", "\x53\xef", ext4Super + 0x38}, {"xfs", "XFSB", 0}, {"btrfs", "_BHRfS_M", btrfsSuper + 0x40}} {
		buf := make([]byte, len(magic.text))
		if _, err := image.ReadAt(buf, magic.at); err == nil && bytes.Equal(buf, []byte(magic.text)) {
			return kinds[magic.name], true
		}
	}
	return kind{}, false
}
