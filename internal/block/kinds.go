package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// kind is what there is to know about one file system.
type kind struct {
	name string
	pkg  string // with its programs
	min  int64
	max  int // length of a label
	// always are mount options that each mount needs.
	always []string
	// options are those that a user may give besides the general ones.
	options *regexp.Regexp
	// mkfs is the command that makes one; the UUID, the label and the device follow. None
	// of them is forced over what is there.
	mkfs  []string
	uuid  string // the flag of the UUID
	label string // the flag of the label
}

// kinds has the file systems by name. xfs refuses two file systems with the same ID, as a
// volume and its clone have, unless it is told not to look (xfs(5), nouuid).
var kinds = map[string]kind{
	"ext4": {
		name: "ext4", pkg: "e2fsprogs", min: 16 << 20, max: 16,
		options: regexp.MustCompile(`^(commit=\d{1,5}|data=(ordered|writeback|journal)|dioread_nolock|dioread_lock|delalloc|nodelalloc|auto_da_alloc|acl|user_xattr)$`),
		mkfs:    []string{"mkfs.ext4", "-q", "-m", "0", "-e", "remount-ro", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"},
		uuid:    "-U", label: "-L",
	},
	"xfs": {
		name: "xfs", pkg: "xfsprogs", min: 300 << 20, max: 12, always: []string{"nouuid"},
		options: regexp.MustCompile(`^(allocsize=\d{1,7}[kmg]?|inode64|inode32|largeio|nolargeio|logbsize=\d{1,6}k?|swalloc)$`),
		mkfs:    []string{"mkfs.xfs", "-q", "-K"},
		uuid:    "-muuid=", label: "-L",
	},
	"btrfs": {
		name: "btrfs", pkg: "btrfs-progs", min: 256 << 20, max: 255,
		options: regexp.MustCompile(`^(compress(-force)?(=(zlib|lzo|zstd)(:\d{1,2})?)?|autodefrag|commit=\d{1,5}|ssd|nossd|nodatacow|nodatasum|flushoncommit|skip_balance|max_inline=\d{1,6})$`),
		mkfs:    []string{"mkfs.btrfs", "-q", "-K"},
		uuid:    "-U", label: "-L",
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

var notInLabel = regexp.MustCompile(`[^A-Za-z0-9._-]`)

// format makes the file system, with our own UUID as its: by that what a crash leaves is known
// again. again has it written over one that was not finished.
func (k kind) format(ctx context.Context, device, label, uuid string, again bool) error {
	label = strings.TrimLeft(notInLabel.ReplaceAllString(label, "_"), "-")
	args := slices.Clone(k.mkfs[1:])
	if strings.HasSuffix(k.uuid, "=") {
		args = append(args, k.uuid+uuid)
	} else {
		args = append(args, k.uuid, uuid)
	}
	if again {
		args = append(args, map[string]string{"ext4": "-F", "xfs": "-f", "btrfs": "-f"}[k.name])
	}
	args = append(args, k.label, label[:min(len(label), k.max)], device)
	_, err := run.Output(ctx, nil, k.mkfs[0], args...)
	if err != nil && errdefs.Class(err) == nil && ctx.Err() == nil {
		err = errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "look for faults of the disk in dmesg")
	}
	return k.hint(err)
}

// check mends what a crash left, where that is not done by mounting: xfs and btrfs replay
// their logs, and so does ext4, which may know of errors besides.
func (k kind) check(ctx context.Context, device string) (mended bool, err error) {
	if k.name != "ext4" {
		return false, nil
	}
	clean, err := ext4Clean(device)
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
		return false, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the file system has errors that e2fsck does not mend without being asked"),
			"make a snapshot, attach the disk (remora volume attach), and look at it with e2fsck -f "+device)
	}
	if errdefs.Class(err) == nil {
		return false, errdefs.As(errdefs.ErrUnavailable, err)
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

// ext4Clean tells whether the file system was unmounted and knows of no errors (the kernel's
// Documentation/filesystems/ext4/super.rst).
func ext4Clean(device string) (bool, error) {
	sb, err := ext4Super(device)
	if err != nil {
		return false, err
	}
	const valid, withErrors, recover = 1, 2, 4
	state := binary.LittleEndian.Uint16(sb[0x3a:])
	incompat := binary.LittleEndian.Uint32(sb[0x60:])
	return state&(valid|withErrors) == valid && incompat&recover == 0, nil
}

// neverMounted tells whether a file system was certainly never mounted: ext4 counts, and xfs says so
// until mkfs is done. Of btrfs nothing is to be seen before that.
func (k kind) neverMounted(device string) (bool, error) {
	switch k.name {
	case "ext4":
		sb, err := ext4Super(device)
		if err != nil {
			return false, err
		}
		return binary.LittleEndian.Uint32(sb[0x2c:]) == 0 && binary.LittleEndian.Uint16(sb[0x34:]) == 0, nil // s_mtime, s_mnt_count
	case "xfs":
		sb, err := readAt(device, 0, 512)
		if err != nil {
			return false, err
		}
		return sb[126] != 0, nil // sb_inprogress
	}
	return false, nil
}

// ext4Bytes returns how large the file system is.
func ext4Bytes(device string) (int64, error) {
	sb, err := ext4Super(device)
	if err != nil {
		return 0, err
	}
	blocks := int64(binary.LittleEndian.Uint32(sb[0x04:]))
	if binary.LittleEndian.Uint32(sb[0x60:])&0x80 != 0 { // INCOMPAT_64BIT
		blocks |= int64(binary.LittleEndian.Uint32(sb[0x150:])) << 32
	}
	return blocks << (10 + binary.LittleEndian.Uint32(sb[0x18:])), nil
}

func ext4Super(device string) ([]byte, error) { return readAt(device, 1024, 1024) }

func readAt(device string, at int64, n int) ([]byte, error) {
	f, err := os.Open(device)
	if err != nil {
		return nil, state.Classify(err)
	}
	defer f.Close()
	sb := make([]byte, n)
	if _, err := f.ReadAt(sb, at); err != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "read superblock of %s: %w", device, err)
	}
	return sb, nil
}

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

// minGap is below what an ext4 leaves unused at the end, where a group of blocks would be too
// small to be worth it. Nothing is tried for so little.
const minGap = 8 << 20

// growUnmounted makes an ext4 as large as its device before it is mounted: it needs no capability
// then.
func (k kind) growUnmounted(ctx context.Context, v Device) error {
	is, err := ext4Bytes(v.Path)
	if err != nil || v.Size-is < minGap {
		return err
	}
	if _, err = run.Output(ctx, nil, "e2fsck", "-f", "-p", v.Path); mendedBy(err) {
		_, err = run.Output(ctx, nil, "resize2fs", v.Path)
	}
	if err != nil && errdefs.Class(err) == nil {
		err = errdefs.As(errdefs.ErrUnavailable, err)
	}
	return k.hint(err)
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
