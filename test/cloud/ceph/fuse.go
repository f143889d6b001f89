package ceph

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/test/cloud/process"
)

// Mount is a pool whose images are files, by a client of its own.
type Mount struct {
	Dir  string
	fuse *process.Process
}

// Fuse mounts the pool on dir, which exists. The cache of librbd is off: with it, a client that
// was put on the blocklist answers fsync as if all were well for data that is lost.
func (c *Cluster) Fuse(ctx context.Context, dir string) (*Mount, error) {
	before, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("rbd-fuse", "--conf", c.Config, "--id", User, "--rbd-cache=false", "-p", Pool, "-f", dir)
	p, err := process.Start("rbd-fuse", c.path("rbd-fuse.out"), cmd)
	if err != nil {
		return nil, err
	}
	m := &Mount{dir, p}
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("not mounted after 20 s"))
	defer cancel()
	err = process.Wait(ctx, "rbd-fuse", func() error {
		now, err := os.Stat(dir)
		if err == nil && device(now) == device(before) {
			err = fmt.Errorf("%s: nothing is mounted", dir)
		}
		return err
	}, p)
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func device(fi os.FileInfo) uint64 { return fi.Sys().(*syscall.Stat_t).Dev }

// File is the path of an image.
func (m *Mount) File(image string) string { return filepath.Join(m.Dir, image) }

// Close unmounts the pool and ends its client, which writes what it has in its cache.
func (m *Mount) Close() {
	_ = unix.Unmount(m.Dir, unix.MNT_DETACH)
	m.fuse.Stop(3 * time.Second)
}

// Kill ends the client as a host that loses its power does. The mount stays, and answers no
// more.
func (m *Mount) Kill() { m.fuse.Kill() }

// Freeze stops the client, as a host does that hangs; thaw lets it go on.
func (m *Mount) Freeze() (thaw func()) {
	_ = syscall.Kill(m.fuse.Pid(), syscall.SIGSTOP)
	return func() { _ = syscall.Kill(m.fuse.Pid(), syscall.SIGCONT) }
}
