package csi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/csi/tap"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

var build struct {
	once sync.Once
	dir  string
	lab  *lab.Lab
	err  error
}

// given are the variables REMORA_CSI_*. The daemon, which takes variables that begin like this for its own, does not
// get to see them.
var given = map[string]string{}

func TestMain(m *testing.M) {
	for _, pair := range os.Environ() {
		if key, value, _ := strings.Cut(pair, "="); strings.HasPrefix(key, "REMORA_CSI_") {
			given[key] = value
			os.Unsetenv(key)
		}
	}
	code := m.Run()
	if build.dir != "" {
		if err := os.RemoveAll(build.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Netns, testenv.Busybox, testenv.Dockerd, testenv.DockerCLI)
	build.once.Do(func() {
		busybox, err := testenv.BusyboxPath()
		if err == nil {
			build.dir, err = os.MkdirTemp("", "remora-csi-")
		}
		if err == nil {
			build.lab, err = lab.New(build.dir, busybox)
		}
		build.err = err
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.lab
}

// rig is a host with an engine and a daemon that has one pool of the driver csi, behind a tap.
type rig struct {
	*lab.Host
	t      *testing.T
	tap    *tap.Tap
	run    string // the daemon's directory, which is the same for the CSI driver
	daemon *lab.Process
	remora string
}

// pool is how the pool is called, and the volume driver of the engine.
const pool = "real"

// newRig starts all. keys are those of the pool besides driver and endpoint.
func newRig(t *testing.T, endpoint, keys string) *rig {
	t.Helper()
	l := newLab(t)
	r := &rig{t: t, run: sharedDir(t), remora: l.Remora}
	var err error
	if r.tap, err = tap.Start(filepath.Join(r.run, "tap.sock"), endpoint); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.tap.Stop)
	r.Host = l.Host(t, "h1")
	r.Share(r.run)
	r.daemon = r.Remora(fmt.Sprintf("run_dir = %q\n\n[pool.%s]\ndriver = \"csi\"\nendpoint = %q\n%s\n",
		filepath.Join(r.run, "r"), pool, filepath.Join(r.run, "tap.sock"), keys))
	r.Dockerd()
	return r
}

// sharedDir makes a directory that is a mount of its own and shared, and whose path is short. It is no t.TempDir:
// what a driver has mounted below it may be somebody's storage, and is never removed.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "csi-")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeShared(t, dir) })
	return dir
}

// removeShared unmounts all below a directory, such as what the daemon bound to itself, and removes it where nothing is left mounted.
func removeShared(t *testing.T, dir string) {
	t.Helper()
	for _, at := range mountsBelow(t, dir) {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Errorf("unmount %s: %v", at, err)
		}
	}
	if left := mountsBelow(t, dir); len(left) > 0 {
		t.Errorf("%s is not removed: mounted: %v", dir, left)
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		immutable(path)
		return err
	})
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		t.Error(err)
	}
}

// immutable takes from a mountpoint that it cannot be changed.
func immutable(path string) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	const attributeImmutable = 0x10
	if flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); err == nil && flags&attributeImmutable != 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^attributeImmutable)
	}
}

// mountsBelow returns the mountpoints at and below a directory, the deepest first.
func mountsBelow(t *testing.T, dir string) (points []string) {
	t.Helper()
	all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		points = append(points, m.Mountpoint)
	}
	slices.Sort(points)
	slices.Reverse(points)
	return points
}

// container runs a container with a volume to its end.
func (r *rig) container(volume, script string) (string, error) {
	return r.Docker("run", "--rm", "--network=none", "-v", volume+":/data", lab.ImageName, "sh", "-c", script)
}

func (r *rig) mustContainer(volume, script string) string {
	r.t.Helper()
	out, err := r.container(volume, script)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// eventually waits until ok returns nil.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(lab.Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// down waits until the driver has no volume attached, staged or published any more, as far as was said to it.
func (r *rig) down() {
	r.t.Helper()
	eventually(r.t, "all volumes are down", func() error {
		if up := r.tap.Up(); len(up) > 0 {
			return fmt.Errorf("up: %s", strings.Join(up, "; "))
		}
		return nil
	})
}
