package daemon

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/snapshot"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// silentServer takes connections, and says nothing until drop ends them.
func silentServer(t *testing.T) (addr string, connected <-chan struct{}, drop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got, ended := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			got <- struct{}{}
		}
	}()
	drop = sync.OnceFunc(func() { _ = l.Close(); <-ended })
	t.Cleanup(drop)
	return l.Addr().String(), got, drop
}

// Half a volume stays one, whatever restore of it fails.
func TestPartialStaysPartial(t *testing.T) {
	h := startBackedUp(t, 5)
	ctx := t.Context()
	partial := func(when string) {
		t.Helper()
		_, err := h.plugin("a").Mount(ctx, "data", "one")
		if err == nil || !strings.Contains(err.Error(), "only partly restored") {
			t.Fatalf("%s: mount: %v", when, err)
		}
		if _, err := os.Stat(h.dir + "/state/fills/a/data"); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	h.must(h.stop())
	h.control.Close()
	h.must(os.MkdirAll(h.dir+"/state/fills/a", 0o700))
	write(t, h.dir+"/state/fills/a/data", `{"version":1,"kind":"over","repository":"near","backup":"0123","began":"2026-11-20T00:00:00Z","error":"cut off"}`)
	h.run()
	partial("at first")
	_, err := h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data", To: "data"}, silent)
	if !errors.Is(err, errdefs.ErrExists) {
		t.Errorf("restored to one that is there: %v", err)
	}
	partial("after a restore to one that is there")
	h.must(os.Rename(h.dir+"/repository/p", h.dir+"/packs"))
	for _, purge := range []bool{false, true} {
		_, err := h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data", Purge: purge}, silent)
		if err == nil {
			t.Fatal("restored without its packs")
		}
		partial("after a restore that failed")
	}
	h.await("nothing beside", func() bool { return slices.Equal(h.names("a"), []string{"data"}) })
	h.must(os.Rename(h.dir+"/packs", h.dir+"/repository/p"))
	_, err = h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data"}, silent)
	h.must(err)
	_, err = h.plugin("a").Mount(ctx, "data", "one")
	h.must(err)
	h.must(h.plugin("a").Unmount(ctx, "data", "one"))
	if v := versionOf(t, h.dir+"/state/volumes/a/data/data", 5); v != "A" || !h.noFills("a") {
		t.Errorf("the volume has %s", v)
	}
}

// Somebody makes a volume under the name of one that is to be made of a backup when the repository
// answers: it is his, with all that is in it.
func TestCreateBesideAnother(t *testing.T) {
	testenv.Require(t, testenv.Sshd) // for ssh-keygen
	testCreateWait.Store(int64(time.Millisecond))
	defer testCreateWait.Store(0)
	h := startBackedUp(t, 5)
	ctx := t.Context()
	addr, connected, drop := silentServer(t)
	pools, near, _ := strings.Cut(repositoryTOML, "[repository.near]")
	write(t, h.dir+"/known", "")
	if out, err := exec.Command("ssh-keygen", "-qt", "ed25519", "-N", "", "-f", h.dir+"/key").CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	h.configure(pools + "[repository.near]\nurl = \"sftp://me@" + addr + "/x\"\npassword_file = \"DIR/password\"\nkey_file = \"DIR/key\"\nknown_hosts = \"DIR/known\"\n")
	_, err := h.control.Reload(ctx)
	h.must(err)
	h.must(os.Mkdir(h.dir+"/outside", 0o700))
	write(t, h.dir+"/outside/file", "mine")
	h.must(h.plugin("a").Create(ctx, "new", nil))
	h.must(h.plugin("a").Remove(ctx, "new"))
	list, err := h.control.Storage().Trash(ctx, control.TrashListRequest{Pool: "a"})
	h.must(err)

	if err := h.plugin("a").Create(ctx, "new", map[string]string{"backup": "near/data"}); err == nil {
		t.Fatal("made of a repository that does not answer")
	}
	<-connected
	_, err = h.control.Storage().Restore(ctx, control.TrashRestoreRequest{Pool: "a", ID: list.Trashed[0].ID, Name: "new"})
	if err == nil || !strings.Contains(err.Error(), "is being restored from near/data") {
		t.Errorf("brought back: %v", err)
	}
	h.must(h.plugin("a").Create(ctx, "new", map[string]string{"mountpoint": h.dir + "/outside"}))
	drop()
	h.await("the fill given up", func() bool { return h.noFills("a") })
	h.must(h.stop())
	h.control.Close()
	h.configure(pools + "[repository.near]" + near)
	h.run()
	h.await("nothing under way", func() bool { return h.noFills("a") })
	dir, err := h.plugin("a").Mount(ctx, "new", "one")
	h.must(err)
	if text, err := os.ReadFile(dir + "/file"); err != nil || string(text) != "mine" {
		t.Errorf("the volume has %q, %v", text, err)
	}
	h.must(h.plugin("a").Unmount(ctx, "new", "one"))
}

// A reload that takes a pool away, or changes it, does not leave a backup to a driver that is
// closed.
func TestReloadDuringBackup(t *testing.T) {
	notShort(t)
	d, driver := copies(t)
	h := startHost(t, copiesPool, driver)
	ctx := t.Context()
	write(t, h.dir+"/password", "secret")
	_, err := h.control.Backups().Init(ctx, control.BackupRepository{})
	h.must(err)
	_, err = h.control.Volumes().Create(ctx, control.VolumeCreateRequest{Name: "data"})
	h.must(err)
	h.must(os.MkdirAll(d.snap("data", "large"), 0o700))
	_, err = h.control.Storage().CreateSnapshot(ctx, control.SnapshotCreateRequest{Volume: "data", Name: snapshot.OwnPrefix + "mine"})
	if !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a snapshot that a backup would remove: %v", err)
	}
	begun := make(chan struct{})
	d.opened = func() error { // what is read has no end
		found, err := filepath.Glob(d.snap("data", snapshot.OwnPrefix+"*"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("there are %q, %w", found, err)
		}
		write(t, found[0]+"/file", "")
		if err := os.Truncate(found[0]+"/file", 1<<40); err != nil {
			return err
		}
		err = h.control.Storage().RemoveSnapshot(ctx, control.SnapshotRequest{Volume: "data", Name: filepath.Base(found[0])})
		if !errors.Is(err, errdefs.ErrInUse) || !strings.Contains(err.Error(), "busy: backup") {
			t.Errorf("removed while it is backed up: %v", err)
		}
		close(begun)
		return nil
	}
	failed := make(chan error, 1)
	go func() {
		_, err := h.control.Backups().Create(ctx, control.BackupCreateRequest{Name: "data"}, silent)
		failed <- err
	}()
	<-begun
	start := time.Now()
	h.configure(strings.Replace(copiesPool, "\n", "\nrefresh = \"10m\"\n", 1))
	r, err := h.control.Reload(ctx)
	h.must(err)
	if took := time.Since(start); len(r.Changed) != 1 || took > 8*time.Second {
		t.Errorf("the reload took %s: %+v", took, r)
	}
	select {
	case err := <-failed:
		if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "configuration of the pool has changed") {
			t.Errorf("backup: %v", err)
		}
	case <-time.After(patience):
		t.Error("the backup goes on")
	}
	if left, err := filepath.Glob(d.snap("data", snapshot.OwnPrefix+"*")); err != nil || len(left) > 0 {
		t.Errorf("left are %q, %v", left, err)
	}
}

// A directory with data that somebody has put into the pool becomes a volume by its first use. It is
// none that a restore has made, and is not destroyed for one that fails.
func TestRestoreToWhatIsThere(t *testing.T) {
	h := startBackedUp(t, 5)
	ctx := t.Context()
	for name, do := range map[string]func(name string) error{
		"whole": func(name string) error {
			_, err := h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data", To: name}, silent)
			return err
		},
		"path": func(name string) error {
			_, err := h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data", To: name, Paths: []string{"000"}}, silent)
			return err
		},
		"engine": func(name string) error {
			return h.plugin("a").Create(ctx, name, map[string]string{"backup": "near/data"})
		},
	} {
		dir := h.dir + "/state/volumes/a/" + name + "/data"
		h.must(os.MkdirAll(dir, 0o700))
		write(t, dir+"/file", "mine")
		if err := do(name); err == nil || !strings.Contains(err.Error(), `not empty, as it has "file"`) {
			t.Errorf("%s: %v", name, err)
		}
		if text, err := os.ReadFile(dir + "/file"); err != nil || string(text) != "mine" {
			t.Errorf("%s: the file has %q, %v", name, text, err)
		}
	}
	h.await("nothing under way", func() bool { return h.noFills("a") })
}

// served is a driver whose volumes are directories on a server: the option "device" says which, and
// nothing is removed there.
type served struct {
	memory
	mu      *sync.Mutex
	devices map[string]string
}

func (d served) Create(ctx context.Context, name string, opts map[string]string) error {
	if opts["device"] == "" {
		opts = map[string]string{"device": d.devices[""] + "/" + name}
		if err := os.MkdirAll(opts["device"], 0o700); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.devices[name] = opts["device"]
	return d.memory.Create(ctx, name, opts)
}

func (d served) Inspect(_ context.Context, name string) (volume.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.memory.mu.Lock()
	defer d.memory.mu.Unlock()
	if !d.names[name] {
		return volume.Info{}, errdefs.ErrNotFound
	}
	return volume.Info{Name: name, External: true, Options: map[string]string{"device": d.devices[name]}}, nil
}

func (d served) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		for info, err := range d.memory.Volumes(ctx) {
			info.External = true
			if !yield(info, err) {
				return
			}
		}
	}
}

func (d served) Mount(_ context.Context, name, _ string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.devices[name], nil
}

// A proof of the backup of what is on a server is not made there: what is restored would be in the
// midst of the data.
func TestProofOfWhatIsOnAServer(t *testing.T) {
	notShort(t)
	share := t.TempDir()
	d := served{newMemory(), &sync.Mutex{}, map[string]string{"": share}}
	h := startHost(t, "[pool.far]\ndriver = \"served\"\n[repository.near]\nurl = \"DIR/repository\"\npassword_file = \"DIR/password\"\n",
		catalog.NewVolume("served", "far", func(context.Context, struct{}, catalog.Env) (volume.Driver, error) { return d, nil }))
	ctx := t.Context()
	write(t, h.dir+"/password", "secret")
	_, err := h.control.Backups().Init(ctx, control.BackupRepository{})
	h.must(err)
	h.must(os.Mkdir(share+"/prod", 0o700))
	h.must(h.plugin("far").Create(ctx, "data", map[string]string{"device": share + "/prod"}))
	writeVersion(t, share+"/prod", "A", 5)
	_, err = h.control.Backups().Create(ctx, control.BackupCreateRequest{Name: "data"}, silent)
	h.must(err)
	h.must(os.Remove(share + "/prod/003"))
	if p := h.prove("data"); !strings.Contains(p.Error, "its volumes are on a server") {
		t.Errorf("proof is %+v", p)
	}
	if v := versionOf(t, share+"/prod", 4); v != "A" {
		t.Errorf("the data is %s", v)
	}
	if got := h.names("far"); !slices.Equal(got, []string{"data"}) || !h.noFills("far") {
		t.Errorf("volumes are %q", got)
	}
	// Nor is what is there destroyed by a restore to it.
	_, err = h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data", To: "new", Options: map[string]string{"device": share + "/prod"}}, silent)
	if err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("restored to what is there: %v", err)
	}
	if v := versionOf(t, share+"/prod", 4); v != "A" {
		t.Errorf("then, the data is %s", v)
	}
}

// A volume on a server that was being made of a backup when the daemon ended: what others have put there
// since is not removed to begin anew.
func TestResumeOfWhatIsOnAServer(t *testing.T) {
	notShort(t)
	share := t.TempDir()
	d := served{newMemory(), &sync.Mutex{}, map[string]string{"": share}}
	far := catalog.NewVolume("served", "far", func(context.Context, struct{}, catalog.Env) (volume.Driver, error) { return d, nil })
	h := startHost(t, "[pool.far]\ndriver = \"served\"\n[repository.near]\nurl = \"DIR/repository\"\npassword_file = \"DIR/password\"\n", far)
	ctx := t.Context()
	write(t, h.dir+"/password", "secret")
	_, err := h.control.Backups().Init(ctx, control.BackupRepository{})
	h.must(err)
	h.must(h.plugin("far").Create(ctx, "data", nil))
	writeVersion(t, share+"/data", "A", 5)
	_, err = h.control.Backups().Create(ctx, control.BackupCreateRequest{Name: "data"}, silent)
	h.must(err)
	h.must(h.plugin("far").Create(ctx, "new", nil))
	h.must(h.stop())
	h.control.Close()
	h.must(os.MkdirAll(h.dir+"/state/fills/far", 0o700))
	file := h.dir + "/state/fills/far/new"
	write(t, file, `{"version":1,"kind":"create","repository":"near","of":"near/data","began":"2026-11-20T00:00:00Z","made":true,"own":true}`)
	write(t, share+"/new/file", "theirs")
	h.run(far)
	h.await("an end", func() bool {
		text, err := os.ReadFile(file)
		return err != nil || strings.Contains(string(text), "not empty")
	})
	if text, err := os.ReadFile(share + "/new/file"); err != nil || string(text) != "theirs" {
		t.Errorf("their file has %q, %v", text, err)
	}
	if _, err := h.plugin("far").Mount(ctx, "new", "one"); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("mounted: %v", err)
	}
	// Where they have left it empty it goes on.
	h.must(os.Remove(share + "/new/file"))
	h.must(h.plugin("far").Remove(ctx, "new"))
	h.must(h.plugin("far").Create(ctx, "new", map[string]string{"backup": "near/data"}))
	if v := versionOf(t, share+"/new", 5); v != "A" {
		t.Errorf("the volume has %s", v)
	}
}
