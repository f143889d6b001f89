package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// show makes the node of a disk, what sysfs tells of it, and last its links, as udev
// comes after the kernel. What it made is in p.paths even when it failed.
func (m *Machine) show(p *plugged) error {
	if err := p.link(m.files(), p.Name, p.File); err != nil {
		return err
	}
	devices := filepath.Join(m.Sys(), "devices")
	parent, own := p.folders(devices)
	p.remove(parent)
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	number := fmt.Sprintf("%d:%d", unix.Major(p.dev), unix.Minor(p.dev))
	up, err := filepath.Rel(own, parent)
	if err != nil {
		return err
	}
	if err := os.Symlink(up, filepath.Join(own, "device")); err != nil {
		return err
	}
	for file, text := range p.attributes(parent, own) {
		if err := os.WriteFile(file, []byte(text), 0o444); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"dev": number + "\n", "ro": "0\n", "removable": "0\n"} {
		if err := os.WriteFile(filepath.Join(own, name), []byte(text), 0o444); err != nil {
			return err
		}
	}
	if err := p.writeSize(own); err != nil {
		return err
	}
	node := filepath.Join(m.Dev(), p.Name)
	p.remove(node)
	if err := unix.Mknod(node, unix.S_IFBLK|0o660, int(p.dev)); err != nil {
		return fmt.Errorf("%s: mknod: %w", node, err)
	}
	for _, l := range []struct{ dir, name string }{
		{m.Sys() + "/block", p.Name},
		{m.Sys() + "/dev/block", number},
	} {
		target, err := filepath.Rel(l.dir, own)
		if err != nil {
			return err
		}
		if err := p.link(l.dir, l.name, target); err != nil {
			return err
		}
	}
	for _, name := range p.Links {
		if err := p.link(filepath.Join(m.Dev(), "disk/by-id"), name, "../../"+p.Name); err != nil {
			return err
		}
	}
	return nil
}

func (p *plugged) link(dir, name, target string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	if err := os.Symlink(target, path); err != nil {
		return err
	}
	p.remove(path)
	return nil
}

// remove notes what hide has to take away. The last made is the first to go.
func (p *plugged) remove(path string) { p.paths = append([]string{path}, p.paths...) }

// hide takes away all that show made.
func (p *plugged) hide() error {
	var errs []error
	for _, path := range p.paths {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// folders returns the disk's own folder in sysfs, and that of what it hangs on, which is
// where its "device" leads to.
func (p *plugged) folders(devices string) (parent, own string) {
	switch p.Bus {
	case NVMe:
		controller, _, _ := strings.Cut(strings.TrimPrefix(p.Name, "nvme"), "n")
		parent = filepath.Join(devices, "pci0000:00/nvme/nvme"+controller)
		return parent, filepath.Join(parent, p.Name)
	case Virtio:
		parent = filepath.Join(devices, "pci0000:00/virtio-"+p.Name)
	case Xen:
		parent = filepath.Join(devices, "vbd-"+p.Name)
	case SCSI:
		parent = filepath.Join(devices, "pci0000:00/virtio3/host2/target2:0:"+p.Name, "2:0:"+p.Name+":0")
	}
	return parent, filepath.Join(parent, "block", p.Name)
}

// attributes returns the files that tell who the disk is. The buses pad with blanks, and so
// does sysfs.
func (p *plugged) attributes(parent, own string) map[string]string {
	switch p.Bus {
	case NVMe:
		return map[string]string{
			filepath.Join(parent, "serial"):       fmt.Sprintf("%-20s\n", p.Serial),
			filepath.Join(parent, "model"):        fmt.Sprintf("%-40s\n", p.Model),
			filepath.Join(parent, "firmware_rev"): fmt.Sprintf("%-8s\n", "1.0"),
			filepath.Join(parent, "transport"):    "pcie\n",
			filepath.Join(own, "nsid"):            "1\n",
			filepath.Join(own, "wwid"):            fmt.Sprintf("nvme.%s-%x-%x-00000001\n", strings.TrimPrefix(p.Vendor, "0x"), p.Serial, p.Model),
		}
	case Virtio:
		return map[string]string{
			filepath.Join(parent, "vendor"): p.Vendor + "\n",
			filepath.Join(own, "serial"):    p.Serial, // the kernel writes no end of line here
		}
	case SCSI:
		return map[string]string{
			filepath.Join(parent, "vendor"):   fmt.Sprintf("%-8s\n", p.Vendor),
			filepath.Join(parent, "model"):    fmt.Sprintf("%-16s\n", p.Model),
			filepath.Join(parent, "rev"):      "1   \n",
			filepath.Join(parent, "type"):     "0\n",
			filepath.Join(parent, "state"):    "running\n",
			filepath.Join(parent, "vpd_pg80"): page(0x80, []byte(p.Serial)),
			filepath.Join(parent, "vpd_pg83"): page(0x83, designator(p.ID)),
		}
	case Xen:
		return map[string]string{filepath.Join(parent, "devtype"): "vbd\n"}
	}
	return nil
}

// page is a page of vital product data (SPC-5, 7.7).
func page(code byte, body []byte) string {
	head := []byte{0, code, 0, 0}
	binary.BigEndian.PutUint16(head[2:], uint16(len(body)))
	return string(append(head, body...))
}

// designator is one in ASCII, by the vendor's own rules, for the logical unit.
func designator(id string) []byte {
	return append([]byte{2, 0, 0, byte(len(id))}, id...)
}

// writeSize writes how many sectors of 512 bytes the disk has, whatever its own sectors are.
func (p *plugged) writeSize(own string) error {
	fi, err := os.Stat(p.File)
	if err != nil {
		return err
	}
	path := filepath.Join(own, "size")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(strconv.FormatInt(fi.Size()/512, 10)+"\n"), 0o444)
}
