package loop

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/filesystem"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// TestInner is run as a process of its own, which does half of something and waits to be
// killed.
func TestInner(t *testing.T) {
	stage, path, _ := strings.Cut(os.Getenv("REMORA_LOOP_INNER"), ":")
	if stage == "" {
		return
	}
	d := of(small(t, path))
	p, err := d.pool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ready := func() {
		fmt.Println("\nready")
		select {}
	}
	if stage == "image" { // between the image and the rename
		err := d.build(t.Context(), p, facts{Name: "new", FS: "ext4"}, func(image *os.File) error {
			m, err := d.decode(nil)
			if err == nil {
				err = d.newImage(t.Context(), image, facts{Name: "new", FS: "ext4"}, m)
			}
			if err == nil {
				ready()
			}
			return err
		})
		t.Fatal(err)
	}
	image, err := p.image("one/" + imageName)
	if err != nil {
		t.Fatal(err)
	}
	f, err := p.facts("one")
	if err != nil {
		t.Fatal(err)
	}
	switch stage {
	case "attached":
		_, err = attach(t.Context(), image)
	case "mounted aside":
		_, err = d.enter(t.Context(), "one", image, f, nil)
	case "mounted":
		if err = os.Mkdir(path+"/at", 0o700); err == nil {
			_, err = d.Mount(t.Context(), "one", path+"/at")
		}
	case "frozen":
		err = d.frozen(t.Context(), image, func() error { ready(); return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	ready()
}

// kill lets another process do half of something, and kills it.
func kill(t *testing.T, stage, path string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInner$")
	cmd.Env = append(os.Environ(), "REMORA_LOOP_INNER="+stage+":"+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, text := bufio.NewScanner(out), ""
	for lines.Scan() && lines.Text() != "ready" {
		text += lines.Text() + "\n"
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatalf("%s: %v:\n%s", stage, err, text)
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%s: %v, want it killed:\n%s", stage, err, text)
	}
}

func TestKilledBetweenImageAndRename(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	d := small(t, path)
	kill(t, "image", path)
	noDevices(t, path)
	if left := tree(t, path); len(left) != 2 || of(d).HiddenKind(left[0]) != pooldir.New {
		t.Errorf("the kill left %v, want an image aside", left)
	}
	if got := list(t, d); len(got) != 0 {
		t.Errorf("volumes are %v", got)
	}
	of(d).Wait()
	if left := tree(t, path); len(left) != 0 {
		t.Errorf("after the sweep: %v", left)
	}
	create(t, d, "new")
	mounted(t, d, "new")
}

func TestKilledBetweenAttachAndMount(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	d := small(t, path)
	create(t, d, "one")
	at, unmount := mounted(t, d, "one")
	write(t, at+"/f", "kept")
	unmount()
	for _, stage := range []string{"attached", "mounted aside"} {
		kill(t, stage, path)
		noDevices(t, path)
		at, unmount := mounted(t, d, "one")
		wantRead(t, at+"/f", "kept")
		unmount()
	}
}

// TestKilledWhileFrozen: who writes to the volume waits until the daemon is there again, and
// not longer.
func TestKilledWhileFrozen(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	create(t, small(t, path), "one")
	for name, thaw := range map[string]func(t *testing.T, at string){
		"listed":    func(t *testing.T, _ string) { list(t, small(t, path)) },
		"mounted":   func(t *testing.T, at string) { _, _ = small(t, path).Mount(t.Context(), "one", at) },
		"unmounted": func(t *testing.T, at string) { _ = small(t, path).Unmount(t.Context(), "one", at) },
	} {
		t.Run(name, func(t *testing.T) {
			at, _ := mounted(t, small(t, path), "one")
			kill(t, "frozen", path)
			dir, err := os.Open(at)
			if err != nil {
				t.Fatal(err)
			}
			err = unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0)
			_ = dir.Close()
			if !errors.Is(err, unix.EBUSY) {
				t.Fatalf("not frozen: %v", err)
			}
			thaw(t, at)
			if name == "unmounted" {
				noDevices(t, path)
				return
			}
			write(t, at+"/f", name)
		})
	}
}

func TestThawedAfterAPanic(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	d := small(t, path)
	create(t, d, "one")
	at, _ := mounted(t, d, "one")
	_, _, image, err := of(d).volume(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = of(d).frozen(t.Context(), image, func() error { panic("in between") })
	}()
	want := errors.New("no clone")
	if err := of(d).frozen(t.Context(), image, func() error { return want }); !errors.Is(err, want) {
		t.Errorf("error is %v", err)
	}
	write(t, at+"/f", "x")
}

// TestUncleanFileSystem: the image of a volume that is mounted is what a power cut leaves.
func TestUncleanFileSystem(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for fs, size := range map[string]string{"ext4": "32m", "xfs": "300m", "btrfs": "256m"} {
		t.Run(fs, func(t *testing.T) {
			path := t.TempDir()
			d := openPool(t, path, opts("fs="+fs, "size="+size))
			var log strings.Builder
			of(d).Log = slog.New(slog.NewTextHandler(&log, nil))
			create(t, d, "cut")
			powerCut(t, d, path, "cut")
			image, err := os.Open(path + "/cut/image")
			if err != nil {
				t.Fatal(err)
			}
			defer image.Close()
			if fs == "ext4" {
				if clean, err := filesystem.Clean(image); err != nil || clean {
					t.Errorf("clean before the mount: %v, %v", clean, err)
				}
			}
			at, unmount := mounted(t, d, "cut")
			if mended := strings.Contains(log.String(), "was mended"); mended != (fs == "ext4") {
				t.Errorf("e2fsck mended it: %v; the log is %q", mended, log.String())
			}
			wantRead(t, at+"/f", "synced")
			unmount()
			noDevices(t, path)
		})
	}
}

// powerCut gives a volume the image of another one that is written to.
func powerCut(t *testing.T, d volume.Driver, path, name string) {
	t.Helper()
	create(t, d, "live")
	at, unmount := mounted(t, d, "live")
	defer unmount()
	f, err := os.Create(at + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("synced"); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	// What is in the cache of the device is not on the disk.
	if _, err := run.Output(t.Context(), nil, "cp", "--sparse=always", path+"/live/image", path+"/"+name+"/image"); err != nil {
		t.Fatal(err)
	}
}

func TestFileSystemThatIsBroken(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	d := small(t, path)
	create(t, d, "one")
	for _, command := range []string{"ssv state 2", "clri <2>"} { // errors are known of; there is no root
		if _, err := run.Output(t.Context(), nil, "debugfs", "-w", "-R", command, path+"/one/image"); err != nil {
			t.Fatal(err)
		}
	}
	target := t.TempDir()
	for range 2 {
		_, err := d.Mount(t.Context(), "one", target)
		wantErr(t, err, errdefs.ErrUnavailable, "has errors that e2fsck does not mend")
		if h := errdefs.Hints(err); len(h) != 1 || !strings.Contains(h[0], "e2fsck -f "+path+"/one/image") {
			t.Errorf("hints are %q", h)
		}
	}
	if m, err := mount.List(target); err != nil || len(m) != 0 {
		t.Errorf("mounted: %v, %v", m, err)
	}
	noDevices(t, path)
	create(t, d, "one") // is there, and not formatted
	if _, err := d.Mount(t.Context(), "one", target); err == nil {
		t.Error("it was formatted")
	}
}

func TestLeftoversAreToldApart(t *testing.T) {
	path := t.TempDir()
	d := of(openPool(t, path, nil))
	old := time.Now().Add(-pooldir.Patience - time.Hour)
	for _, tt := range []struct {
		name      string
		old, goes bool
	}{
		{d.Hidden(pooldir.New), false, true},
		{d.Hidden(pooldir.Gone), false, true},
		{".remora-gone-0123abcd-0123456789abcdef", false, true},
		{".remora-new-0123abcd-0123456789abcdef", false, false},
		{".remora-new-0123abcd-aaaaaaaaaaaaaaaa", true, true},
		{".remora-gone-precious", false, false},
	} {
		if err := os.MkdirAll(filepath.Join(path, tt.name, snapshotsName), 0o700); err != nil {
			t.Fatal(err)
		}
		if tt.old {
			if err := os.Chtimes(filepath.Join(path, tt.name), old, old); err != nil {
				t.Fatal(err)
			}
		}
		list(t, d)
		d.Wait()
		if _, err := os.Stat(filepath.Join(path, tt.name)); errors.Is(err, os.ErrNotExist) != tt.goes {
			t.Errorf("%s: after the sweep: %v, want gone %v", tt.name, err, tt.goes)
		}
	}
}

func TestDiskThatIsNotMounted(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	disk, path := poolOn(t, "xfs"), t.TempDir()
	bind := func() {
		t.Helper()
		if err := unix.Mount(disk, path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	bind()
	env := catalog.Env{PoolName: "p", StateDir: t.TempDir()}
	d := openWith(t, path, opts("size=32m"), env)
	create(t, d, "data")
	if err := unix.Unmount(path, 0); err != nil {
		t.Fatalf("the pool is held: %v", err)
	}
	for _, d := range []*driver{of(d), of(openWith(t, path, nil, env))} {
		for _, err := range []error{d.Create(t.Context(), "x", nil), d.Remove(t.Context(), "data"), d.Ping(t.Context()), d.Trash(t.Context(), "data")} {
			wantErr(t, err, errdefs.ErrUnavailable, "another directory is there than the pool's")
			if len(errdefs.Hints(err)) != 1 {
				t.Errorf("hints are %q", errdefs.Hints(err))
			}
		}
		if got := tree(t, path); len(got) != 0 {
			t.Errorf("written below the mountpoint: %v", got)
		}
	}
	bind()
	if got := list(t, openWith(t, path, nil, env)); !slices.Equal(got, []string{"data"}) {
		t.Errorf("volumes after the disk is back are %v", got)
	}
}
