package btrfs

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// inside is what the tree of roots knows of one directory: the subvolumes that lie in it.
type inside struct {
	data   uint64 // the ID of the one that has the name of a volume's data; 0 is none
	others int    // those that have the name of a snapshot
}

// Survey reads the tree of roots and the quota from one end to the other, which is a hundred
// times faster than to open each volume: a subvolume's entry has its name and the inode of
// the directory in which it lies.
func (d *driver) Survey(ctx context.Context) iter.Seq2[volume.Figures, error] {
	return func(yield func(volume.Figures, error) bool) {
		all, err := d.survey(ctx)
		for _, f := range all {
			if !yield(f, nil) {
				return
			}
		}
		if err != nil {
			yield(volume.Figures{}, err)
		}
	}
}

func (d *driver) survey(ctx context.Context) ([]volume.Figures, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	is := d.known(p.FD)
	if is != nil && !errors.Is(is, errdefs.ErrUnsupported) {
		return nil, d.Fail("", is) // then each is asked for by itself
	}
	if is == nil {
		soon, cancel := context.WithTimeout(ctx, soonLong)
		defer cancel()
		if err := d.settle(soon, p.FD, fresh); err != nil && soon.Err() == nil {
			return nil, d.Fail("", err)
		}
	}
	dirs, err := p.subvolumes()
	if err != nil {
		return nil, d.Fail("", err)
	}
	entries, err := p.File.ReadDir(-1)
	if err != nil {
		return nil, d.Fail("", err)
	}
	found := p.look(entries, dirs)
	if is == nil {
		err = p.countAll(found)
	}
	all := make([]volume.Figures, 0, len(found))
	for i := range found {
		all = append(all, found[i].Figures)
	}
	return all, d.Fail("", err)
}

// subvolumes returns what lies in each directory of the pool, by the inode of the directory.
func (p pool) subvolumes() (map[uint64]inside, error) {
	own, err := subvolInfo(p.FD)
	if err != nil {
		return nil, err
	}
	dirs := map[uint64]inside{}
	err = search(p.FD, rootTree, own.id, rootRefKey, 0, ^uint64(0), func(id uint64, item []byte) {
		const head = 18 // struct btrfs_root_ref: dirid, sequence, name_len; then the name
		if len(item) < head {
			return
		}
		dir, name := number(item, 0), item[head:]
		name = name[:min(len(name), int(binary.LittleEndian.Uint16(item[16:])))]
		in := dirs[dir]
		if string(name) == dataName {
			in.data = id
		}
		if checkSnapshot(string(name)) == nil {
			in.others++
		}
		dirs[dir] = in
	})
	return dirs, err
}

// surveyed is a volume on its way to be known.
type surveyed struct {
	volume.Figures
	id uint64 // of its data
}

// look finds the volumes among the entries of the pool, and their snapshots. What is not as
// this driver makes it is left out.
func (p pool) look(entries []os.DirEntry, dirs map[uint64]inside) []surveyed {
	var top unix.Stat_t
	if unix.Fstat(p.FD, &top) != nil {
		return nil
	}
	// inode returns that of a directory in the pool's own subvolume, and of no other.
	inode := func(path string) (uint64, error) {
		var st unix.Stat_t
		err := unix.Fstatat(p.FD, path, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Dev != top.Dev) {
			err = unix.ENOTDIR
		}
		return st.Ino, err
	}
	found := make([]surveyed, len(entries))
	counts := make([]int, len(entries))
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(entries); i += workers {
				name := entries[i].Name()
				if !entries[i].IsDir() || pooldir.CheckName(name) != nil {
					continue
				}
				dir, err := inode(name)
				if err != nil || dirs[dir].data == 0 {
					continue
				}
				snapshots, err := inode(name + "/" + snapshotsName)
				if err == nil {
					counts[i] = dirs[snapshots].others
				} else if !errors.Is(err, unix.ENOENT) {
					continue
				}
				found[i] = surveyed{volume.Figures{Name: name, Snapshots: &counts[i]}, dirs[dir].data}
			}
		})
	}
	wg.Wait()
	kept := found[:0]
	for _, f := range found {
		if f.id != 0 {
			kept = append(kept, f)
		}
	}
	return kept
}

// countAll adds what the quota counts of the volumes.
func (p pool) countAll(found []surveyed) error {
	byID, usages := make(map[uint64]int, len(found)), make([]volume.Usage, len(found))
	for i := range found {
		byID[found[i].id] = i
	}
	const last = 1<<48 - 1 // what follows are groups of groups
	err := search(p.FD, quotaTree, 0, qgroupInfoKey, 0, last, func(id uint64, item []byte) {
		if i, ok := byID[id]; ok {
			usages[i].Used, found[i].Usage = int64(number(item, 1)), &usages[i]
		}
	})
	if err != nil {
		return err
	}
	return search(p.FD, quotaTree, 0, qgroupLimitKey, 0, last, func(id uint64, item []byte) {
		if i, ok := byID[id]; ok && number(item, 0)&limitReferenced != 0 {
			usages[i].Limit = int64(number(item, 1))
		}
	})
}
