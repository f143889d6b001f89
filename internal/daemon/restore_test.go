package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const repositoryTOML = "[pool.a]\nlinger = \"0s\"\n[pool.b]\ndriver = \"mem\"\n[repository.near]\nurl = \"DIR/repository\"\npassword_file = \"DIR/password\"\n"

func silent(control.Progress) {}

// writeVersion writes files into a directory that all say the same.
func writeVersion(t *testing.T, dir, version string, files int) {
	t.Helper()
	noise := make([]byte, 64<<10)
	for i := range files {
		_, _ = rand.Read(noise)
		write(t, fmt.Sprintf("%s/%03d", dir, i), version+string(noise))
	}
}

// versionOf returns what all files in a directory say, or that they do not.
func versionOf(t *testing.T, dir string, files int) string {
	t.Helper()
	names, err := filepath.Glob(dir + "/*")
	if err != nil || len(names) != files {
		return fmt.Sprintf("%d files in %s, %v", len(names), dir, err)
	}
	version := ""
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil || len(text) < 1 || version != "" && string(text[:1]) != version {
			return fmt.Sprintf("%s: %d bytes, %v, not as in %s", name, len(text), err, version)
		}
		version = string(text[:1])
	}
	return version
}

// noFills tells whether nothing is being restored in a pool.
func (h *host) noFills(pool string) bool {
	left, err := filepath.Glob(h.dir + "/state/fills/" + pool + "/*")
	return err == nil && len(left) == 0
}

func (h *host) names(pool string) (names []string) {
	h.t.Helper()
	all, err := h.control.Volumes().List(h.t.Context(), control.VolumeListRequest{Pool: pool})
	h.must(err)
	for _, v := range all {
		names = append(names, v.Name)
	}
	return names
}

// killRestores kills a daemon in the middle of what do asks for, many times, and has check look at
// what the next one makes of it: every other time at any moment, and else soon after there are files
// that begun, a pattern below the state directory, means.
func killRestores(t *testing.T, few int, prepare func(h *host), do func(h *host) error, begun string, check func(h *host)) {
	t.Helper()
	notShort(t)
	rounds, chance := testenv.Rounds(few), mathrand.New(mathrand.NewPCG(testenv.Seed(t), 0))
	h := newHost(t, repositoryTOML)
	write(t, h.dir+"/password", "secret")
	c := startChild(h)
	_, err := h.control.Backups().Init(t.Context(), control.BackupRepository{})
	h.must(err)
	_, err = h.control.Volumes().Create(t.Context(), control.VolumeCreateRequest{Pool: "a", Name: "data"})
	h.must(err)
	dir := h.dir + "/state/volumes/a/data/data"
	writeVersion(t, dir, "A", killFiles)
	_, err = h.control.Backups().Create(t.Context(), control.BackupCreateRequest{Pool: "a", Name: "data"}, silent)
	h.must(err)
	prepare(h)
	start := time.Now()
	h.must(do(h))
	took, cut := time.Since(start), 0
	for round := range rounds {
		prepare(h)
		ended := make(chan error, 1)
		go func() { ended <- do(h) }()
		if round%2 == 0 {
			time.Sleep(time.Duration(chance.Int64N(int64(took * 11 / 10))))
		} else {
			h.await("files", func() bool {
				found, err := filepath.Glob(h.dir + "/state/" + begun)
				return err == nil && len(found) > 3
			})
			time.Sleep(time.Duration(chance.Int64N(int64(took / 4))))
		}
		c.signal(syscall.SIGKILL)
		_ = c.cmd.Wait() // killed
		if <-ended != nil {
			cut++
		}
		h.control.Close()
		c = startChild(h)
		if check(h); t.Failed() {
			t.Fatalf("that was round %d", round)
		}
	}
	c.end()
	t.Logf("killed %d times, %d of them before it was done", rounds, cut)
	if cut < rounds/4 {
		t.Errorf("only %d of %d kills cut something off", cut, rounds)
	}
}

const killFiles = 200

// A volume that is restored in place is, whenever the daemon is killed, the old or the new, and
// what it was before is in the trash.
func TestKilledRestoreInPlace(t *testing.T) {
	data := func(h *host) string { return h.dir + "/state/volumes/a/data/data" }
	seen := map[string]int{}
	killRestores(t, 8, func(h *host) {
		list, err := h.control.Storage().Trash(t.Context(), control.TrashListRequest{Pool: "a"})
		h.must(err)
		for _, x := range list.Trashed {
			h.must(h.control.Storage().Purge(t.Context(), control.TrashRequest{Pool: "a", ID: x.ID}))
		}
		writeVersion(t, data(h), "B", killFiles)
	}, func(h *host) error {
		_, err := h.control.Backups().Restore(t.Context(), control.BackupRestoreRequest{ID: "data"}, silent)
		return err
	}, "volumes/a/remora-restore-*/data/*", func(h *host) {
		// From the moment on at which an engine can ask.
		if _, err := h.plugin("a").Get(t.Context(), "data"); err != nil {
			t.Errorf("an engine hears %v", err)
		}
		h.await("what was cut off settled", func() bool { return h.noFills("a") })
		if got := h.names("a"); !slices.Equal(got, []string{"data"}) {
			t.Errorf("volumes are %v", got)
		}
		list, err := h.control.Storage().Trash(t.Context(), control.TrashListRequest{Pool: "a"})
		h.must(err)
		version := versionOf(t, data(h), killFiles)
		seen[version]++
		switch {
		case version == "B" && len(list.Trashed) == 0:
		case version == "A" && len(list.Trashed) == 1 && list.Trashed[0].Name == "data":
			_, err := h.control.Storage().Restore(t.Context(), control.TrashRestoreRequest{Pool: "a", ID: list.Trashed[0].ID, Name: "old"})
			h.must(err)
			if old := versionOf(t, h.dir+"/state/volumes/a/old/data", killFiles); old != "B" {
				t.Errorf("the old volume has %s", old)
			}
			h.must(h.control.Volumes().Remove(t.Context(), control.VolumeRemoveRequest{Pool: "a", Name: "old", Purge: true}))
		default:
			t.Errorf("the volume has %s, and in the trash are %+v", version, list.Trashed)
		}
		_, err = h.plugin("a").Mount(t.Context(), "data", "one")
		h.must(err)
		h.must(h.plugin("a").Unmount(t.Context(), "data", "one"))
	})
	t.Logf("after the kill: %v", seen)
	if testenv.Soak() && (seen["A"] == 0 || seen["B"] == 0) {
		t.Error("every kill came on the same side of the exchange")
	}
}

// A restore to a new volume that is killed leaves none, or a whole one.
func TestKilledRestoreToNew(t *testing.T) {
	killRestores(t, 4, func(h *host) {
		_ = h.control.Volumes().Remove(t.Context(), control.VolumeRemoveRequest{Pool: "a", Name: "new", Purge: true}) // it may be there
	}, func(h *host) error {
		_, err := h.control.Backups().Restore(t.Context(), control.BackupRestoreRequest{ID: "data", To: "new"}, silent)
		return err
	}, "volumes/a/new/data/*", func(h *host) {
		h.await("what was cut off settled", func() bool { return h.noFills("a") })
		switch names := h.names("a"); {
		case slices.Equal(names, []string{"data"}):
		case slices.Equal(names, []string{"data", "new"}):
			if v := versionOf(t, h.dir+"/state/volumes/a/new/data", killFiles); v != "A" {
				t.Errorf("the new volume has %s", v)
			}
		default:
			t.Errorf("volumes are %v", names)
		}
	})
}

// A volume that an engine wants to be made of a backup is made by the next daemon, or was not
// begun; it cannot be mounted before it is whole.
func TestKilledCreate(t *testing.T) {
	killRestores(t, 4, func(h *host) {
		_ = h.control.Volumes().Remove(t.Context(), control.VolumeRemoveRequest{Pool: "a", Name: "new", Purge: true}) // it may be there
	}, func(h *host) error {
		return h.plugin("a").Create(t.Context(), "new", map[string]string{"backup": "near/data"})
	}, "volumes/a/new/data/*", func(h *host) {
		for ; !h.noFills("a"); time.Sleep(time.Millisecond) {
			_, err := h.plugin("a").Mount(t.Context(), "new", "early")
			switch {
			case err == nil:
				if v := versionOf(t, h.dir+"/state/volumes/a/new/data", killFiles); v != "A" {
					t.Errorf("mounted with %s", v)
				}
				h.must(h.plugin("a").Unmount(t.Context(), "new", "early"))
			case errors.Is(err, errdefs.ErrNotFound): // it had not been made
			case !strings.Contains(err.Error(), "is being restored from near/data"):
				t.Errorf("mount: %v", err)
			}
		}
		if names := h.names("a"); slices.Contains(names, "new") {
			if v := versionOf(t, h.dir+"/state/volumes/a/new/data", killFiles); v != "A" {
				t.Errorf("the new volume has %s", v)
			}
		} else if !slices.Equal(names, []string{"data"}) {
			t.Errorf("volumes are %v", names)
		}
	})
}

// startBackedUp starts a daemon with a volume "data" in pool a, and a backup of it.
func startBackedUp(t *testing.T, files int) *host {
	t.Helper()
	notShort(t)
	h := startHost(t, repositoryTOML)
	write(t, h.dir+"/password", "secret")
	_, err := h.control.Backups().Init(t.Context(), control.BackupRepository{})
	h.must(err)
	_, err = h.control.Volumes().Create(t.Context(), control.VolumeCreateRequest{Pool: "a", Name: "data"})
	h.must(err)
	writeVersion(t, h.dir+"/state/volumes/a/data/data", "A", files)
	_, err = h.control.Backups().Create(t.Context(), control.BackupCreateRequest{Pool: "a", Name: "data"}, silent)
	h.must(err)
	return h
}

// What takes longer than an engine waits goes on, who asks again joins it, and who removes it
// ends it.
func TestCreateThatTakesLong(t *testing.T) {
	testCreateWait.Store(int64(time.Millisecond))
	defer testCreateWait.Store(0)
	h := startBackedUp(t, 400)
	ctx := t.Context()
	opts := map[string]string{"backup": "near/data"}
	err := h.plugin("a").Create(ctx, "new", opts)
	if err == nil || !strings.Contains(err.Error(), `volume "new": is being restored from near/data: `) || !strings.Contains(err.Error(), "it goes on") {
		t.Errorf("create: %v", err)
	}
	if err := h.plugin("a").Create(ctx, "new", opts); err == nil || !strings.Contains(err.Error(), "is being restored") {
		t.Errorf("again: %v", err)
	}
	if err := h.plugin("a").Create(ctx, "new", map[string]string{"backup": "near/other"}); err == nil || !strings.Contains(err.Error(), "is being restored from near/data") {
		t.Errorf("of another backup: %v", err)
	}
	h.await("whole", func() bool { return h.noFills("a") })
	if v := versionOf(t, h.dir+"/state/volumes/a/new/data", 400); v != "A" {
		t.Errorf("the new volume has %s", v)
	}
	h.must(h.plugin("a").Create(ctx, "new", opts)) // adopted
	_, err = h.plugin("a").Mount(ctx, "new", "one")
	h.must(err)
	h.must(h.plugin("a").Unmount(ctx, "new", "one"))

	// Given up. How far it came is a matter of luck.
	if err := h.plugin("a").Create(ctx, "gone", opts); err == nil {
		t.Error("made in a millisecond")
	}
	h.await("the volume", func() bool {
		_, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Pool: "a", Name: "gone"})
		return err == nil
	})
	h.must(h.control.Volumes().Remove(ctx, control.VolumeRemoveRequest{Pool: "a", Name: "gone"}))
	h.await("nothing under way", func() bool { return h.noFills("a") })
	if got := h.names("a"); !slices.Equal(got, []string{"data", "new"}) {
		t.Errorf("volumes are %v", got)
	}
	// Nobody waits, and there is no such backup.
	if err := h.plugin("a").Create(ctx, "none", map[string]string{"backup": "near/none"}); err == nil {
		t.Error("made of nothing")
	}
	h.await("nothing under way", func() bool { return h.noFills("a") })
}

// Where there is no trash, a restore that is cut off after the old content went leaves a volume
// that nobody can use before it is restored again.
func TestRestoreOverThatFails(t *testing.T) {
	h := startBackedUp(t, 20)
	ctx := t.Context()
	_, err := h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data", Pool: "b", To: "small", Options: map[string]string{"size": "2m"}}, silent)
	h.must(err)
	_, err = h.control.Backups().Create(ctx, control.BackupCreateRequest{Pool: "b", Name: "small"}, silent)
	h.must(err)
	h.must(h.control.Volumes().Remove(ctx, control.VolumeRemoveRequest{Pool: "b", Name: "small"}))
	_, err = h.control.Volumes().Create(ctx, control.VolumeCreateRequest{Pool: "b", Name: "small", Options: map[string]string{"size": "1m"}})
	h.must(err)
	r, err := h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "small"}, silent)
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("restored: %+v, %v", r, err)
	}
	_, err = h.plugin("b").Mount(ctx, "small", "one")
	if err == nil || !strings.Contains(err.Error(), "only partly restored from backup") {
		t.Errorf("mount: %v", err)
	}
	v, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Pool: "b", Name: "small"})
	if h.must(err); v.Restoring != "partial" {
		t.Errorf("volume is %+v", v)
	}
	h.must(h.control.Volumes().Remove(ctx, control.VolumeRemoveRequest{Pool: "b", Name: "small"}))
	_, err = h.control.Volumes().Create(ctx, control.VolumeCreateRequest{Pool: "b", Name: "small"})
	h.must(err)
	_, err = h.plugin("b").Mount(ctx, "small", "one")
	h.must(err)
	h.must(h.plugin("b").Unmount(ctx, "small", "one"))
	r, err = h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "small"}, silent)
	if h.must(err); len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "has no trash") {
		t.Errorf("restored: %+v", r)
	}
	h.must(h.control.Volumes().Remove(ctx, control.VolumeRemoveRequest{Pool: "b", Name: "small"})) // mounted as long as it is there
}

// A volume that was whole beside the old one takes its place before an engine can ask, between
// whatever two steps the daemon was killed.
func TestCutOffWhileSwapping(t *testing.T) {
	const beside = "remora-restore-x"
	for _, trashed := range [][]string{{}, {beside}, {beside, "data"}} {
		h := newHost(t, "[pool.a]\n")
		c := startChild(h)
		ctx := t.Context()
		for _, name := range []string{"data", beside} {
			h.must(h.plugin("a").Create(ctx, name, nil))
			write(t, h.dir+"/state/volumes/a/"+name+"/data/file", name)
		}
		for _, name := range trashed {
			h.must(h.plugin("a").Remove(ctx, name))
		}
		c.end()
		h.control.Close()
		h.must(os.MkdirAll(h.dir+"/state/fills/a", 0o700))
		write(t, h.dir+"/state/fills/a/data", `{"version":1,"kind":"in-place","repository":"near","backup":"0123","began":"2026-11-20T00:00:00Z","beside":"`+beside+`","whole":true}`)
		c = startChild(h)
		p, err := h.plugin("a").Mount(ctx, "data", "one")
		h.must(err)
		if text, err := os.ReadFile(p + "/file"); err != nil || string(text) != beside {
			t.Errorf("%q in the trash: the volume has %q, %v", trashed, text, err)
		}
		list, err := h.control.Storage().Trash(ctx, control.TrashListRequest{Pool: "a"})
		h.must(err)
		if len(list.Trashed) != 1 || list.Trashed[0].Name != "data" || !slices.Equal(h.names("a"), []string{"data"}) || !h.noFills("a") {
			t.Errorf("%q in the trash: left are %+v, %v", trashed, list.Trashed, h.names("a"))
		}
		c.end()
		h.control.Close()
	}
}

// A volume with a file system of its own keeps its limit, and its old content with its snapshots,
// when it is restored in place.
func TestRestoreInPlaceOnLoop(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	notShort(t)
	h := startHost(t, "[pool.img]\ndriver = \"loop\"\n"+strings.TrimPrefix(repositoryTOML, "[pool.a]\nlinger = \"0s\"\n"))
	write(t, h.dir+"/password", "secret")
	ctx := t.Context()
	_, err := h.control.Backups().Init(ctx, control.BackupRepository{})
	h.must(err)
	_, err = h.control.Volumes().Create(ctx, control.VolumeCreateRequest{Pool: "img", Name: "data", Options: map[string]string{"size": "32m"}})
	h.must(err)
	was, err := h.control.Storage().Resize(ctx, control.VolumeResizeRequest{Pool: "img", Name: "data", Size: 48 << 20})
	h.must(err)
	within := func(name string, do func(dir string)) {
		t.Helper()
		dir, err := h.plugin("img").Mount(ctx, name, "one")
		h.must(err)
		do(dir)
		h.must(h.plugin("img").Unmount(ctx, name, "one"))
	}
	within("data", func(dir string) { write(t, dir+"/file", "A") })
	_, err = h.control.Backups().Create(ctx, control.BackupCreateRequest{Pool: "img", Name: "data"}, silent)
	h.must(err)
	within("data", func(dir string) { write(t, dir+"/file", "B") })
	r, err := h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data"}, silent)
	h.must(err)
	_, err = h.control.Storage().Restore(ctx, control.TrashRestoreRequest{Pool: "img", ID: r.Kept, Name: "old"})
	h.must(err)
	for name, want := range map[string]string{"data": "A", "old": "B"} {
		within(name, func(dir string) {
			if text, err := os.ReadFile(dir + "/file"); err != nil || string(text) != want {
				t.Errorf("%s has %q, %v", name, text, err)
			}
			is, err := h.control.Storage().Usage(ctx, control.VolumeRequest{Pool: "img", Name: name}, silent)
			if h.must(err); is.Limit != was.Limit {
				t.Errorf("%s has the limit %d, and before %d", name, is.Limit, was.Limit)
			}
		})
	}
	if p := h.prove("data"); p.Error != "" {
		t.Errorf("proof is %+v", p)
	}
	if got := h.names("img"); !slices.Equal(got, []string{"data", "old"}) {
		t.Errorf("volumes are %v", got)
	}
}
