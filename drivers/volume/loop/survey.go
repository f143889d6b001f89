package loop

import (
	"context"
	"errors"
	"iter"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/volume"
)

// inode is the file that an image is, on whatever file system.
type inode struct{ dev, ino uint64 }

// Survey reads once which images are mounted, and looks at each image from outside.
func (d *driver) Survey(ctx context.Context) iter.Seq2[volume.Figures, error] {
	return d.survey(ctx, false)
}

// Survey is that of the driver, with the number of snapshots.
func (d *cloning) Survey(ctx context.Context) iter.Seq2[volume.Figures, error] {
	return d.survey(ctx, true)
}

func (d *driver) survey(ctx context.Context, snapshots bool) iter.Seq2[volume.Figures, error] {
	return func(yield func(volume.Figures, error) bool) {
		p, err := d.pool(ctx)
		if err != nil {
			yield(volume.Figures{}, err)
			return
		}
		defer p.close()
		entries, err := p.dir.File.ReadDir(-1)
		var mounted map[inode]mount.Info
		if err == nil {
			mounted, err = mountedImages()
		}
		if err != nil {
			yield(volume.Figures{}, d.Fail("", err))
			return
		}
		found := make([]volume.Figures, len(entries)) // without a name where there is nothing to tell
		var wg sync.WaitGroup
		workers := runtime.GOMAXPROCS(0)
		for w := range workers {
			wg.Go(func() {
				for i := w; i < len(entries) && ctx.Err() == nil; i += workers {
					if e := entries[i]; e.IsDir() && pooldir.CheckName(e.Name()) == nil {
						found[i] = p.look(e.Name(), mounted, snapshots)
					}
				}
			})
		}
		wg.Wait()
		for _, f := range found {
			if f.Name != "" && !yield(f, nil) {
				return
			}
		}
		if ctx.Err() != nil {
			yield(volume.Figures{}, context.Cause(ctx))
		}
	}
}

// look tells the figures of one volume, without a name where it cannot.
func (p pool) look(name string, mounted map[inode]mount.Info, snapshots bool) (f volume.Figures) {
	fd := p.dir.FD
	var st unix.Stat_t
	if unix.Fstatat(fd, name+"/"+imageName, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return volume.Figures{}
	}
	u := volume.Usage{Used: st.Blocks * 512, Limit: st.Size}
	if at, ok := mounted[inode{st.Dev, st.Ino}]; ok {
		var err error
		if u.Used, err = usedIn(at); err != nil {
			return volume.Figures{}
		}
	}
	f = volume.Figures{Name: name, Usage: &u}
	if snapshots {
		n, err := countSnapshots(fd, name+"/"+snapshotsName)
		if err != nil {
			return volume.Figures{}
		}
		f.Snapshots = &n
	}
	return f
}

// countSnapshots counts the files that make a snapshot.
func countSnapshots(pool int, path string) (n int, err error) {
	fd, err := unix.Openat(pool, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		if _, ok := snapshotOf(name, factsSuffix); ok {
			n++
		}
	}
	return n, err
}

// mountedImages returns where each image is mounted that a device of ours holds.
func mountedImages() (map[inode]mount.Info, error) {
	paths, err := devicesOf(imageName)
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	list, err := mount.List("/")
	if err != nil {
		return nil, err
	}
	at := map[string]mount.Info{}
	for _, m := range list {
		if _, ok := at[m.Source]; !ok {
			at[m.Source] = m
		}
	}
	mounted := map[inode]mount.Info{}
	for _, path := range paths {
		m, ok := at[path]
		if !ok {
			continue
		}
		f, info, err := status(path)
		if err != nil {
			continue // gone meanwhile
		}
		_ = f.Close()
		if isOurs(info) {
			mounted[inode{info.Device, info.Inode}] = m
		}
	}
	return mounted, nil
}
