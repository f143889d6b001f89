package btrfs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func mountedAt(t testing.TB, path string) bool {
	t.Helper()
	is, err := mount.At(path)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatal(err)
	}
	return is
}

func totalSize(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize
}

// TestImageNeedsNothing: no key at all gives a pool with snapshots on any host.
func TestImageNeedsNothing(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	h := newHost(t)
	d := openTable(t, h, map[string]any{})
	create(t, d, "one")
	if err := d.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	fi, err := os.Stat(h.state + "/images/test.btrfs")
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(h.state+"/images/test.btrfs", &st); err != nil || fi.Mode().Perm() != 0o600 ||
		fi.Size() < 1<<30 || st.Blocks*512 > 64<<20 {
		t.Errorf("the image has mode %v, size %d and takes %d; %v", fi.Mode(), fi.Size(), st.Blocks*512, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if mountedAt(t, h.run+"/btrfs/test") {
		t.Error("mounted after Close, and nobody uses a volume")
	}
	noLoop(t, h.state+"/images/test.btrfs")
}

// TestImageIsFoundAgain: after a clean end, and after a crash that left it mounted.
func TestImageIsFoundAgain(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	h := newHost(t)
	d := openImage(t, h)
	create(t, d, "one")
	write(t, data(t, d, "one")+"/f", "kept")
	killed := openImage(t, h) // the first one is as good as dead
	mustList(t, killed, "one")
	mustRead(t, data(t, killed, "one")+"/f", "kept")
	mounts, err := mount.List(h.run + "/btrfs/test")
	if err != nil || len(mounts) != 1 {
		t.Errorf("mounts: %+v, %v", mounts, err)
	}
	// The mountpoint is taken away by hand: it heals.
	if err := unix.Unmount(d.Path, 0); err != nil {
		t.Fatal(err)
	}
	mustList(t, killed, "one")
	mustRead(t, data(t, killed, "one")+"/f", "kept")
	for _, d := range []*driver{killed, d} {
		for _, name := range []string{"one"} {
			if err := d.Unmount(t.Context(), name, ""); err != nil {
				t.Error(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if mountedAt(t, d.Path) {
		t.Error("mounted after the last Close")
	}
	again := openImage(t, h)
	mustRead(t, data(t, again, "one")+"/f", "kept")
}

// TestImageStaysForContainers: Close leaves the image where a volume is used, be it that this
// process mounted it or that a container has it in its own mount table.
func TestImageStaysForContainers(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	h := newHost(t)
	d := openImage(t, h)
	create(t, d, "one")
	dir := data(t, d, "one")
	if err := d.Close(); err != nil || !mountedAt(t, d.Path) {
		t.Fatalf("a volume was mounted, and Close unmounted: %v", err)
	}
	d = openImage(t, h) // one that has mounted nothing itself
	in, err := os.MkdirTemp(t.TempDir(), "container")
	if err != nil {
		t.Fatal(err)
	}
	container := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation=private", "sh", "-c",
		`mount --bind "$0" "$1" && umount "$2" && echo ready && cat >/dev/null; cat "$1/f"`, dir, in, d.Path)
	stdin, err := container.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	ready := make(chan struct{})
	container.Stdout = writerFunc(func(b []byte) (int, error) {
		if out.Len() == 0 {
			close(ready)
		}
		return out.Write(b)
	})
	if err := container.Start(); err != nil {
		t.Fatal(err)
	}
	<-ready
	if err := d.Close(); err != nil || !mountedAt(t, d.Path) {
		t.Fatalf("a container has a volume, and Close unmounted: %v", err)
	}
	d = openImage(t, h)
	write(t, data(t, d, "one")+"/f", "for both")
	_ = stdin.Close()
	if err := container.Wait(); err != nil || out.String() != "ready\nfor both" {
		t.Errorf("the container read %q, %v", out.String(), err)
	}
	_ = d.Unmount(t.Context(), "one", "")
	if err := d.Close(); err != nil || mountedAt(t, d.Path) {
		t.Errorf("nobody uses a volume, and Close left the image mounted: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestImageGrows(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	h := newHost(t)
	d := openTable(t, h, map[string]any{"size": "256m"})
	create(t, d, "one")
	write(t, data(t, d, "one")+"/f", "kept")
	mustHave := func(mib int64) {
		t.Helper()
		if got := totalSize(t, d.Path); got != mib<<20 {
			t.Errorf("the file system has %d MiB, want %d", got>>20, mib)
		}
		mustRead(t, data(t, d, "one")+"/f", "kept")
	}
	mustHave(256)
	d = openTable(t, h, map[string]any{"size": "512m"}) // while it is mounted
	mustHave(512)
	// A crash after the file was grown, and before what is on it.
	if err := os.Truncate(d.image.path, 600<<20); err != nil {
		t.Fatal(err)
	}
	d = openTable(t, h, map[string]any{})
	mustHave(600)
	_, err := tryOpen(t, map[string]any{"size": "300m"}, h)
	wantErr(t, err, errdefs.ErrInvalid, "size 300m: the image "+d.image.path+" has 600m already, and cannot shrink")
	mustHave(600)
}

func TestImageIsNeverFormattedTwice(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	dir := t.TempDir()
	for name, text := range map[string]string{"text": "precious", "empty": ""} {
		path := filepath.Join(dir, name)
		write(t, path, text)
		_, err := tryOpen(t, map[string]any{"image": path}, newHost(t))
		wantErr(t, err, errdefs.ErrInvalid, "not an image of a btrfs")
		mustRead(t, path, text)
	}
	command(t, "truncate", "--size=256M", dir+"/ext4")
	command(t, "mkfs.ext4", "-q", dir+"/ext4")
	_, err := tryOpen(t, map[string]any{"image": dir + "/ext4"}, newHost(t))
	wantErr(t, err, errdefs.ErrInvalid, "not an image of a btrfs")
	// One that was there and is not: its disk is away.
	h := newHost(t)
	image := filepath.Join(dir, "image")
	table := map[string]any{"image": image, "size": "256m"}
	d := openTable(t, h, table)
	create(t, d, "one")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	noLoop(t, image)
	if err := os.Rename(image, image+".away"); err != nil {
		t.Fatal(err)
	}
	d = openTable(t, h, table)
	wantErr(t, d.Ping(t.Context()), errdefs.ErrUnavailable, "the image of the pool is not there")
	wantErr(t, d.Create(t.Context(), "two", opts()), errdefs.ErrUnavailable, "the image of the pool is not there")
	if err := os.Rename(image+".away", image); err != nil {
		t.Fatal(err)
	}
	mustList(t, d, "one") // it heals
}

func TestHalfMadeImageIsSwept(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	h := newHost(t)
	if err := os.MkdirAll(h.state+"/images", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, h.state+"/images/.remora-new-0123456789abcdef.img", "half")
	write(t, h.state+"/images/.remora-new-mine.img", "mine")
	openImage(t, h)
	if _, err := os.Stat(h.state + "/images/.remora-new-0123456789abcdef.img"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a crash left is there: %v", err)
	}
	mustRead(t, h.state+"/images/.remora-new-mine.img", "mine")
}

// TestWithoutPrograms: the pool is served, and says at each call what is missing.
func TestWithoutPrograms(t *testing.T) {
	h := newHost(t)
	t.Setenv("PATH", t.TempDir())
	d := openImage(t, h)
	err := d.Ping(t.Context())
	wantErr(t, err, errdefs.ErrUnavailable, "mkfs.btrfs: not installed")
	if hints := errdefs.Hints(err); len(hints) == 0 || !strings.Contains(hints[0], "btrfs-progs") {
		t.Errorf("hints: %q", hints)
	}
	if left, err := os.ReadDir(h.state + "/images"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestConfig(t *testing.T) {
	for want, table := range map[string]map[string]any{
		"a pool has one of them":           {"path": "/a", "image": "/b"},
		"belongs to an image":              {"path": "/a", "size": "1g"},
		"less than the 128m":               {"size": "1m"},
		"not absolute":                     {"image": "a"},
		"the root of the host":             {"path": "/"},
		"needs the daemon's state and run": {},
	} {
		_, err := tryOpen(t, table, host{})
		wantErr(t, err, errdefs.ErrInvalid, want)
	}
	d := openPath(t, t.TempDir())
	wantErr(t, d.Ping(t.Context()), errdefs.ErrUnavailable, "lies on no btrfs")
	if len(errdefs.Hints(d.Ping(t.Context()))) == 0 {
		t.Error("no hint")
	}
}
