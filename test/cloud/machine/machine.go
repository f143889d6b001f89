// Package machine is a simulated host to which a fake cloud plugs disks.
//
// It is a pair of trees, dev and sys, that look as /dev and /sys do on a machine of
// that cloud. The nodes below dev are real block devices, loop devices over sparse files,
// so that file systems are made, mounted and written on them. What tells a disk from
// another lies where the kernel and udev put it:
//
//	dev/NAME                   the device
//	dev/disk/by-id/LINK        to it
//	sys/block/NAME             to its folder below sys/devices: dev, size, ro,
//	                           serial (virtio), device/{serial,model} (NVMe),
//	                           device/{vendor,model,vpd_pg80,vpd_pg83} (SCSI)
//	sys/dev/block/MAJOR:MINOR  to the same folder
//
// Not simulated are uevents, partitions, and ioctls of the bus, such as NVMe's identify.
// The names of disks lie: which of the free ones comes next is drawn by lot, and says
// nothing of what the cloud was asked for.
//
// A loop device of a machine is gone when the process that plugged it has ended, however
// it ended, and nothing is mounted from it. Its node in the tree then stands for whatever
// takes that loop device next: leave the trees of a dead machine alone, until [New] has
// cleared them.
package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Machine is one host. Its methods may be called at the same time.
type Machine struct {
	dir string

	mu    sync.Mutex
	rand  *rand.Rand
	disks map[string]*plugged
}

// plugged is a disk on a machine.
type plugged struct {
	Disk
	loop  *os.File // held open, as the kernel takes the device apart when nobody has it
	dev   uint64
	paths []string // what to remove, in this order
}

// New makes the trees below dir, clearing what an earlier machine left there. One of its
// disks that is mounted yet is an error that wraps EBUSY.
func New(dir string) (*Machine, error) { return NewSeed(dir, 1) }

// NewSeed is [New] with the seed by which names of disks are drawn.
func NewSeed(dir string, seed uint64) (*Machine, error) {
	m := &Machine{dir: dir, rand: rand.New(rand.NewPCG(seed, 0)), disks: map[string]*plugged{}}
	if err := m.clear(); err != nil {
		return nil, err
	}
	for _, d := range []string{m.Dev(), m.Sys() + "/block", m.Sys() + "/dev/block", m.files()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Dev is the folder that stands for /dev.
func (m *Machine) Dev() string { return filepath.Join(m.dir, "dev") }

// Sys is the folder that stands for /sys.
func (m *Machine) Sys() string { return filepath.Join(m.dir, "sys") }

// files has a link from each disk's name to the file behind it, for the next start.
func (m *Machine) files() string { return filepath.Join(m.dir, "files") }

// clear takes away the trees of an earlier machine in the same folder.
func (m *Machine) clear() error {
	left, err := os.ReadDir(m.files())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range left {
		file, err := os.Readlink(filepath.Join(m.files(), e.Name()))
		if err != nil {
			return err
		}
		if loop := holder(file); loop != "" {
			return fmt.Errorf("%s: %s of the machine before is on %s yet%s: %w", m.dir, file, loop, mountedAt(loop), unix.EBUSY)
		}
	}
	for _, d := range []string{m.Dev(), m.Sys(), m.files()} {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	return nil
}

// Plug shows the disk on the machine, and returns the name it got.
func (m *Machine) Plug(d Disk) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, p := range m.disks {
		if p.File == d.File {
			return "", fmt.Errorf("%s: on the machine already as %s: %w", d.File, name, fs.ErrExist)
		}
	}
	if d.Name == "" {
		d.Name = m.free(d.Bus)
	}
	if m.disks[d.Name] != nil {
		return "", fmt.Errorf("%s: %w", d.Name, fs.ErrExist)
	}
	loop, dev, err := attach(d.File)
	if err != nil {
		return "", err
	}
	p := &plugged{Disk: d, loop: loop, dev: dev}
	if err := m.show(p); err != nil {
		return "", errors.Join(err, p.hide(), loop.Close())
	}
	m.disks[d.Name] = p
	return d.Name, nil
}

// free draws a name that no disk has.
func (m *Machine) free(b Bus) string {
	var names []string
	for n := 1; len(names) < spread; n++ {
		if name := b.name(n); m.disks[name] == nil {
			names = append(names, name)
		}
	}
	return names[m.rand.IntN(len(names))]
}

// Unplug takes the disk away. While a file system on it is mounted, in whatever mount
// namespace, it does nothing and its error wraps EBUSY. A name that the machine does not
// have is fs.ErrNotExist.
func (m *Machine) Unplug(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.disks[name]
	if p == nil {
		return fmt.Errorf("%s: no such disk: %w", name, fs.ErrNotExist)
	}
	// The claim keeps away a mount that comes now.
	claim, err := claim(p.loop)
	if err != nil {
		return fmt.Errorf("%s: mounted or claimed%s: %w", name, mountedAt(p.loop.Name()), err)
	}
	delete(m.disks, name)
	return errors.Join(p.hide(), flush(claim), claim.Close(), p.loop.Close())
}

// Busy tells whether [Machine.Unplug] would refuse.
func (m *Machine) Busy(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.disks[name]
	if p == nil {
		return false
	}
	claim, err := claim(p.loop)
	if err != nil {
		return true
	}
	_ = claim.Close()
	return false
}

// Grow shows the size that the disk's file has now.
func (m *Machine) Grow(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.disks[name]
	if p == nil {
		return fmt.Errorf("%s: no such disk: %w", name, fs.ErrNotExist)
	}
	if err := capacity(p.loop); err != nil {
		return err
	}
	return p.writeSize(filepath.Join(m.Sys(), "block", name))
}

// Names are those of the disks that are plugged in, in order.
func (m *Machine) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, 0, len(m.disks))
	for name := range m.disks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Named returns the name of the disk that a file is shown as, if it is.
func (m *Machine) Named(file string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, p := range m.disks {
		if p.File == file {
			return name, true
		}
	}
	return "", false
}

// Close takes all disks away. Those from which something is mounted are named in an error
// that wraps EBUSY; their devices go with the last unmount.
func (m *Machine) Close() error {
	var errs []error
	for _, name := range m.Names() {
		err := m.Unplug(name)
		if errors.Is(err, unix.EBUSY) {
			m.mu.Lock()
			p := m.disks[name]
			delete(m.disks, name)
			m.mu.Unlock()
			err = errors.Join(err, p.hide(), p.loop.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
