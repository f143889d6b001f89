package dir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestTwoHostsShareAPool(t *testing.T) {
	pool := t.TempDir()
	a, b := openPool(t, pool), openPool(t, pool)
	b.Host = "0123abcd"
	create(t, a, "data")
	write(t, data(t, a, "data")+"/file", "bye")
	if got := list(t, b); !slices.Equal(got, []string{"data"}) {
		t.Errorf("the other host sees %v", got)
	}
	create(t, b, "data", "mode=0700")
	if got := read(t, data(t, b, "data")+"/file"); got != "bye" {
		t.Errorf("the other host reads %q", got)
	}
	if a.ID() != b.ID() {
		t.Errorf("the pool has IDs %s and %s", a.ID(), b.ID())
	}
	if err := b.Remove(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, a.Remove(t.Context(), "data"), errdefs.ErrNotFound, "no such volume")
}

func TestTwoHostsCreateAtOnce(t *testing.T) {
	pool := t.TempDir()
	var wg sync.WaitGroup
	for h := range 4 {
		d := openPool(t, pool)
		d.Host = fmt.Sprintf("%08x", h)
		wg.Go(func() {
			for i := range 20 {
				name := fmt.Sprintf("v%02d", i)
				if err := d.Create(t.Context(), name, nil); err != nil {
					t.Errorf("host %d: create %s: %v", h, name, err)
				}
				for _, err := range d.Volumes(t.Context()) { // sweeps what the others build, if it is wrong
					if err != nil {
						t.Error(err)
					}
				}
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := list(t, openPool(t, pool)); len(got) != 20 {
		t.Errorf("volumes are %v", got)
	}
	for _, path := range tree(t, pool) {
		if strings.HasPrefix(path, ".remora-") && path != pooldir.MarkerName {
			t.Errorf("left behind: %s", path)
		}
	}
}

func TestAdoptsDataWithoutFacts(t *testing.T) {
	pool := t.TempDir()
	if err := os.MkdirAll(pool+"/data/data", 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, pool+"/data/data/file", "bye")
	d := openPool(t, pool)
	if got := list(t, d); len(got) != 0 {
		t.Errorf("volumes before are %v", got)
	}
	wantErr(t, d.Create(t.Context(), "data", opts("mountpoint=/srv")), errdefs.ErrExists, "in the way")
	create(t, d, "data")
	if got := read(t, data(t, d, "data")+"/file"); got != "bye" {
		t.Errorf("data is %q", got)
	}
	if got := list(t, openPool(t, pool)); !slices.Equal(got, []string{"data"}) {
		t.Errorf("volumes are %v", got)
	}
}

func TestSomethingElseIsInTheWay(t *testing.T) {
	pool := t.TempDir()
	write(t, pool+"/file", "x")
	for _, dir := range []string{"empty", "full", "elsewhere/data"} {
		if err := os.MkdirAll(filepath.Join(pool, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, pool+"/full/x", "x")
	for link, to := range map[string]string{"link": "elsewhere", "dangling": "nowhere", "full/data": "/etc"} {
		if err := os.Symlink(to, filepath.Join(pool, link)); err != nil {
			t.Fatal(err)
		}
	}
	d := openPool(t, pool)
	if got := list(t, d); len(got) != 0 {
		t.Errorf("volumes are %v", got)
	}
	before := tree(t, pool)
	for _, name := range []string{"file", "empty", "full", "link", "dangling"} {
		err := d.Create(t.Context(), name, nil)
		wantErr(t, err, errdefs.ErrExists, pool+"/"+name+" is in the way, and not a volume")
		if len(errdefs.Hints(err)) != 1 || !strings.Contains(errdefs.Hints(err)[0], "-o mountpoint=") {
			t.Errorf("%s: hints are %q", name, errdefs.Hints(err))
		}
		wantErr(t, d.Remove(t.Context(), name), errdefs.ErrNotFound, "no such volume")
	}
	if after := tree(t, pool); !slices.Equal(before, after) {
		t.Errorf("the pool was\n%v\nand is\n%v", before, after)
	}
}

func TestCorruptFacts(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	create(t, d, "good")
	create(t, d, "data")
	write(t, data(t, d, "data")+"/file", "bye")
	whole := read(t, pool+"/data/volume.json")
	for name, text := range map[string]string{
		"empty": "", "torn": whole[:len(whole)/2], "garbage": "\x00\xff", "no version": `{"name":"data"}`,
		"newer": `{"version":99}`, "large": strings.Repeat(" ", state.MaxSize+10),
	} {
		t.Run(name, func(t *testing.T) {
			write(t, pool+"/data/volume.json", text)
			if got := list(t, d); !slices.Equal(got, []string{"data", "good"}) {
				t.Errorf("volumes are %v", got)
			}
			info, err := d.Inspect(t.Context(), "data")
			if err != nil || !strings.HasPrefix(fmt.Sprint(info.Status["error"]), "data/volume.json: ") {
				t.Errorf("inspected as %+v, %v", info, err)
			}
			_, merr := d.Mount(t.Context(), "data", "")
			for what, err := range map[string]error{
				"mount": merr, "create": d.Create(t.Context(), "data", nil), "remove": d.Remove(t.Context(), "data"),
			} {
				if err == nil || errors.Is(err, errdefs.ErrNotFound) || !strings.HasPrefix(err.Error(), "data/volume.json: ") || len(errdefs.Hints(err)) == 0 {
					t.Errorf("%s: %v, hints %q", what, err, errdefs.Hints(err))
				}
			}
			if got := read(t, pool+"/data/volume.json"); got != text {
				t.Errorf("facts became %.100q", got)
			}
			if _, err := d.Mount(t.Context(), "good", ""); err != nil {
				t.Errorf("another volume: %v", err)
			}
		})
	}
	if err := os.Rename(pool+"/data/volume.json", pool+"/data/volume.json.bad"); err != nil {
		t.Fatal(err)
	}
	create(t, d, "data") // as the hint says
	if got := read(t, data(t, d, "data")+"/file"); got != "bye" {
		t.Errorf("data is %q", got)
	}
}

func TestUsualFactsDecodeAsAll(t *testing.T) {
	for _, f := range []facts{
		{Name: "data", ID: pooldir.NewID(), Created: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)},
		{Name: `quo"te\`, ID: pooldir.NewID(), Created: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)},
		{Name: "data", ID: pooldir.NewID(), Created: time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)},
		{Name: "data", ID: pooldir.NewID(), Mountpoint: "/srv", Options: opts("mode=1")},
		{},
	} {
		raw, err := state.Encode(factsVersion, f)
		if err != nil {
			t.Fatal(err)
		}
		checkUsual(t, raw)
	}
	raw, err := state.Encode(factsVersion, facts{Name: "data", ID: pooldir.NewID(), Created: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if !decodeUsual(raw, new(facts)) {
		t.Errorf("usual facts are taken for unusual: %s", raw)
	}
	for i := range len(raw) - 1 {
		if decodeUsual(raw[:i], new(facts)) {
			t.Errorf("torn facts are taken for whole: %s", raw[:i])
		}
	}
}

// checkUsual checks that what the fast decoder takes, it decodes as the other does.
func checkUsual(t *testing.T, raw []byte) {
	t.Helper()
	var fast, slow facts
	if !decodeUsual(raw, &fast) {
		return
	}
	if err := state.Decode(raw, factsVersion, &slow); err != nil {
		t.Errorf("%q: decoded as %+v, want %v", raw, fast, err)
	} else if fast.Name != slow.Name || fast.ID != slow.ID || !fast.Created.Equal(slow.Created) || fast.Mountpoint != slow.Mountpoint || len(slow.Options) != 0 {
		t.Errorf("%q: decoded as %+v, want %+v", raw, fast, slow)
	}
}

func FuzzDecodeUsual(f *testing.F) {
	raw, err := state.Encode(factsVersion, facts{Name: "data", ID: pooldir.NewID(), Created: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"version":1,"name":"a","id":"00000000-0000-0000-0000-000000000000","created":"2026-11-21T08:00:00Z","options":{}}`))
	f.Add(bytes.Replace(raw, []byte("-"), []byte("\xf7"), 1)) // not UTF-8, which JSON decodes to U+FFFD
	f.Fuzz(func(t *testing.T, raw []byte) { checkUsual(t, raw) })
}

func TestExternalMountpoint(t *testing.T) {
	pool, srv := t.TempDir(), t.TempDir()
	d := openPool(t, pool)
	write(t, srv+"/file", "bye")
	create(t, d, "old", "mountpoint="+srv+"/")
	create(t, d, "new", "mountpoint="+srv+"/a/b", "mode=0700")
	for name, want := range map[string]string{"old": srv, "new": srv + "/a/b"} {
		info, err := d.Inspect(t.Context(), name)
		if got := data(t, d, name); got != want || err != nil || info.Mountpoint != want {
			t.Errorf("%s is at %s, inspected as %+v, %v", name, got, info, err)
		}
	}
	if fi, err := os.Stat(srv + "/a/b"); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("mode is %v, %v", fi, err)
	}
	create(t, d, "old", "mountpoint="+srv)
	wantErr(t, d.Create(t.Context(), "old", opts("mountpoint=/elsewhere")), errdefs.ErrExists, "its data lies at "+srv+", not at /elsewhere")
	wantErr(t, d.Create(t.Context(), "bad", opts("mountpoint="+srv+"/file")), errdefs.ErrInvalid, "not a directory")
	wantErr(t, d.Create(t.Context(), "bad", opts("mountpoint="+srv+"/file/x")), errdefs.ErrInvalid, "not a directory")
	if got := list(t, openPool(t, pool)); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("volumes are %v", got)
	}
	if err := d.Remove(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, srv+"/file"); got != "bye" {
		t.Errorf("data is %q", got)
	}
	if err := os.RemoveAll(srv + "/a"); err != nil {
		t.Fatal(err)
	}
	_, err := d.Mount(t.Context(), "new", "")
	wantErr(t, err, errdefs.ErrUnavailable, srv+"/a/b: no such file or directory")
	if err := d.Remove(t.Context(), "new"); err != nil {
		t.Error(err)
	}
}

// TestExternalMountpointWithoutItsDisk: the empty directory below a disk that is not mounted
// is not the volume.
func TestExternalMountpointWithoutItsDisk(t *testing.T) {
	testenv.Require(t, testenv.Root)
	srv := t.TempDir()
	mount := func() {
		t.Helper()
		if err := unix.Mount("disk", srv, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	mount()
	d := openPool(t, t.TempDir())
	if err := os.Symlink(srv, d.Path+"-link"); err != nil {
		t.Fatal(err)
	}
	create(t, d, "disk", "mountpoint="+srv)
	create(t, d, "link", "mountpoint="+d.Path+"-link/sub")
	if err := unix.Unmount(srv, 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk", "link"} {
		_, err := d.Mount(t.Context(), name, "")
		wantErr(t, err, errdefs.ErrUnavailable, "nothing is mounted at "+srv)
	}
	mount()
	if got := data(t, d, "disk"); got != srv {
		t.Errorf("back at %s", got)
	}
	if err := unix.Unmount(srv, 0); err != nil {
		t.Fatal(err)
	}
}

// TestMountpointBehindALink: the pool and a directory elsewhere do not lie in one another,
// by whatever way one comes there.
func TestMountpointBehindALink(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Dir(pool), link); err != nil {
		t.Fatal(err)
	}
	for _, mountpoint := range []string{link, link + "/" + filepath.Base(pool) + "/a/b"} {
		wantErr(t, d.Create(t.Context(), "bad", opts("mountpoint="+mountpoint)), errdefs.ErrInvalid, "lie in one another")
	}
}

func TestFailedCreateTakesItsMountpointAway(t *testing.T) {
	testenv.Require(t, testenv.Root)
	pool, srv := tmpfs(t, "size=1m,nr_inodes=3"), t.TempDir() // the pool, its marker, and what is built
	d := openPool(t, pool)
	if err := d.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantErr(t, d.Create(t.Context(), "data", opts("mountpoint="+srv+"/a/b")), errdefs.ErrUnavailable, "no space left on device")
	if got := tree(t, srv); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// TestMountFollowsNoLink: a symbolic link to a volume is not a volume, on the quick way
// of Mount either.
func TestMountFollowsNoLink(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	if err := d.Create(t.Context(), "real", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(pool, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Mount(t.Context(), "real", ""); err != nil {
		t.Fatal(err)
	}
	p, err := d.Mount(t.Context(), "link", "")
	wantErr(t, err, errdefs.ErrNotFound, "no such volume")
	if p != "" {
		t.Errorf("mounted at %s", p)
	}
}
