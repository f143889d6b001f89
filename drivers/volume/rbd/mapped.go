package rbd

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// mapped makes a device by rbd map, of the kernel's own or of nbd.
type mapped struct {
	p   *provider
	way string
}

func (m mapped) name() string { return m.way }

// flags say which kind of device.
func (m mapped) flags() []string { return []string{"--device-type", m.way} }

// options are those of rbd map. Unless it is told not to, the kernel has one client for all images of
// a cluster, and to fence it for one image would fence it for all. And where nobody runs udev, as in a
// container, rbd would wait for it for ever; the core looks for the device itself.
func (m mapped) options() (all []string) {
	if m.way == "krbd" {
		all = []string{"noshare", "noudev"}
		if n := int(m.p.c.IOTimeout.Seconds()); n > 0 {
			all = append(all, "osd_request_timeout="+strconv.Itoa(n))
		}
	}
	return append(all, m.p.c.MapOptions...)
}

func (m mapped) open(ctx context.Context, a *attachment) error {
	// What this daemon mapped before is unmapped by now.
	name, err := m.find(ctx, a)
	if err != nil {
		return err
	}
	if name != "" {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "image %s is mapped on this host already, by somebody else, as %s", a.Image, m.node(name)),
			"when nothing uses it: rbd device unmap --device-type "+m.way+" "+m.node(name))
	}
	a.Mapping = true
	if err := m.p.save(a); err != nil {
		return err
	}
	args := append([]string{"device", "map"}, m.flags()...)
	if options := m.options(); len(options) > 0 {
		args = append(args, "--options", strings.Join(options, ","))
	}
	if m.way == "nbd" {
		args = append(args, "--rbd-cache=false") // as with rbd-fuse
		if n := int(m.p.c.IOTimeout.Seconds()); n > 0 {
			args = append(args, "--rados-osd-op-timeout="+strconv.Itoa(n))
		}
	}
	out, err := m.p.rbd(ctx, append(args, m.p.spec(a.Image))...)
	if err != nil {
		if strings.Contains(err.Error(), "feature") {
			err = errdefs.Hint(err, "the image has features that this kernel does not know: rbd feature disable "+m.p.spec(a.Image)+" FEATURE")
		}
		return err
	}
	a.Device = filepath.Base(strings.TrimSpace(string(out)))
	a.Server = m.server(a.Device)
	return nil
}

func (m mapped) node(name string) string { return filepath.Join(m.p.c.Dev, name) }

// find returns a device that the image has on this host.
func (m mapped) find(ctx context.Context, a *attachment) (string, error) {
	if m.way == "krbd" {
		all, err := filepath.Glob(filepath.Join(m.p.c.Sys, "bus/rbd/devices/*"))
		for _, dir := range all {
			if m.is(dir, a) {
				return "rbd" + filepath.Base(dir), err
			}
		}
		return "", err
	}
	type entry struct{ Pool, Namespace, Image, Device string }
	list, err := ask[[]entry](ctx, m.p.cluster, append([]string{"device", "list"}, m.flags()...)...)
	for _, e := range list {
		if e.Pool == m.p.c.Pool && e.Namespace == m.p.c.RadosNS && e.Image == a.Image {
			return filepath.Base(e.Device), err
		}
	}
	return "", err
}

// is tells whether a device of the bus rbd is the image. The id is what counts: names change.
func (m mapped) is(dir string, a *attachment) bool {
	read := func(file string) string {
		b, _ := os.ReadFile(filepath.Join(dir, file))
		return strings.TrimSpace(string(b))
	}
	return read("pool") == m.p.c.Pool && read("pool_ns") == m.p.c.RadosNS && read("image_id") == a.ID && read("current_snap") == "-"
}

// server is the rbd-nbd behind a device of nbd, by the number that the kernel has for it; empty for
// none.
func (m mapped) server(name string) string {
	b, _ := os.ReadFile(filepath.Join(m.p.c.Sys, "block", name, "pid"))
	return strings.TrimSpace(string(b))
}

// has tells whether the device that was made is the image's yet. Its name may be another's by now.
func (m mapped) has(a *attachment) bool {
	if m.way == "krbd" {
		return m.is(filepath.Join(m.p.c.Sys, "bus/rbd/devices", strings.TrimPrefix(a.Device, "rbd")), a)
	}
	return a.Server != "" && m.server(a.Device) == a.Server
}

func (m mapped) plug(context.Context, *attachment) error { return nil }
func (m mapped) grow(context.Context, *attachment) error { return nil } // it sees it by itself

func (m mapped) shows(a *attachment, v block.Device) bool {
	return a.Device != "" && v.Name == a.Device && m.has(a)
}

func (m mapped) file(a *attachment) string { return m.node(a.Device) }

func (m mapped) close(ctx context.Context, a *attachment, force bool) error {
	switch {
	case a.Device != "" && !m.has(a), !a.Mapping:
		return nil
	case a.Device == "": // of a try that was cut off
		name, err := m.find(ctx, a)
		if err != nil || name == "" {
			return err
		}
		a.Device, a.Server = name, m.server(name)
	}
	var options []string
	switch {
	case m.way == "nbd" && !force: // which asks nobody whether it is in use
		if err := m.unused(a); err != nil {
			return err
		}
	case m.way == "krbd" && force:
		options = []string{"--options", "noudev,force"}
	case m.way == "krbd":
		options = []string{"--options", "noudev"}
	}
	args := append([]string{"device", "unmap"}, m.flags()...)
	_, err := m.p.rbd(ctx, append(append(args, options...), m.node(a.Device))...)
	if err != nil && !m.has(a) {
		err = nil
	}
	return err
}

// unused is ErrInUse where a mount or a program has the device for itself.
func (m mapped) unused(a *attachment) error {
	fd, err := unix.Open(m.node(a.Device), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err == unix.EBUSY {
		return errdefs.Errorf(errdefs.ErrInUse, "%s is in use by a mount or a program", m.node(a.Device))
	}
	if err == nil {
		_ = unix.Close(fd)
	}
	return nil
}
