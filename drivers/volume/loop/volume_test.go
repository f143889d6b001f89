package loop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

func TestWhatAContainerGets(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	d := small(t, path, "mount_options=nodev,allocsize=64k")
	create(t, d, "plain")
	create(t, d, "own", "uid=999", "gid=998", "mode=2770", "mount_options=noatime,commit=30")
	for _, tt := range []struct {
		name     string
		uid, gid uint32
		mode     uint32
		noatime  bool
	}{{"plain", 0, 0, 0o755, false}, {"own", 999, 998, 0o2770, true}} {
		at, unmount := mounted(t, d, tt.name)
		if entries, err := os.ReadDir(at); err != nil || len(entries) != 0 {
			t.Errorf("%s: a new volume has %v in it, %v", tt.name, entries, err)
		}
		var st unix.Stat_t
		var fs unix.Statfs_t
		if err := errors.Join(unix.Stat(at, &st), unix.Statfs(at, &fs)); err != nil {
			t.Fatal(err)
		}
		if st.Uid != tt.uid || st.Gid != tt.gid || st.Mode&0o7777 != tt.mode {
			t.Errorf("%s: owner is %d:%d, mode %o", tt.name, st.Uid, st.Gid, st.Mode&0o7777)
		}
		if fs.Flags&unix.ST_NODEV == 0 || (fs.Flags&unix.ST_NOATIME != 0) != tt.noatime {
			t.Errorf("%s: flags are %#x", tt.name, fs.Flags)
		}
		m, err := mountAt(at)
		if err != nil || m == nil || m.Root != "/data" || tt.noatime != strings.Contains(m.Options, "commit=30") {
			t.Errorf("%s: mounted as %+v, %v", tt.name, m, err)
		}
		unmount()
	}
	info, err := d.(volume.Inspector).Inspect(t.Context(), "own")
	if err != nil || info.Status["fs"] != "ext4" || info.Status["size"] != "32m" || info.Options["uid"] != "999" || info.CreatedAt.IsZero() {
		t.Errorf("inspected: %+v, %v", info, err)
	}
}

func TestWrongOptions(t *testing.T) {
	d := openPool(t, t.TempDir(), nil)
	for _, tt := range []struct{ option, want string }{
		{"size=15m", "size 15m: below the 16m that ext4 needs"},
		{"size=8000p", "no file can be so large"},
		{"fs=ntfs", "one of ext4, xfs, btrfs"},
		{"mount_options=noatime,errors=continue", `"errors=continue" is not allowed for ext4`},
		{"mount_options=compress=zstd", `"compress=zstd" is not allowed for ext4`},
		{"mount_options=commit=5;ro", "is not allowed"},
		{"colour=blue", `unknown option "colour"`},
	} {
		wantErr(t, d.Create(t.Context(), "x", opts(tt.option)), errdefs.ErrInvalid, tt.want)
	}
	wantErr(t, d.Create(t.Context(), "x", opts("sparse=false", "mount_options=discard")), errdefs.ErrInvalid, "gives back the room")
	for _, table := range []map[string]any{
		{"path": "/srv/x", "mount_options": []any{"suid"}},
		{"path": "/srv/x", "size": "1m"},
		{"path": "/srv/x", "fs": "xfs", "size": "200m"},
		{"path": "/srv/x", "sparse": false, "mount_options": []any{"discard"}},
		{"path": "srv/x"},
		{"path": "/"},
	} {
		if _, err := open(t.Context(), decoded(t, table), envOf(t)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%v: %v", table, err)
		}
	}
}

func TestAdopt(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	d := small(t, path)
	create(t, d, "ours")
	at, unmount := mounted(t, d, "ours")
	write(t, at+"/f", "ours")
	unmount()
	create(t, d, "ours", "size=64m") // as it is
	wantErr(t, d.Create(t.Context(), "ours", opts("fs=xfs", "size=300m")), errdefs.ErrExists, "its file system is ext4, not xfs")
	if err := os.Remove(path + "/ours/volume.json"); err != nil {
		t.Fatal(err)
	}
	// One from elsewhere, with more in it than a directory data.
	src := t.TempDir()
	if err := os.Mkdir(src+"/data", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, src+"/f", "theirs")
	for _, dir := range []string{"theirs", "noise", "none", "link"} {
		if err := os.Mkdir(path+"/"+dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := run.Output(t.Context(), nil, "mkfs.ext4", "-q", "-d", src, path+"/theirs/image", "20m"); err != nil {
		t.Fatal(err)
	}
	for name, whole := range map[string]bool{"ours": false, "theirs": true} {
		wantErr(t, d.Create(t.Context(), name, opts("fs=btrfs", "size=300m")), errdefs.ErrExists, "is ext4, not btrfs")
		create(t, d, name)
		at, unmount := mounted(t, d, name)
		wantRead(t, at+"/f", name)
		if _, err := os.Stat(at + "/lost+found"); (err == nil) != whole {
			t.Errorf("%s: the whole is seen: %v, want %v", name, err == nil, whole)
		}
		unmount()
	}
	noise := bytes.Repeat([]byte("no file system "), 1<<16)
	write(t, path+"/noise/image", string(noise))
	if err := os.Symlink("/etc/passwd", path+"/link/image"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"noise", "none", "link"} {
		err := d.Create(t.Context(), name, nil)
		wantErr(t, err, errdefs.ErrExists, "is in the way, and not a volume")
	}
	wantRead(t, path+"/noise/image", string(noise))
	noDevices(t, path)
}

func TestReservedRoom(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := filesystemOf(t, "ext4", 100<<20)
	d := small(t, path)
	create(t, d, "kept", "sparse=false", "size=40m")
	blocks := func() int64 {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(path+"/kept/image", &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if got := blocks(); got < 40<<20 {
		t.Errorf("%d bytes are reserved, want 40m", got)
	}
	before, had := tree(t, path), blocks()
	for range 2 {
		err := d.Create(t.Context(), "big", opts("sparse=false", "size=80m"))
		wantErr(t, err, errdefs.ErrUnavailable, "reserve 83886080 bytes: no space left on device")
		if len(errdefs.Hints(err)) != 1 {
			t.Errorf("hints are %q", errdefs.Hints(err))
		}
		wantErr(t, d.(volume.Resizer).Resize(t.Context(), "kept", 150<<20), errdefs.ErrUnavailable, "no space left on device")
	}
	if after := tree(t, path); len(after) != len(before) || blocks() != had {
		t.Errorf("the pool was %v and is %v; reserved were %d and are %d bytes", before, after, had, blocks())
	}
	if u, err := d.(volume.Sizer).Usage(t.Context(), "kept"); err != nil || u.Limit != 40<<20 {
		t.Errorf("usage is %+v, %v", u, err)
	}
	// The pool fills up, and what was reserved is there.
	create(t, d, "sparse")
	fillUp(t, path+"/filler")
	at, unmount := mounted(t, d, "kept")
	if n := fillUp(t, at+"/f"); n < 30<<20 {
		t.Errorf("only %d bytes could be written", n)
	}
	unmount()
	noDevices(t, path)
	if _, err := run.Output(t.Context(), nil, "e2fsck", "-f", "-n", path+"/kept/image"); err != nil {
		t.Errorf("after a full pool: %v", err)
	}
	// One that is not reserved fails, and is mended afterwards.
	at = t.TempDir()
	if _, err := d.Mount(t.Context(), "sparse", at); err == nil {
		f, err := os.Create(at + "/f")
		if err == nil {
			_, err = f.Write(make([]byte, 16<<20))
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if err == nil {
			t.Error("what has no room was written")
		}
		if err := d.Unmount(t.Context(), "sparse", at); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path + "/filler"); err != nil {
		t.Fatal(err)
	}
	noDevices(t, path)
	at, _ = mounted(t, d, "sparse")
	write(t, at+"/g", "room again")
}

// fillUp writes until there is no more room, and returns how much it was.
func fillUp(t *testing.T, path string) (n int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := bytes.Repeat([]byte("full"), 1<<14)
	for err == nil {
		var k int
		k, err = f.Write(chunk)
		if n += int64(k); err == nil && n%(4<<20) == 0 {
			err = f.Sync()
		}
	}
	if err := errors.Join(err, f.Sync()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("after %d bytes: %v, want no space", n, err)
	}
	return n
}

func TestImageOnSomebodyElsesDevice(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	d := small(t, path)
	create(t, d, "one")
	out, err := run.Output(t.Context(), nil, "losetup", "--find", "--show", path+"/one/image")
	if err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(string(out))
	detach := func() { _, err = run.Output(t.Context(), nil, "losetup", "-d", device) }
	defer func() {
		if detach(); err != nil {
			t.Error(err)
		}
		noDevices(t, path)
		mounted(t, d, "one")
	}()
	target := t.TempDir()
	_, merr := d.Mount(t.Context(), "one", target)
	for _, err := range []error{merr, d.Remove(t.Context(), "one"), d.(volume.Resizer).Resize(t.Context(), "one", 64<<20)} {
		wantErr(t, err, errdefs.ErrInUse, "attached to "+device+" by somebody else")
		if h := errdefs.Hints(err); len(h) != 1 || !strings.Contains(h[0], "losetup -d "+device) {
			t.Errorf("hints are %q", h)
		}
	}
}

func TestMountedTwiceIsOneFileSystem(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	d := small(t, path)
	create(t, d, "one")
	at, unmount := mounted(t, d, "one")
	again, unmountAgain := mounted(t, small(t, path), "one")
	write(t, at+"/f", "seen by both")
	wantRead(t, again+"/f", "seen by both")
	if left := devices(t, path); len(left) != 1 {
		t.Errorf("devices are %v, want one", left)
	}
	wantErr(t, d.Remove(t.Context(), "one"), errdefs.ErrInUse, "it is mounted on ")
	wantErr(t, d.(volume.Trasher).Trash(t.Context(), "one"), errdefs.ErrInUse, "it is mounted on ")
	unmount()
	write(t, again+"/f", "still there")
	unmountAgain()
}

// TestHalfAMount is what a kill leaves on a kernel that cannot take a part of what stands
// nowhere: the whole file system in the place of the part.
func TestHalfAMount(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path, at := t.TempDir(), t.TempDir()
	d := small(t, path)
	create(t, d, "one")
	p, f, image, err := of(d).volume(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	inside, err := of(d).enter(t.Context(), "one", image, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = inside.Attach(".", at)
	inside.close()
	_ = image.Close() // as that of a dead process
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := d.Mount(t.Context(), "one", at); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(at); err != nil || len(entries) != 0 {
			t.Errorf("mounted are %v, %v", entries, err)
		}
	}
	if err := d.Unmount(t.Context(), "one", at); err != nil {
		t.Error(err)
	}
	noDevices(t, path)
}

func TestResizeThatWasCutOff(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for fs, sizes := range map[string][2]int64{"ext4": {32 << 20, 96 << 20}, "xfs": {300 << 20, 400 << 20}, "btrfs": {256 << 20, 400 << 20}} {
		t.Run(fs, func(t *testing.T) {
			path := t.TempDir()
			d := openPool(t, path, opts("fs="+fs, "size="+strconv.FormatInt(sizes[0], 10)))
			create(t, d, "one")
			at, unmount := mounted(t, d, "one")
			write(t, at+"/f", "kept")
			unmount()
			if err := os.Truncate(path+"/one/image", sizes[1]); err != nil { // and killed here
				t.Fatal(err)
			}
			at, unmount = mounted(t, d, "one")
			wantRead(t, at+"/f", "kept")
			var st unix.Statfs_t
			if err := unix.Statfs(at, &st); err != nil {
				t.Fatal(err)
			}
			if got := int64(st.Blocks) * st.Bsize; got < sizes[1]*7/10 {
				t.Errorf("the file system has %d bytes, and its image %d", got, sizes[1])
			}
			err := d.(volume.Resizer).Resize(t.Context(), "one", sizes[0])
			wantErr(t, err, errdefs.ErrInvalid, "an image cannot be made smaller")
			if len(errdefs.Hints(err)) != 1 {
				t.Errorf("hints are %q", errdefs.Hints(err))
			}
			// While it is mounted the kernel may not; then it is said, and done by the next mount.
			err = d.(volume.Resizer).Resize(t.Context(), "one", 2*sizes[1])
			if fs == "ext4" && testenv.NoResizeExt4(t) != "" {
				wantErr(t, err, errdefs.ErrDenied, "grow ext4 while it is mounted")
				unmount()
				at, _ = mounted(t, d, "one")
			} else if err != nil {
				t.Error(err)
			}
			if err := unix.Statfs(at, &st); err != nil || int64(st.Blocks)*st.Bsize < 2*sizes[1]*7/10 {
				t.Errorf("the file system has %d bytes, want %d; %v", int64(st.Blocks)*st.Bsize, 2*sizes[1], err)
			}
			wantRead(t, at+"/f", "kept")
		})
	}
}

// TestSnapshotUnderLoad: what was synced before the snapshot is in it, and what is in it is
// whole.
func TestSnapshotUnderLoad(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			path := poolOn(t, "xfs")
			d := openPool(t, path, opts("fs="+fs, "size=300m"))
			s := d.(*cloning)
			create(t, d, "db")
			at, unmount := mounted(t, d, "db")
			var mu sync.Mutex
			synced, stop := 0, make(chan struct{})
			var writer sync.WaitGroup
			writer.Go(func() {
				f, err := os.Create(at + "/log")
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				for n := 1; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					_, err := fmt.Fprintf(f, "%08d\n", n)
					if err := errors.Join(err, f.Sync()); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					synced = n
					mu.Unlock()
				}
			})
			had := map[string]int{}
			for i := range 5 {
				name := fmt.Sprintf("s%d", i)
				mu.Lock()
				had[name] = synced
				mu.Unlock()
				if err := s.CreateSnapshot(t.Context(), "db", name, nil); err != nil {
					t.Error(err)
				}
			}
			close(stop)
			writer.Wait()
			for name, want := range had {
				target := t.TempDir()
				dir, err := s.OpenSnapshot(t.Context(), "db", name, target)
				if err != nil {
					t.Fatal(err)
				}
				text, err := os.ReadFile(dir + "/log")
				if err != nil {
					text = nil
				}
				if len(text) < 9*want || len(text)%9 != 0 {
					t.Errorf("%s has %d bytes, want at least %d records of 9", name, len(text), want)
				}
				for i, line := range strings.Fields(string(text)) {
					if n, err := strconv.Atoi(line); err != nil || n != i+1 {
						t.Errorf("%s: record %d is %q", name, i+1, line)
						break
					}
				}
				wantErr(t, s.RemoveSnapshot(t.Context(), "db", name), errdefs.ErrInUse, "it is mounted on "+target)
				if err := s.CloseSnapshot(t.Context(), "db", name, dir); err != nil {
					t.Error(err)
				}
			}
			unmount()
			noDevices(t, path)
		})
	}
}
