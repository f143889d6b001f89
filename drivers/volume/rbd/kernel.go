package rbd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// ways are all that there are, the best first.
func (p *provider) ways() []mapper { return []mapper{mapped{p, "krbd"}, mapped{p, "nbd"}, fuse{p}} }

// wayOf returns what made the device of an attachment. The pool may have another by now.
func (p *provider) wayOf(a *attachment) mapper {
	for _, m := range p.ways() {
		if m.name() == a.Map {
			return m
		}
	}
	return p.map_
}

// choose returns how images become devices here.
func (p *provider) choose() (mapper, error) {
	var why []string
	for _, m := range p.ways() {
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
