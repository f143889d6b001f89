package nova

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/test/cloud/ceph"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

// connection is what Cinder says of where the bytes of a volume are.
type connection struct {
	Type   string `json:"driver_volume_type"`
	Name   string `json:"name"`
	Format string `json:"format"`
}

// plug shows a volume on the machine. The caller has the lock.
func (s *Server) plug(ctx context.Context, id string, v *volume, c connection) error {
	var file string
	switch {
	case c.Type == "nfs" && c.Format == "raw" && c.Name == filepath.Base(s.nova.cloud.File(id)):
		file = s.nova.cloud.File(id)
	case c.Type == "rbd" && s.nova.ceph != nil:
		dir := filepath.Join(s.dir, "rbd-"+id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		m, err := s.nova.ceph.Fuse(ctx, dir)
		if err != nil {
			return err
		}
		v.fuse = m
		file = m.File(strings.TrimPrefix(c.Name, ceph.Pool+"/"))
	default:
		return fmt.Errorf("a %s volume of format %q called %q: this compute host has no way to it", c.Type, c.Format, c.Name)
	}
	name, err := s.Machine.Plug(machine.CinderVirtio(file, id))
	if err != nil {
		if v.fuse != nil {
			v.fuse.Close()
			v.fuse = nil
		}
		return err
	}
	v.disk = name
	return nil
}

// unplug takes a volume from the machine, mounted or not. The caller has the lock.
func (s *Server) unplug(v *volume) error {
	if v.disk == "" {
		return nil
	}
	err := s.Machine.Unplug(v.disk)
	if errors.Is(err, unix.EBUSY) {
		if v.fuse != nil {
			// Its client dies, and with it whatever the mount still writes.
			v.fuse.Kill()
		}
		if err = s.Machine.Yank(v.disk); v.fuse != nil {
			err = nil // there is nothing to sever from
		}
	}
	if v.fuse != nil {
		v.fuse.Close()
		v.fuse = nil
	}
	v.disk = ""
	return err
}
