package block

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// machine is the devices of this host: sysfs says what there is, and dev has the nodes.
type machine struct{ dev, sys string }

// devices returns the disks of the machine. What goes while it is looked at is left out, and
// so are partitions, which are no disks.
func (m machine) devices() ([]Device, error) {
	entries, err := os.ReadDir(filepath.Join(m.sys, "block"))
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "devices cannot be listed: %w", err)
	}
	links := m.links()
	all := make([]Device, 0, len(entries))
	for _, e := range entries {
		v, err := m.device(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errdefs.Errorf(errdefs.ErrUnavailable, "devices cannot be listed: %w", err)
		}
		v.Links = links[v.Name]
		all = append(all, v)
	}
	return all, nil
}

// device reads what sysfs says of one disk. It is fs.ErrNotExist where there is none; any other
// error means that nothing is known, least of all that the disk has gone.
func (m machine) device(name string) (v Device, err error) {
	dir := filepath.Join(m.sys, "block", name)
	var failed error
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join(dir, file))
		// A device that goes away while it is read answers ENODEV.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENXIO) {
			failed = errors.Join(failed, err)
		}
		return strings.Trim(string(b), " \n\t\x00")
	}
	number := read("dev")
	if number == "" && failed == nil {
		return Device{}, fs.ErrNotExist
	}
	major, minor, _ := strings.Cut(number, ":")
	a, aerr := strconv.ParseUint(major, 10, 32)
	b, berr := strconv.ParseUint(minor, 10, 32)
	sectors, serr := strconv.ParseInt(read("size"), 10, 64)
	if err := errors.Join(failed, aerr, berr, serr); err != nil {
		if _, gone := os.Stat(dir); errors.Is(gone, fs.ErrNotExist) {
			return Device{}, fs.ErrNotExist
		}
		return Device{}, err
	}
	v = Device{
		Name: name, Path: filepath.Join(m.dev, strings.ReplaceAll(name, "!", "/")),
		Serial: read("serial"), Model: read("device/model"), Vendor: read("device/vendor"), WWID: read("wwid"),
		Size: 512 * sectors, Major: uint32(a), Minor: uint32(b),
	}
	if v.Serial == "" {
		v.Serial = read("device/serial")
	}
	if v.Serial == "" { // of SCSI disks the page is binary, with four bytes in front (SPC-4, 7.8.15)
		if page, err := os.ReadFile(filepath.Join(dir, "device/vpd_pg80")); err == nil && len(page) > 4 {
			v.Serial = strings.Trim(string(page[4:]), " \n\t\x00")
		}
	}
	if v.WWID == "" {
		v.WWID = read("device/wwid")
	}
	return v, failed
}

// links returns the names below dev/disk/by-id, by the name of the device they lead to. One that is
// older than the device's node is of the disk that had its name before: udev has yet to take it
// away.
func (m machine) links() map[string][]string {
	dir := filepath.Join(m.dev, "disk", "by-id")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	all := map[string][]string{}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		name := filepath.Base(to)
		var link unix.Stat_t
		if unix.Lstat(filepath.Join(dir, e.Name()), &link) == nil && link.Mtim.Nano() >= born(filepath.Join(m.dev, name)) {
			all[name] = append(all[name], e.Name())
		}
	}
	return all
}

// born returns when a file was made, 0 where its file system does not keep that.
func born(path string) int64 {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}

// errNoDevice says that the machine does not show the disk.
var errNoDevice = errdefs.Errorf(errdefs.ErrUnavailable, "the machine does not show the disk")

// find returns the device that is the disk, or [errNoDevice]. Two that say they are it are
// none.
func (m machine) find(p Provider, d Disk) (Device, error) {
	all, err := m.devices()
	if err != nil {
		return Device{}, err
	}
	var found []Device
	for _, v := range all {
		if p.Match(d, v) {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 0:
		return Device{}, errNoDevice
	case 1:
		return found[0], m.checkNode(found[0])
	}
	return Device{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "two devices say that they are the disk %s: %s and %s", d.ID, found[0].Path, found[1].Path),
		"nothing was touched; where both are paths of one disk, the pool cannot be used here")
}

// checkNode makes sure that the node leads to the device: names are given to others soon.
func (m machine) checkNode(v Device) error {
	var st unix.Stat_t
	err := unix.Stat(v.Path, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return errNoDevice // udev has not made it yet
	}
	if err != nil {
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s: %w", v.Path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK || unix.Major(st.Rdev) != v.Major || unix.Minor(st.Rdev) != v.Minor {
		return errNoDevice // of the disk that had the name before
	}
	return nil
}

// gone tells whether a device is not any more what it was when it was found. Where that cannot be
// seen it is not.
func (m machine) gone(p Provider, d Disk, v Device) bool {
	now, err := m.device(v.Name)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	now.Links = v.Links
	// What a device did not say of itself at first it may say later.
	other := func(was, is string) bool { return was != "" && was != is }
	return now.Major != v.Major || now.Minor != v.Minor || other(v.Serial, now.Serial) || other(v.WWID, now.WWID) || !p.Match(d, now)
}

// still tells whether a device is certainly what it was when it was found.
func (m machine) still(p Provider, d Disk, v Device) bool {
	_, err := m.device(v.Name)
	return err == nil && !m.gone(p, d, v)
}

// inUse tells whether anybody has the device: a mount, in whichever namespace, device-mapper, or
// a program that took it for itself (open(2), O_EXCL on a block device).
func (m machine) inUse(v Device) (bool, error) {
	fd, err := unix.Open(v.Path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOMEDIUM):
		return false, nil
	case err != nil:
		return false, errdefs.Errorf(errdefs.ErrUnavailable, "%s: %w", v.Path, err)
	}
	return false, unix.Close(fd)
}

// rescan asks the kernel to look how large a device is, where it does not by itself, as for
// SCSI disks.
func (m machine) rescan(v Device) {
	for _, file := range []string{"device/rescan", "device/rescan_controller"} {
		if f, err := os.OpenFile(filepath.Join(m.sys, "block", v.Name, file), os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteString("1")
			_ = f.Close()
		}
	}
}
