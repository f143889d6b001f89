package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// meanwhile has do done again and again until the function that it returns is called.
func meanwhile(do func()) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
				do()
			}
		}
	}()
	return func() { close(end); <-ended }
}

// A container that has the volume puts links to the host in the way of what is brought back.
func TestRestorePathIntoWhatIsSwapped(t *testing.T) {
	dir, to, host := t.TempDir(), t.TempDir(), t.TempDir()
	for i := range 400 {
		put(t, fmt.Sprintf("%s/sub/%02d/%d", dir, i%40, i), "evil")
	}
	r := opened(t, newPlace(t))
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	for _, pattern := range []string{"/.remora-restore-*", "/.remora-restore-*/sub", "/.remora-restore-*/sub/*"} {
		n, swapped := 0, 0
		stop := meanwhile(func() {
			found, _ := filepath.Glob(to + pattern)
			for _, name := range found {
				n++
				if os.Rename(name, fmt.Sprintf("%s/aside%d", to, n)) == nil && os.Symlink(host, name) == nil {
					swapped++
				}
			}
		})
		err := r.RestorePath(t.Context(), b.ID, "sub", to, nil)
		stop()
		t.Logf("%s: swapped %d times: %v", pattern, swapped, err)
		if swapped == 0 {
			t.Errorf("%s: nothing was swapped", pattern)
		}
		if left := tree(t, host); len(left) != 1 {
			t.Fatalf("%s: outside of the volume are %d", pattern, len(left)-1)
		}
	}
}

// What lies on a server, or elsewhere on the host, others may write to while a whole backup is restored to it.
func TestRestoreIntoWhatIsSwapped(t *testing.T) {
	dir, host := t.TempDir(), t.TempDir()
	for i := range 400 {
		put(t, fmt.Sprintf("%s/sub/%02d/%d", dir, i%40, i), "evil")
	}
	r := opened(t, newPlace(t))
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	for _, pattern := range []string{"/sub", "/sub/*"} {
		to, n, swapped := t.TempDir(), 0, 0
		stop := meanwhile(func() {
			found, _ := filepath.Glob(to + pattern)
			for _, name := range found {
				n++
				fi, err := os.Lstat(name)
				if err == nil && fi.IsDir() && os.Rename(name, fmt.Sprintf("%s/aside%d", to, n)) == nil && os.Symlink(host, name) == nil {
					swapped++
				}
			}
		})
		_, err := r.Restore(t.Context(), b.ID, to, nil)
		stop()
		t.Logf("%s: swapped %d times: %v", pattern, swapped, err)
		if swapped == 0 {
			t.Errorf("%s: nothing was swapped", pattern)
		}
		if left := tree(t, host); len(left) != 1 {
			t.Fatalf("%s: outside of the volume are %d", pattern, len(left)-1)
		}
	}
}

// What is brought back takes the place of the old at once, or not at all: the old is not lost for
// a restore that fails.
func TestRestorePathThatFails(t *testing.T) {
	dir, to := t.TempDir(), t.TempDir()
	put(t, dir+"/file", "new")
	put(t, to+"/file", "old")
	r := opened(t, newPlace(t))
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	gone := 0
	stop := meanwhile(func() {
		if text, err := os.ReadFile(to + "/file"); err != nil || len(text) != 3 {
			gone++
		}
	})
	for range 50 {
		if err := r.RestorePath(t.Context(), b.ID, "file", to, nil); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if gone > 0 {
		t.Errorf("the file was not there %d times", gone)
	}
	put(t, to+"/file", "old")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.RestorePath(ctx, b.ID, "file", to, nil); err == nil {
		t.Error("restored")
	}
	if got := tree(t, to); len(got) != 2 || got["file"].Text != "old" {
		t.Errorf("left are %d, with %q", len(got)-1, got["file"].Text)
	}
}

// A container swaps what is backed up for links to files of the host, and for pipes.
func TestBackupOfWhatIsSwapped(t *testing.T) {
	dir, to, host := t.TempDir(), t.TempDir(), t.TempDir()
	put(t, host+"/secret", "of the host")
	put(t, dir+"/sub/secret", "of the volume")
	for i := range 60 {
		put(t, fmt.Sprintf("%s/%d", dir, i), "of the volume")
	}
	if err := os.Mkdir(dir+"/aside", 0o700); err != nil {
		t.Fatal(err)
	}
	stop := meanwhile(func() {
		for i := range 60 {
			name, aside := fmt.Sprintf("%s/%d", dir, i), fmt.Sprintf("%s/aside/%d", dir, i)
			_ = os.Rename(name, aside)
			if i%2 == 0 {
				_ = os.Symlink(host+"/secret", name)
			} else {
				_ = unix.Mkfifo(name, 0o600)
			}
		}
		_, _ = os.Rename(dir+"/sub", dir+"/aside/sub"), os.Symlink(host, dir+"/sub")
		for i := range 60 {
			_ = os.Rename(fmt.Sprintf("%s/aside/%d", dir, i), fmt.Sprintf("%s/%d", dir, i))
		}
		_, _ = os.Remove(dir+"/sub"), os.Rename(dir+"/aside/sub", dir+"/sub")
	})
	r := opened(t, newPlace(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	made := 0
	for i := range 10 {
		b, err := r.Create(ctx, Request{Pool: "p", Volume: "v", Dir: dir, Reread: true})
		if err != nil {
			t.Log(err)
			continue
		}
		made++
		must[Backup](t)(r.Restore(ctx, b.ID, fmt.Sprintf("%s/%d", to, i), nil))
	}
	stop()
	for name, e := range tree(t, to) {
		if strings.Contains(e.Text, "of the host") && !strings.HasPrefix(e.Text, "->") {
			t.Fatalf("in the backup %s is %q", name, e.Text)
		}
	}
	if made == 0 {
		t.Error("no backup was made")
	}
}

// What nobody writes to is backed up as it is, also where somebody could.
func TestLive(t *testing.T) {
	dir, to := sample(t), t.TempDir()
	for i := range 300 { // more than are listed at a time
		put(t, fmt.Sprintf("%s/many/%d", dir, i), fmt.Sprint(i))
		link, at := fmt.Sprintf("%s/many/link%d", dir, i), unix.Timespec{Sec: 1e9}
		err := errors.Join(os.Symlink(fmt.Sprintf("../many/%d", i), link), unix.UtimesNanoAt(unix.AT_FDCWD, link, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
		if err != nil {
			t.Fatal(err)
		}
	}
	r := opened(t, newPlace(t))
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	again := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	if again.Files != b.Files || again.Stored > b.Stored/2 {
		t.Errorf("again, it is %+v, after %+v", again, b)
	}
	must[Backup](t)(r.Restore(t.Context(), again.ID, to, nil))
	same(t, tree(t, dir), tree(t, to))
}

// Entries that have been seen, and are others by the time they are opened.
func TestLiveEntries(t *testing.T) {
	dir, host := t.TempDir(), t.TempDir()
	put(t, host+"/secret", "of the host")
	for _, name := range []string{"link", "pipe", "file", "sub/x", "dir/secret"} {
		put(t, dir+"/"+name, "of the volume")
	}
	d, closed, err := openLive(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closed()
	seen := map[string]kopiafs.Entry{}
	err = kopiafs.IterateEntries(t.Context(), d, func(_ context.Context, e kopiafs.Entry) error {
		seen[e.Name()] = e
		return nil
	})
	err = errors.Join(err, os.Remove(dir+"/link"), os.Remove(dir+"/pipe"), os.Rename(dir+"/dir", dir+"/old"),
		os.Symlink(host+"/secret", dir+"/link"), unix.Mkfifo(dir+"/pipe", 0o600), os.Symlink(host, dir+"/dir"))
	if err != nil || len(seen) != 5 {
		t.Fatal(len(seen), err)
	}
	for _, name := range []string{"link", "pipe"} {
		if _, err := seen[name].(kopiafs.File).Open(t.Context()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := seen["dir"].(kopiafs.Directory).Iterate(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dir: %v", err)
	}
	x, err := seen["sub"].(kopiafs.Directory).Child(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	f, err := x.(kopiafs.File).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	put(t, dir+"/sub/x", "longer than it was before")
	if e, err := f.Entry(); err != nil || e.Size() != 25 || e.Name() != "x" {
		t.Errorf("entry is %v, %v", e, err)
	}
	if _, err := seen["sub"].(kopiafs.Directory).Child(t.Context(), "y"); !errors.Is(err, kopiafs.ErrEntryNotFound) {
		t.Errorf("a child that is not there: %v", err)
	}
}

// A restore that has begun is not disturbed by one who removes the backup.
func TestReady(t *testing.T) {
	dir, to := t.TempDir(), t.TempDir()
	put(t, dir+"/file", "text")
	p := newPlace(t)
	r := opened(t, p)
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	restore, err := r.Ready(t.Context(), b.ID)
	if err != nil {
		t.Fatal(err)
	}
	other := reopened(t, p)
	if err := errors.Join(other.Remove(t.Context(), b.ID), other.Maintain(t.Context()), r.Remove(t.Context())); err != nil {
		t.Fatal(err)
	}
	must[Backup](t)(restore(t.Context(), to, nil))
	if got := tree(t, to); got["file"].Text != "text" {
		t.Errorf("restored is %+v", got)
	}
}

// nameless is an entry with a name that no directory could hold.
type nameless struct {
	kopiafs.Entry
	name string
}

func (n nameless) Name() string { return n.name }

func TestSimple(t *testing.T) {
	for _, tt := range []struct {
		at, name string
		ok       bool
	}{
		{"", "anything/at/all", true},
		{"a", "a", true},
		{"sub/a", "a", true},
		{"../a", "../a", false},
		{"link/a", "link/a", false},
		{"..", "..", false},
		{"a", "../a", false},
		{".", ".", true},
	} {
		if err := simple(tt.at, nameless{name: tt.name}); (err == nil) != tt.ok || err != nil && !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q at %q: %v", tt.name, tt.at, err)
		}
	}
	root := must[*os.Root](t)(os.OpenRoot(t.TempDir()))
	defer root.Close()
	o := &rooted{root: root, at: "."}
	if err := errors.Join(o.mkdir("."), o.mkdir("d"), o.mkdir("d"), root.Symlink("d", "l")); err != nil {
		t.Fatal(err)
	}
	if err := o.mkdir("l"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a link was taken for a directory: %v", err)
	}
}

// slowReader is a repository in which a look takes its time.
type slowReader struct {
	repo.RepositoryWriter
	began, goOn chan struct{}
}

func (s slowReader) FindManifests(context.Context, map[string]string) ([]*manifest.EntryMetadata, error) {
	close(s.began)
	<-s.goOn
	return nil, nil
}

// The end of an upload waits for a checkpoint that reads, as the repository is closed behind it, and
// lets it read no more.
func TestCheckpointAtTheEnd(t *testing.T) {
	s := slowReader{began: make(chan struct{}), goOn: make(chan struct{})}
	k := &keeping{RepositoryWriter: s}
	read, ended := make(chan error, 1), make(chan struct{})
	go func() { _, err := k.FindManifests(t.Context(), nil); read <- err }()
	<-s.began
	go func() { k.end(); close(ended) }()
	select {
	case <-ended:
		t.Error("it has ended while it reads")
	case <-time.After(50 * time.Millisecond):
	}
	close(s.goOn)
	<-ended
	if err := <-read; err != nil {
		t.Error(err)
	}
	_, find := k.FindManifests(t.Context(), nil)
	_, get := k.GetManifest(t.Context(), "", nil)
	_, open := k.OpenObject(t.Context(), object.EmptyID)
	for _, err := range []error{find, get, open} {
		if !errors.Is(err, errEnded) {
			t.Errorf("after the end: %v", err)
		}
	}
}

// A container puts a pipe in the place of the directory in which something is to be brought back.
func TestExchangeWithPipeInPlaceOfDirectory(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/fresh/file", "new")
	for _, err := range []error{unix.Mkfifo(dir+"/sub", 0o600), unix.Mkfifo(dir+"/other", 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root := must[*os.Root](t)(os.OpenRoot(dir))
	defer root.Close()
	for _, tt := range []struct{ fresh, name, pipe string }{{"fresh/file", "sub/file", "sub"}, {"other/file", "file", "other"}} {
		done := make(chan error, 1)
		go func() { done <- exchange(root, tt.fresh, tt.name) }()
		select {
		case err := <-done:
			if !errors.Is(err, unix.ENOTDIR) {
				t.Errorf("%s to %s: %v", tt.fresh, tt.name, err)
			}
		case <-time.After(10 * time.Second):
			w, err := os.OpenFile(filepath.Join(dir, tt.pipe), os.O_WRONLY, 0) // lets it end
			t.Errorf("%s to %s: waits for a pipe (%v)", tt.fresh, tt.name, err)
			_ = w.Close()
			<-done
		}
	}
}
