package btrfs

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Trees and keys of items (include/uapi/linux/btrfs_tree.h).
const (
	rootTree        = 1
	quotaTree       = 8
	rootRefKey      = 156
	qgroupStatusKey = 240
	qgroupInfoKey   = 242
	qgroupLimitKey  = 244
)

// Flags of the quota's status.
const (
	statusOn           = 1 << 0
	statusInconsistent = 1 << 2
	statusSimple       = 1 << 3
)

// searchKey is struct btrfs_ioctl_search_key.
type searchKey struct {
	tree                   uint64
	minObject, maxObject   uint64
	minOffset, maxOffset   uint64
	minTransid, maxTransid uint64
	minType, maxType       uint32
	items                  uint32
	_                      uint32
	_                      [4]uint64
}

// searchArgs is struct btrfs_ioctl_search_args_v2 with its buffer.
type searchArgs struct {
	key  searchKey
	size uint64
	buf  [16 << 10]byte
}

// search calls see for the items of one object and kind in a tree, from the offset first to
// last. A tree that is not there has none.
func search(fd int, tree, object uint64, kind uint32, first, last uint64, see func(offset uint64, item []byte)) error {
	for {
		args := searchArgs{size: uint64(len(searchArgs{}.buf))}
		args.key = searchKey{
			tree: tree, minObject: object, maxObject: object, minType: kind, maxType: kind,
			minOffset: first, maxOffset: last, maxTransid: ^uint64(0), items: ^uint32(0),
		}
		if err := ioctl(fd, iocTreeSearchV2, unsafe.Pointer(&args)); err != nil {
			if errors.Is(err, unix.ENOENT) {
				return nil
			}
			return err
		}
		const head = 32 // struct btrfs_ioctl_search_header: transid, objectid, offset, type, len
		rest, offset := args.buf[:], uint64(0)
		for range args.key.items {
			offset = binary.NativeEndian.Uint64(rest[16:])
			size := int(binary.NativeEndian.Uint32(rest[28:]))
			see(offset, rest[head:head+size])
			rest = rest[head+size:]
		}
		if args.key.items == 0 || offset >= last {
			return nil
		}
		first = offset + 1
	}
}

// subvolsIn returns the subvolumes that were made inside of one.
func subvolsIn(fd int, id uint64) (children []uint64, err error) {
	err = search(fd, rootTree, id, rootRefKey, 0, ^uint64(0), func(child uint64, _ []byte) {
		children = append(children, child)
	})
	return children, err
}

// number returns a number of an item, which the disk has in little endian.
func number(item []byte, index int) uint64 {
	if len(item) < 8*index+8 {
		return 0
	}
	return binary.LittleEndian.Uint64(item[8*index:])
}

// quotaState is how a file system counts what its subvolumes take.
type quotaState struct {
	on      bool
	simple  bool // a block is counted for the subvolume that wrote it first, and no other
	running bool // all that is there is being counted, in the background
	stale   bool // the count is wrong, or there is none yet
}

// known tells whether what the quota says of subvolumes is so.
func (s quotaState) known() bool { return s.on && !s.running && !s.stale }

func stateOf(fd int) (s quotaState, err error) {
	var args [64]byte // struct btrfs_ioctl_quota_rescan_args
	if err := ioctl(fd, iocQuotaRescanStatus, unsafe.Pointer(&args)); err == nil {
		s.running = binary.NativeEndian.Uint64(args[:]) != 0
	}
	var flags uint64
	err = search(fd, quotaTree, 0, qgroupStatusKey, 0, 0, func(_ uint64, item []byte) { flags = number(item, 2) })
	s.on, s.simple = flags&statusOn != 0, flags&statusSimple != 0
	s.stale = flags&statusInconsistent != 0 && !s.simple
	return s, err
}

// turnOn has the file system count what its subvolumes take. These are full qgroups, see ADR 15.
// What is there already is counted in the background then.
func turnOn(fd int) error {
	args := struct{ command, status uint64 }{command: quotaEnable}
	return ioctl(fd, iocQuotaCtl, unsafe.Pointer(&args))
}

// recount has all that is there counted again in the background, unless that is under way.
func recount(fd int) error {
	var args [64]byte
	err := ioctl(fd, iocQuotaRescan, unsafe.Pointer(&args))
	if errors.Is(err, unix.EINPROGRESS) {
		err = nil
	}
	return err
}

// counted is what the quota knows of a subvolume.
type counted struct {
	used  int64
	limit int64 // 0 is none
}

// count asks the quota for the subvolume that is open. ok is false where nothing is counted.
func count(fd int) (c counted, ok bool, err error) {
	info, err := subvolInfo(fd)
	if err != nil {
		return c, false, err
	}
	err = search(fd, quotaTree, 0, qgroupInfoKey, info.id, info.id, func(_ uint64, item []byte) {
		c.used, ok = int64(number(item, 1)), true
	})
	if err != nil {
		return c, false, err
	}
	err = search(fd, quotaTree, 0, qgroupLimitKey, info.id, info.id, func(_ uint64, item []byte) {
		if number(item, 0)&limitReferenced != 0 {
			c.limit = int64(number(item, 1))
		}
	})
	return c, ok, err
}

// setLimit sets how much the subvolume that is open may refer to.
func setLimit(fd int, limit int64) error {
	args := struct{ qgroup, flags, maxReferenced, maxExclusive, rsvReferenced, rsvExclusive uint64 }{
		flags: limitReferenced, maxReferenced: uint64(limit),
	}
	return ioctl(fd, iocQgroupLimit, unsafe.Pointer(&args))
}

// limitTo sets the limit of the subvolume that is open where it is another; 0 leaves what
// there is.
func limitTo(fd int, limit int64) error {
	if limit == 0 {
		return nil
	}
	c, ok, err := count(fd)
	switch {
	case err != nil:
		return err
	case !ok:
		return errNoQuota
	case c.limit == limit:
		return nil
	}
	return setLimit(fd, limit)
}
