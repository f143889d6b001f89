package dir

import (
	"context"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// freeTime is how long a refusal waits for files that were removed to be freed. XFS mostly takes
// milliseconds for it.
const freeTime = 10 * time.Second

// held returns how much a project takes. Where that is more than enough, files that were removed
// may be among it, which XFS frees in the background: it is waited for, so that nobody is refused
// because of what is gone.
func (d *driver) held(ctx context.Context, data *os.File, project uint32, enough int64) (int64, error) {
	q, err := quotaOf(int(data.Fd()), project)
	if err != nil || int64(q.blocks)*blockSize <= enough {
		return int64(q.blocks) * blockSize, orDenied(err)
	}
	ctx, cancel := context.WithTimeout(ctx, freeTime)
	defer cancel()
	freed, err := d.freeRemoved(ctx, int(data.Fd()), project)
	if err != nil {
		return 0, err
	}
	if q, err = quotaOf(int(data.Fd()), project); err != nil {
		return 0, orDenied(err)
	}
	used := int64(q.blocks) * blockSize
	if !freed && used > enough {
		err := errdefs.Errorf(errdefs.ErrUnavailable, "size %s: files that were removed are still being freed, and %s counted", catalog.Bytes(enough), catalog.Bytes(used))
		return 0, errdefs.Hint(err, "try again in a while")
	}
	return used, nil
}

// freeRemoved has the file system free the files that were removed, and the room that it keeps
// ahead of those of the project that grow, and tells whether it was done before ctx ended. A
// file system that does not understand the call frees a file as it is removed.
func (d *driver) freeRemoved(ctx context.Context, fd int, project uint32) (done bool, err error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	ended := make(chan struct{})
	started := d.Go(ctx, func(context.Context) {
		defer close(ended)
		defer unix.Close(own)
		args := freeArgs{version: 1, flags: freeProject, project: project}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(own), freeBlocks, uintptr(unsafe.Pointer(&args)))
	})
	if !started {
		_ = unix.Close(own)
		return false, errdefs.Errorf(errdefs.ErrUnavailable, "the pool is closed")
	}
	select {
	case <-ended:
		return true, nil
	case <-ctx.Done():
		return false, nil
	}
}
