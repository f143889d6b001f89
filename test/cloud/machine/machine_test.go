package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
)

const (
	size     = 64 << 20
	volumeID = "vol-0123456789abcdef0"
	cinderID = "6f9a4b1c-7e0d-4f8b-9f57-1d2c3b4a5968"
)

// image makes a sparse file.
func image(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	return file
}

// start makes a machine that leaves nothing behind.
func start(t *testing.T) *Machine {
	t.Helper()
	testenv.Require(t, testenv.Loop)
	noneLeft(t)
	m, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		entries, err := os.ReadDir(m.Dev())
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if e.Name() != "disk" {
				t.Errorf("dev/%s was left", e.Name())
			}
		}
	})
	return m
}

// noneLeft looks, when all else is done, for loop devices over files of this test.
func noneLeft(t *testing.T) {
	t.Helper()
	dir := filepath.Dir(t.TempDir())
	t.Cleanup(func() {
		backed, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
		if err != nil {
			t.Error(err)
		}
		for _, sys := range backed {
			if text, err := os.ReadFile(sys); err == nil && strings.HasPrefix(string(text), dir+"/") {
				t.Errorf("%s is left on a loop device", text)
			}
		}
	})
}

func plug(t *testing.T, m *Machine, d Disk) string {
	t.Helper()
	name, err := m.Plug(d)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestShown reads from the trees what a driver would, for every kind of disk.
func TestShown(t *testing.T) {
	for _, tt := range []struct {
		name  string
		disk  Disk
		node  string
		sys   map[string]string
		links []string
	}{
		{
			"ebs", EBS(image(t, "ebs"), volumeID), "nvme",
			map[string]string{
				"device/serial": "vol0123456789abcdef0\n",
				"device/model":  "Amazon Elastic Block Store              \n",
				"size":          "131072\n",
			},
			[]string{
				"nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0", "nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0_1",
				"nvme-nvme.1d0f-766f6c3031323334353637383961626364656630-416d617a6f6e20456c617374696320426c6f636b2053746f7265-00000001",
			},
		},
		{"xen", XenEBS(image(t, "xen"), "/dev/sdf"), "xvdf", map[string]string{"device/devtype": "vbd\n"}, nil},
		{
			"digitalocean", DigitalOcean(image(t, "do"), "data-1"), "sd",
			map[string]string{
				"device/vendor": "DO      \n", "device/model": "Volume          \n",
				"device/vpd_pg80": "\x00\x80\x00\x06data-1", "device/vpd_pg83": "\x00\x83\x00\x0a\x02\x00\x00\x06data-1",
			},
			[]string{"scsi-0DO_Volume_data-1"},
		},
		{
			"gce", GCE(image(t, "gce"), "data-1"), "sd",
			map[string]string{"device/vendor": "Google  \n", "device/model": "PersistentDisk  \n"},
			[]string{"google-data-1", "scsi-0Google_PersistentDisk_data-1"},
		},
		{
			"cinder-virtio", CinderVirtio(image(t, "virtio"), cinderID), "vd",
			map[string]string{"serial": "6f9a4b1c-7e0d-4f8b-9", "device/vendor": "0x1af4\n"},
			[]string{"virtio-6f9a4b1c-7e0d-4f8b-9"},
		},
		{
			"cinder-scsi", CinderSCSI(image(t, "scsi"), cinderID), "sd",
			map[string]string{"device/vendor": "QEMU    \n", "device/model": "QEMU HARDDISK   \n"},
			[]string{"scsi-0QEMU_QEMU_HARDDISK_" + cinderID, "scsi-SQEMU_QEMU_HARDDISK_" + cinderID},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := start(t)
			name := plug(t, m, tt.disk)
			if !strings.HasPrefix(name, tt.node) {
				t.Errorf("it is called %s, want a name that begins %s", name, tt.node)
			}
			var node, sys unix.Stat_t
			if err := unix.Stat(filepath.Join(m.Dev(), name), &node); err != nil {
				t.Fatal(err)
			}
			if node.Mode&unix.S_IFMT != unix.S_IFBLK {
				t.Errorf("mode of the node is %o", node.Mode)
			}
			number := fmt.Sprintf("%d:%d", unix.Major(node.Rdev), unix.Minor(node.Rdev))
			want := map[string]string{"dev": number + "\n", "ro": "0\n"}
			maps.Copy(want, tt.sys)
			got := map[string]string{}
			for file := range want {
				text, err := os.ReadFile(filepath.Join(m.Sys(), "block", name, file))
				if err != nil {
					t.Error(err)
				}
				got[file] = string(text)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("sysfs (-want +got):\n%s", diff)
			}
			if err := unix.Stat(filepath.Join(m.Sys(), "dev/block", number, "size"), &sys); err != nil {
				t.Errorf("by its number: %v", err)
			}
			var links []string
			entries, err := os.ReadDir(filepath.Join(m.Dev(), "disk/by-id"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			for _, e := range entries {
				links = append(links, e.Name())
				var at unix.Stat_t
				if err := unix.Stat(filepath.Join(m.Dev(), "disk/by-id", e.Name()), &at); err != nil || at.Rdev != node.Rdev {
					t.Errorf("%s leads to another device: %v", e.Name(), err)
				}
			}
			if diff := cmp.Diff(tt.links, links); diff != "" {
				t.Errorf("links (-want +got):\n%s", diff)
			}
			if err := m.Unplug(name); err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{"dev", "dev/disk/by-id", "sys/block", "sys/dev/block", "files"} {
				entries, err := os.ReadDir(filepath.Join(m.dir, dir))
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				for _, e := range entries {
					if e.Name() != "disk" {
						t.Errorf("%s/%s was left", dir, e.Name())
					}
				}
			}
		})
	}
}

// TestNamesLie plugs the same disks in the same order on machines of other seeds.
func TestNamesLie(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	noneLeft(t)
	order := func(seed uint64) (names []string) {
		m, err := NewSeed(t.TempDir(), seed)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		for i := range 4 {
			names = append(names, plug(t, m, EBS(image(t, "v"), fmt.Sprintf("vol-%017x", i))))
		}
		return names
	}
	one, again, other := order(1), order(1), order(2)
	if diff := cmp.Diff(one, again); diff != "" {
		t.Errorf("one seed gives two orders:\n%s", diff)
	}
	if slices.Equal(one, other) {
		t.Errorf("two seeds give one order: %v", one)
	}
	if slices.IsSorted(one) && slices.IsSorted(other) {
		t.Errorf("the names tell the order: %v, %v", one, other)
	}
	if slices.Contains(one, "nvme0n1") {
		t.Errorf("a volume has the name of the root disk: %v", one)
	}
}

// TestUnplug writes a file, is refused while it is mounted, and finds the file on another
// machine.
func TestUnplug(t *testing.T) {
	m, other := start(t), start(t)
	disk := EBS(image(t, "v"), volumeID)
	name := plug(t, m, disk)
	at := mkfs(t, m, name)
	put(t, at, "hello")
	if !m.Busy(name) {
		t.Error("a mounted disk is not busy")
	}
	err := m.Unplug(name)
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), at) {
		t.Errorf("mounted: %v, want EBUSY with %s", err, at)
	}
	if got := get(t, at); got != "hello" {
		t.Errorf("after the refusal: %q", got)
	}
	unmount(t, at)
	if m.Busy(name) {
		t.Error("an unmounted disk is busy")
	}
	if err := m.Unplug(name); err != nil {
		t.Fatal(err)
	}
	if err := m.Unplug(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("again: %v", err)
	}
	name = plug(t, other, disk)
	at = mount(t, other, name)
	if got := get(t, at); got != "hello" {
		t.Errorf("on the other machine: %q", got)
	}
	unmount(t, at)
}

func TestPlugTwice(t *testing.T) {
	m := start(t)
	disk := EBS(image(t, "v"), volumeID)
	name := plug(t, m, disk)
	if _, err := m.Plug(disk); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the same file: %v", err)
	}
	second := XenEBS(image(t, "w"), "")
	second.Name = name
	if _, err := m.Plug(second); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the same name: %v", err)
	}
	if diff := cmp.Diff([]string{name}, m.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if _, err := m.Plug(EBS(filepath.Join(t.TempDir(), "none"), volumeID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestGrow(t *testing.T) {
	m := start(t)
	disk := EBS(image(t, "v"), volumeID)
	name := plug(t, m, disk)
	if err := os.Truncate(disk.File, 2*size); err != nil {
		t.Fatal(err)
	}
	if err := m.Grow(name); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(m.Sys(), "block", name, "size"))
	if err != nil || string(text) != fmt.Sprintf("%d\n", 2*size/512) {
		t.Errorf("size is %q, %v", text, err)
	}
	f, err := os.Open(filepath.Join(m.Dev(), name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if end, err := f.Seek(0, 2); err != nil || end != 2*size {
		t.Errorf("the device has %d bytes, %v", end, err)
	}
}

func TestCopyKeepsHoles(t *testing.T) {
	src := image(t, "v")
	f, err := os.OpenFile(src, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("middle"), size/2); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "copy")
	if err := Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	a, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(dst)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("the copy differs: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dst, &st); err != nil || st.Blocks*512 > size/4 {
		t.Errorf("the copy has %d blocks, %v", st.Blocks, err)
	}
	if err := Copy(dst, src); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
}
