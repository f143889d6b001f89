package rbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// fuse makes a device of an image without anything of the kernel's but FUSE and loop devices: an
// rbd-fuse for each image shows it as a file.
//
// Nothing here touches that file in the daemon's own process. Where the cluster does not answer,
// whoever does so waits in the kernel until it does, and cannot be killed; only programs that are
// left behind may wait like that.
type fuse struct{ p *provider }

func (f fuse) name() string { return "fuse" }

func mountOf(a *attachment) string { return filepath.Join(a.Dir, "image") }
func fileOf(a *attachment) string  { return filepath.Join(mountOf(a), a.Image) }

// open starts rbd-fuse, which is to outlive the daemon.
func (f fuse) open(ctx context.Context, a *attachment) error {
	if err := os.MkdirAll(mountOf(a), 0o700); err != nil {
		return state.Classify(err)
	}
	out, err := os.Create(filepath.Join(a.Dir, "log"))
	if err != nil {
		return state.Classify(err)
	}
	defer out.Close()
	args := append(f.p.client(), "--rbd-cache=false") // see test/cloud/README.md
	if f.p.c.IOTimeout > 0 {
		args = append(args, fmt.Sprintf("--rados-osd-op-timeout=%d", int(f.p.c.IOTimeout.Seconds())))
	}
	cmd := exec.Command("rbd-fuse", append(args, "-p", f.p.c.Pool, "-r", a.Image, "-f", mountOf(a))...) //nolint:noctx // it outlives every call
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("rbd-fuse: %w", err))
	}
	a.PID = cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			return errdefs.Errorf(errdefs.ErrUnavailable, "rbd-fuse ended at once: %w: %s", err, f.said(a))
		case <-ctx.Done():
			return errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("rbd-fuse: %w", context.Cause(ctx)))
		case <-time.After(10 * time.Millisecond):
		}
		if there, err := mount.At(mountOf(a)); err != nil {
			return err
		} else if there {
			break
		}
	}
	if _, err := bounded(ctx, "stat", "-c", "%s", fileOf(a)); err != nil {
		return errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("rbd-fuse does not show the image: %w", err))
	}
	return nil
}

// said is the end of what rbd-fuse printed.
func (f fuse) said(a *attachment) string {
	text, _ := os.ReadFile(filepath.Join(a.Dir, "log"))
	line := strings.Join(strings.Fields(string(text)), " ")
	return line[max(0, len(line)-300):]
}

// loops returns the loop devices that stand on the file.
func (f fuse) loops(a *attachment) (names []string, err error) {
	all, err := filepath.Glob(filepath.Join(f.p.c.Sys, "block", "loop*"))
	for _, dir := range all {
		if backing(dir) == fileOf(a) {
			names = append(names, filepath.Base(dir))
		}
	}
	return names, err
}

// backing is the file of a loop device. Where a look at it fails while the cluster is out of reach,
// the kernel takes the file for deleted, which it is not.
func backing(dir string) string {
	b, _ := os.ReadFile(filepath.Join(dir, "loop", "backing_file"))
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), " (deleted)")
}

func (f fuse) node(name string) string { return filepath.Join(f.p.c.Dev, name) }

// plug attaches a loop device. It reads and writes past the cache of the file, which is one too
// many, where the kernel can.
func (f fuse) plug(ctx context.Context, a *attachment) error {
	names, err := f.loops(a)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return f.grow(ctx, a)
	}
	_, err = bounded(ctx, "losetup", "--find", "--direct-io=on", fileOf(a))
	if err != nil {
		return errdefs.As(errdefs.ErrUnavailable, err)
	}
	return nil
}

func (f fuse) grow(ctx context.Context, a *attachment) error {
	names, err := f.loops(a)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := bounded(ctx, "losetup", "--set-capacity", f.node(name)); err != nil {
			return errdefs.As(errdefs.ErrUnavailable, err)
		}
	}
	return nil
}

func (f fuse) shows(a *attachment, v block.Device) bool {
	return strings.HasPrefix(v.Name, "loop") && backing(filepath.Join(f.p.c.Sys, "block", v.Name)) == fileOf(a)
}

func (f fuse) file(a *attachment) string { return fileOf(a) }

// endTime is how long rbd-fuse may take to end.
const endTime = 5 * time.Second

// close detaches the loop device and ends rbd-fuse, which has nothing in memory that is not
// written: it has no cache, and the kernel's was flushed with the device.
func (f fuse) close(ctx context.Context, a *attachment, force bool) error {
	if force { // what waits for the file gets errors now, and nothing waits for it below
		if err := kill(ctx, a.PID, a.Dir); err != nil {
			return err
		}
	}
	for {
		names, err := f.loops(a)
		if err != nil {
			return err
		}
		for _, name := range names {
			if _, err := bounded(ctx, "losetup", "--detach", f.node(name)); err != nil && !force {
				return errdefs.As(errdefs.ErrUnavailable, err)
			}
		}
		if len(names) == 0 || force { // the last one who has it open lets it go
			break
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errdefs.Errorf(errdefs.ErrInUse, "%s is in use by a program", f.node(names[0]))
		}
	}
	for {
		err := unix.Unmount(mountOf(a), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return state.Classify(err)
		}
	}
	// It ends by itself now. One that is killed is a watcher of the image for 30 s more.
	for until := time.Now().Add(endTime); !force && alive(a.PID, a.Dir) && time.Now().Before(until) && ctx.Err() == nil; {
		time.Sleep(10 * time.Millisecond)
	}
	if err := kill(ctx, a.PID, a.Dir); err != nil {
		return err
	}
	for _, dir := range []string{mountOf(a), filepath.Join(a.Dir, "log"), a.Dir} {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return state.Classify(err)
		}
	}
	return nil
}
