package filesystem

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Where the superblocks lie, and what is in them (ext4(5) and the kernel's
// Documentation/filesystems/ext4/super.rst; xfs_sb_t; btrfs_super_block).
const (
	ext4Super  = 1024
	btrfsSuper = 64 << 10
)

// Identify returns which kind of file system an image holds. ok is false for one that is not
// among the kinds, for none, and for what is not to be told.
func Identify(image io.ReaderAt) (k Kind, ok bool) {
	for _, magic := range []struct {
		name, text string
		at         int64
	}{{"ext4", "\x53\xef", ext4Super + 0x38}, {"xfs", "XFSB", 0}, {"btrfs", "_BHRfS_M", btrfsSuper + 0x40}} {
		buf := make([]byte, len(magic.text))
		if _, err := image.ReadAt(buf, magic.at); err == nil && bytes.Equal(buf, []byte(magic.text)) {
			return Kinds[magic.name], true
		}
	}
	return Kind{}, false
}

// ErrBroken is what Check returns for a file system that wants a person to decide.
var ErrBroken = errdefs.Errorf(errdefs.ErrUnavailable, "the file system has errors that e2fsck does not mend without being asked")

// Check mends what a crash left, where that is not done by mounting: xfs and btrfs replay
// their logs, and so does ext4, which may know of errors besides. image is what the device
// holds, and is only read.
func (k Kind) Check(ctx context.Context, image io.ReaderAt, device string) (mended bool, err error) {
	if k.Name != "ext4" {
		return false, nil
	}
	clean, err := Clean(image)
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
		return false, ErrBroken
	}
	if errdefs.Class(err) == nil {
		return false, errdefs.As(errdefs.ErrUnavailable, err)
	}
	return false, k.Hint(err)
}

// mendedBy tells whether e2fsck found nothing, or mended what it found (e2fsck(8), exit
// code).
func mendedBy(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return err == nil || ok && exit.ExitCode() > 0 && exit.ExitCode()&^3 == 0
}

func readSuper(image io.ReaderAt, at int64, n int) ([]byte, error) {
	sb := make([]byte, n)
	if _, err := image.ReadAt(sb, at); err != nil {
		return nil, errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("read superblock: %w", err))
	}
	return sb, nil
}

// Clean tells whether an ext4 was unmounted and knows of no errors.
func Clean(image io.ReaderAt) (bool, error) {
	sb, err := readSuper(image, ext4Super, 0x64)
	if err != nil {
		return false, err
	}
	const valid, withErrors, recover = 1, 2, 4
	state := binary.LittleEndian.Uint16(sb[0x3a:])
	incompat := binary.LittleEndian.Uint32(sb[0x60:])
	return state&(valid|withErrors) == valid && incompat&recover == 0, nil
}

// NeverMounted tells whether a file system was certainly never mounted: ext4 counts, and xfs says so
// until mkfs is done. Of btrfs nothing is to be seen before that.
func (k Kind) NeverMounted(image io.ReaderAt) (bool, error) {
	switch k.Name {
	case "ext4":
		sb, err := readSuper(image, ext4Super, 0x64)
		if err != nil {
			return false, err
		}
		return binary.LittleEndian.Uint32(sb[0x2c:]) == 0 && binary.LittleEndian.Uint16(sb[0x34:]) == 0, nil // s_mtime, s_mnt_count
	case "xfs":
		sb, err := readSuper(image, 0, 512)
		if err != nil {
			return false, err
		}
		return sb[126] != 0, nil // sb_inprogress
	}
	return false, nil
}

// Ext4Bytes returns how large an ext4 is.
func Ext4Bytes(image io.ReaderAt) (int64, error) {
	sb, err := readSuper(image, ext4Super, 0x154)
	if err != nil {
		return 0, err
	}
	blocks := int64(binary.LittleEndian.Uint32(sb[0x04:]))
	if binary.LittleEndian.Uint32(sb[0x60:])&0x80 != 0 { // INCOMPAT_64BIT
		blocks |= int64(binary.LittleEndian.Uint32(sb[0x150:])) << 32
	}
	return blocks << (10 + binary.LittleEndian.Uint32(sb[0x18:])), nil
}

// Sector returns the size of the smallest piece that a file system reads or writes: the sectors of
// its device may be as large, and no larger. ok is false where none of the kinds is there.
func Sector(image io.ReaderAt) (size int64, ok bool) {
	k, ok := Identify(image)
	if !ok {
		return 0, false
	}
	at := map[string]int64{"ext4": ext4Super + 0x18, "xfs": 0x66, "btrfs": btrfsSuper + 0x90}[k.Name]
	b := make([]byte, 4)
	if _, err := image.ReadAt(b, at); err != nil {
		return 0, false
	}
	switch k.Name {
	case "ext4":
		return 1024 << (binary.LittleEndian.Uint32(b) & 31), true // s_log_block_size
	case "xfs":
		return int64(binary.BigEndian.Uint16(b)), true // sb_sectsize
	default:
		return int64(binary.LittleEndian.Uint32(b)), true // sectorsize
	}
}
