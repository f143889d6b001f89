package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// newPlace is a place for a repository in a directory, with nothing there yet.
func newPlace(t testing.TB) Place {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	put(t, file, "secret\n")
	return Place{
		Repository: config.Repository{Name: "near", URL: &url.URL{Scheme: "file", Path: filepath.Join(dir, "repository")}, PasswordFile: file},
		Dir:        filepath.Join(dir, "state"), Host: "here",
	}
}

// opened makes the repository and opens it.
func opened(t testing.TB, p Place) *Repository {
	t.Helper()
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return reopened(t, p)
}

func reopened(t testing.TB, p Place) *Repository {
	t.Helper()
	r, err := Open(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return r
}

func put(t testing.TB, name, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func noise(t testing.TB, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// entry is what a restored file must have of the one that was backed up.
type entry struct {
	Mode     fs.FileMode
	UID, GID uint32
	Time     time.Time
	Text     string
}

func tree(t testing.TB, dir string) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		e := entry{Mode: fi.Mode(), UID: st.Uid, GID: st.Gid, Time: fi.ModTime().UTC()}
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			e.Text = string(b)
		case fi.Mode()&fs.ModeSymlink != 0:
			if e.Text, err = os.Readlink(name); err != nil {
				return err
			}
		}
		rel, _ := filepath.Rel(dir, name)
		all[rel] = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func same(t testing.TB, want, got map[string]entry) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("restored (-want +got):\n%.3000s", diff)
	}
}

// sample fills a directory with what volumes have.
func sample(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	put(t, dir+"/a", "hello")
	put(t, dir+"/empty", "")
	put(t, dir+"/sub/deep/b", noise(t, 3<<20))
	put(t, dir+"/sub/.kopiaignore", "*\n") // the files beside it are wanted all the same
	put(t, dir+"/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n")
	put(t, dir+"/cache/c", "not to be left out")
	put(t, dir+"/umlaut ä \n\\", "name")
	for _, err := range []error{
		os.Symlink("../a", dir+"/sub/link"), os.Symlink("/nowhere", dir+"/dangling"),
		os.Chmod(dir+"/a", 0o4755), os.Chmod(dir+"/sub", 0o1777), os.Chmod(dir, 0o750),
		os.Chown(dir+"/a", 999, 998), os.Chmod(dir+"/a", 0o755|fs.ModeSetuid), os.Chown(dir, 70, 70), os.Lchown(dir+"/dangling", 5, 6),
		os.Chtimes(dir+"/a", time.Unix(1e9, 123456789), time.Unix(1e9, 123456789)),
		os.Chtimes(dir+"/sub/deep", time.Unix(1e9, 5), time.Unix(1e9, 5)),
		unix.Lutimes(dir+"/dangling", make([]unix.Timeval, 2)),
		unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/sub/link", []unix.Timespec{{Sec: 1e9, Nsec: 7}, {Sec: 1e9, Nsec: 7}}, unix.AT_SYMLINK_NOFOLLOW),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRoundTrip(t *testing.T) {
	testenv.Require(t, testenv.Root)
	p, dir := newPlace(t), sample(t)
	r := opened(t, p)
	var told []Progress
	b := must[Backup](t)(r.Create(t.Context(), Request{
		Pool: "remora", Volume: "data", Dir: dir, PointInTime: true, Labels: map[string]string{"why": "test"},
		Tell: func(p Progress) { told = append(told, p) },
	}))
	if last := told[len(told)-1]; last.Done < 3<<20 || last.Done > last.Total {
		t.Errorf("the last progress is %+v", last)
	}
	if b.Size < 3<<20 || b.Stored < 3<<20 || b.Files != 7 || b.Kind != KindFiles || !b.PointInTime || b.Volume != "data" || b.Pool != "remora" || b.Host != "here" {
		t.Errorf("backup is %+v", b)
	}
	again := must[Backup](t)(r.Create(t.Context(), Request{Pool: "remora", Volume: "data", Dir: dir, PointInTime: true}))
	if again.Stored > 64<<10 || again.Size != b.Size {
		t.Errorf("a backup of what is unchanged stored %d bytes of %d", again.Stored, again.Size)
	}
	all := must[[]Backup](t)(reopened(t, p).List(t.Context()))
	b.Stored, again.Stored = 0, 0
	if diff := cmp.Diff([]Backup{b, again}, all); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	to := t.TempDir()
	if got := must[Backup](t)(reopened(t, p).Restore(t.Context(), b.ID[:8], to, nil)); got.ID != b.ID {
		t.Errorf("restored is %q", got.ID)
	}
	same(t, tree(t, dir), tree(t, to))
	if v := must[Verified](t)(Verify(t.Context(), p, nil, nil)); v.Backups != 2 || v.Bytes < 3<<20 || len(v.Damaged) > 0 {
		t.Errorf("verified: %+v", v)
	}
	if home, err := filepath.Glob(os.Getenv("HOME") + "/.cache/kopia*"); err != nil || len(home) > 0 {
		t.Errorf("kopia wrote to %q, %v", home, err)
	}
	for _, name := range []string{"kopia.json", "kopia-uncached.json"} {
		text := must[[]byte](t)(os.ReadFile(filepath.Join(p.Dir, name)))
		if strings.Contains(string(text), "secret") {
			t.Errorf("%s holds %s", name, text)
		}
	}
}

// What is not kept is in docs/guide/backup.md; when a newer kopia keeps more, this says so.
func TestWhatIsNotKept(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir, to := t.TempDir(), t.TempDir()
	put(t, dir+"/one", "hello")
	for _, err := range []error{
		os.Link(dir+"/one", dir+"/two"), unix.Setxattr(dir+"/one", "user.colour", []byte("blue"), 0),
		unix.Mkfifo(dir+"/pipe", 0o600), unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		os.WriteFile(dir+"/sparse", nil, 0o600), os.Truncate(dir+"/sparse", 64<<20),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := opened(t, newPlace(t))
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	if b.Skipped != 2 {
		t.Errorf("%d were skipped, want the pipe and the device", b.Skipped)
	}
	must[Backup](t)(r.Restore(t.Context(), b.ID, to, nil))
	got := tree(t, to)
	if len(got) != 4 || got["one"].Text != "hello" || got["two"].Text != "hello" {
		t.Errorf("restored are %d", len(got))
	}
	one, two := must[fs.FileInfo](t)(os.Stat(to+"/one")), must[fs.FileInfo](t)(os.Stat(to+"/two"))
	if os.SameFile(one, two) {
		t.Error("hard links are kept: say so in the guide")
	}
	if _, err := unix.Getxattr(to+"/one", "user.colour", make([]byte, 8)); !errors.Is(err, unix.ENODATA) {
		t.Errorf("attributes are kept, or what is %v: say so in the guide", err)
	}
	sparse := must[fs.FileInfo](t)(os.Stat(to + "/sparse"))
	if blocks := sparse.Sys().(*syscall.Stat_t).Blocks; sparse.Size() != 64<<20 || blocks > 2048 {
		t.Errorf("the sparse file has %d bytes in %d blocks", sparse.Size(), blocks)
	}
}

func TestRestorePath(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir, to := sample(t), t.TempDir()
	r := opened(t, newPlace(t))
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	put(t, to+"/a", "changed")
	put(t, to+"/sub/deep/other", "goes with the directory")
	put(t, to+"/kept", "stays")
	for _, name := range []string{"a", "/sub/deep/", "sub/link"} {
		if err := r.RestorePath(t.Context(), b.ID, name, to, nil); err != nil {
			t.Fatal(err)
		}
	}
	got, want := tree(t, to), tree(t, dir)
	for _, name := range []string{"a", "sub/deep", "sub/deep/b", "sub/link"} {
		if diff := cmp.Diff(want[name], got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%.500s", name, diff)
		}
	}
	if len(got) != 7 || got["kept"].Text != "stays" {
		t.Errorf("there are %d", len(got))
	}
	if err := r.RestorePath(t.Context(), b.ID, "sub/none", to, nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a path that is not there: %v", err)
	}
	if err := r.RestorePath(t.Context(), b.ID, "..", to, nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("no path: %v", err)
	}
	// What was left by one that was killed goes, what another one is writing stays.
	volume := must[*os.Root](t)(os.OpenRoot(to))
	defer volume.Close()
	other, locked, err := beside(volume)
	if err != nil {
		t.Fatal(err)
	}
	put(t, to+"/"+other+"/half", "of another")
	put(t, to+"/"+besidePrefix+"killed/sub/half", "of nobody")
	if err := r.RestorePath(t.Context(), b.ID, "a", to, nil); err != nil {
		t.Fatal(err)
	}
	if left := must[[]string](t)(filepath.Glob(to + "/" + besidePrefix + "*")); len(left) != 1 || filepath.Base(left[0]) != other {
		t.Errorf("beside the volume's own files are %q, want %s", left, other)
	}
	if err := errors.Join(locked.Close(), os.RemoveAll(to+"/"+other)); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := errors.Join(os.RemoveAll(to+"/sub"), os.Symlink(out, to+"/sub")); err != nil {
		t.Fatal(err)
	}
	err = r.RestorePath(t.Context(), b.ID, "sub/deep", to, nil)
	if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), `"sub": a symbolic link on its way leads out of the volume`) || len(errdefs.Hints(err)) != 1 {
		t.Errorf("with a link out of the volume in the way: %v, %q", err, errdefs.Hints(err))
	}
	if left := tree(t, out); len(left) != 1 {
		t.Errorf("outside of the volume are %d", len(left))
	}
}

// A page of a database is a small change, if its kind is known. The kind stays.
func TestKind(t *testing.T) {
	r := opened(t, newPlace(t))
	dir := t.TempDir()
	put(t, dir+"/db", noise(t, 32<<20))
	create := func(k Kind) Backup {
		t.Helper()
		f := must[*os.File](t)(os.OpenFile(dir+"/db", os.O_WRONLY, 0))
		_, err := f.WriteAt([]byte(noise(t, 8<<10)), 17<<20)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		return must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, Kind: k}))
	}
	create(KindDatabase)
	if b := create(""); b.Kind != KindDatabase || b.Stored > 400<<10 {
		t.Errorf("8 KiB of a database are stored as %d bytes, of kind %q", b.Stored, b.Kind)
	}
	if _, err := r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, Kind: "x"}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("an unknown kind: %v", err)
	}
}

// A file whose times were put back is seen by those who read it.
func TestReread(t *testing.T) {
	r := opened(t, newPlace(t))
	dir := t.TempDir()
	at := time.Unix(1e9, 0)
	write := func(text string) {
		put(t, dir+"/a", text)
		if err := os.Chtimes(dir+"/a", at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	write("two")
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, Reread: true}))
	to := t.TempDir()
	must[Backup](t)(r.Restore(t.Context(), b.ID, to, nil))
	if got := tree(t, to)["a"].Text; got != "two" {
		t.Errorf("restored is %q", got)
	}
}

func TestRemove(t *testing.T) {
	p := newPlace(t)
	r := opened(t, p)
	dir := t.TempDir()
	put(t, dir+"/a", noise(t, 1<<20))
	one := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	put(t, dir+"/a", noise(t, 1<<20))
	two := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	if err := r.Remove(t.Context(), one.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(t.Context(), one.ID); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
	if err := r.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	must[Backup](t)(reopened(t, p).Restore(t.Context(), two.ID, to, nil))
	same(t, tree(t, dir), tree(t, to))
	other := p
	other.Host, other.Dir = "there", t.TempDir()
	if err := reopened(t, other).Maintain(t.Context()); !errors.Is(err, errdefs.ErrDenied) || !strings.Contains(err.Error(), "in order is here") {
		t.Errorf("another host keeps order: %v", err)
	}
}
