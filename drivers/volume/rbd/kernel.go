package rbd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// choose returns how images become devices here.
func (p *provider) choose() (mapper, error) {
	all := []mapper{mapped{p, "krbd"}, mapped{p, "nbd"}, fuse{p}}
	var why []string
	for _, m := range all {
		if p.c.Map != "auto" && p.c.Map != m.name() {
			continue
		}
		lacks := p.lacks(m.name())
		if lacks == "" {
			return m, nil
		}
		why = append(why, m.name()+": "+lacks)
	}
	return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "no way from an image to a device: %s", strings.Join(why, "; ")),
		"modprobe rbd, or install rbd-nbd or rbd-fuse")
}

// lacks says what this host lacks for a way, empty for nothing.
func (p *provider) lacks(way string) string {
	installed := func(program string) string {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed"
		}
		return ""
	}
	switch way {
	case "krbd":
		if !p.module("bus/rbd", "rbd") {
			return "the kernel has no rbd"
		}
	case "nbd":
		if why := installed("rbd-nbd"); why != "" {
			return why
		}
		if !p.module("block/nbd0", "nbd") {
			return "the kernel has no nbd"
		}
	default:
		if p.c.RadosNS != "" {
			return "rbd-fuse knows no namespaces"
		}
		if why := installed("rbd-fuse"); why != "" {
			return why
		}
		if _, err := os.Stat("/dev/fuse"); err != nil {
			return "there is no /dev/fuse"
		}
	}
	return ""
}

// module tells whether the kernel has something, after it was asked to load it.
func (p *provider) module(path, name string) bool {
	there := func() bool {
		_, err := os.Stat(filepath.Join(p.c.Sys, path))
		return err == nil
	}
	if there() {
		return true
	}
	_ = exec.Command("modprobe", "-q", name).Run() //nolint:noctx // it is done at once, or never begun
	return there()
}

// Advice says which way is taken, and why.
func (p *provider) Advice() catalog.Advice {
	way := p.map_.name()
	a := catalog.Advice{Text: "images of " + p.spec("") + " become devices by " + map[string]string{
		"krbd": "the kernel's rbd", "nbd": "rbd-nbd", "fuse": "rbd-fuse and a loop device",
	}[way]}
	if way == "fuse" && p.c.Map == "auto" {
		a.Text += ", since " + p.lacks("krbd") + " and " + p.lacks("nbd")
		a.Mend = "a kernel with rbd is several times faster: modprobe rbd, or boot one that has it"
	}
	return a
}

// mapped makes a device by rbd map, of the kernel's own or of nbd.
type mapped struct {
	p   *provider
	way string
}

func (m mapped) name() string { return m.way }

// flags say which kind of device.
func (m mapped) flags() []string { return []string{"--device-type", m.way} }

func (m mapped) open(ctx context.Context, a *attachment) error {
	if name, err := m.find(ctx, a); err != nil || name != "" {
		a.Device = name
		return err
	}
	args := append([]string{"device", "map"}, m.flags()...)
	options := m.p.c.MapOptions
	if n := int(m.p.c.IOTimeout.Seconds()); n > 0 {
		if m.way == "krbd" {
			options = append([]string{"osd_request_timeout=" + strconv.Itoa(n)}, options...)
		} else {
			args = append(args, "--rados-osd-op-timeout="+strconv.Itoa(n))
		}
	}
	if len(options) > 0 {
		args = append(args, "--options", strings.Join(options, ","))
	}
	if m.way == "nbd" {
		args = append(args, "--rbd-cache=false") // as with rbd-fuse
	}
	out, err := m.p.rbd(ctx, append(args, m.p.spec(a.Image))...)
	if err != nil {
		if strings.Contains(err.Error(), "feature") {
			err = errdefs.Hint(err, "the image has features that this kernel does not know: rbd feature disable "+m.p.spec(a.Image)+" FEATURE")
		}
		return err
	}
	a.Device = filepath.Base(strings.TrimSpace(string(out)))
	return nil
}

// find returns the device that the image has already, of a try that was cut off.
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

func (m mapped) plug(context.Context, *attachment) error { return nil }
func (m mapped) grow(context.Context, *attachment) error { return nil } // it sees it by itself

func (m mapped) shows(a *attachment, v block.Device) bool {
	if v.Name != a.Device || a.Device == "" {
		return false
	}
	if m.way == "krbd" {
		return m.is(filepath.Join(m.p.c.Sys, "bus/rbd/devices", strings.TrimPrefix(v.Name, "rbd")), a)
	}
	_, err := os.Stat(filepath.Join(m.p.c.Sys, "block", v.Name, "pid"))
	return err == nil
}

func (m mapped) probe(ctx context.Context, a *attachment) error {
	return readBlock(ctx, filepath.Join(m.p.c.Dev, a.Device))
}

func (m mapped) close(ctx context.Context, a *attachment, force bool) error {
	if a.Device == "" {
		name, err := m.find(ctx, a)
		if err != nil || name == "" {
			return err
		}
		a.Device = name
	}
	args := append([]string{"device", "unmap"}, m.flags()...)
	if force {
		args = append(args, "--options", "force")
	}
	_, err := m.p.rbd(ctx, append(args, filepath.Join(m.p.c.Dev, a.Device))...)
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalid) { // not mapped any more
		name, ferr := m.find(ctx, a)
		if ferr == nil && name == "" {
			return nil
		}
	}
	return err
}
