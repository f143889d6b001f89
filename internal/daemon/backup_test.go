package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/snapshot"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// copying is a driver of directories with snapshots, which are copies.
type copying struct {
	memory
	root string
	// opened is called when a snapshot has been opened.
	opened func() error
}

func (d copying) dir(name string) string { return filepath.Join(d.root, name, "data") }
func (d copying) snap(name, snapshot string) string {
	return filepath.Join(d.root, name, "snap", snapshot)
}

func (d copying) Create(ctx context.Context, name string, opts map[string]string) error {
	return errors.Join(d.memory.Create(ctx, name, opts), os.MkdirAll(d.dir(name), 0o755))
}

func (d copying) Mount(_ context.Context, name, _ string) (string, error) { return d.dir(name), nil }

func (d copying) CreateSnapshot(_ context.Context, name, snapshot string, _ map[string]string) error {
	return os.CopyFS(d.snap(name, snapshot), os.DirFS(d.dir(name)))
}

func (d copying) Snapshots(_ context.Context, name string) (all []volume.Snapshot, err error) {
	found, err := filepath.Glob(d.snap(name, "*"))
	for _, s := range found {
		fi, err := os.Stat(s)
		if err != nil {
			return nil, err
		}
		all = append(all, volume.Snapshot{Name: filepath.Base(s), CreatedAt: fi.ModTime()})
	}
	return all, err
}

func (d copying) RemoveSnapshot(_ context.Context, name, snapshot string) error {
	return os.RemoveAll(d.snap(name, snapshot))
}

func (d copying) OpenSnapshot(_ context.Context, name, snapshot, _ string) (string, error) {
	return d.snap(name, snapshot), d.opened()
}

func (copying) CloseSnapshot(context.Context, string, string, string) error { return nil }

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// copiesPool has a pool of the driver above, and a repository.
const copiesPool = "[pool.copies]\ndriver = \"copying\"\n[repository.near]\nurl = \"DIR/repository\"\npassword_file = \"DIR/password\"\n"

func copies(t *testing.T) (*copying, catalog.Volume) {
	t.Helper()
	d := &copying{memory: newMemory(), root: t.TempDir(), opened: func() error { return nil }}
	return d, catalog.NewVolume("copying", "copies", func(context.Context, struct{}, catalog.Env) (volume.Driver, error) { return d, nil })
}

// startCopying starts a daemon with a repository and a volume "data" of the driver above.
func startCopying(t *testing.T) (h *host, d *copying) {
	d, driver := copies(t)
	h = startHost(t, copiesPool, driver)
	write(t, h.dir+"/password", "secret")
	if _, err := h.control.Backups().Init(t.Context(), control.BackupRepository{}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.control.Volumes().Create(t.Context(), control.VolumeCreateRequest{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	return h, d
}

func (d *copying) noSnapshots(t *testing.T) {
	t.Helper()
	if left, err := d.Snapshots(t.Context(), "data"); err != nil || len(left) > 0 {
		t.Errorf("snapshots that are left: %v, %v", left, err)
	}
}

// notShort leaves a test to the runs that have time: each repository that is opened makes a
// key of its password, which the race detector slows down to seconds.
func notShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("short: it opens repositories")
	}
}

// A volume whose driver has snapshots is backed up as it was when the backup began.
func TestBackupFromSnapshot(t *testing.T) {
	notShort(t)
	h, d := startCopying(t)
	file := d.dir("data") + "/file"
	write(t, file, "before")
	old := d.snap("data", snapshot.OwnPrefix+"old") // of a backup that was killed
	if err := errors.Join(os.MkdirAll(old, 0o700), os.Chtimes(old, time.Unix(1e9, 0), time.Unix(1e9, 0))); err != nil {
		t.Fatal(err)
	}
	if _, err := h.control.Volumes().Mount(t.Context(), control.VolumeMountRequest{Name: "data", ID: "container"}); err != nil {
		t.Fatal(err)
	}
	d.opened = func() error { return os.WriteFile(file, []byte("after"), 0o600) } // the container writes on
	b, err := h.control.Backups().Create(t.Context(), control.BackupCreateRequest{Name: "data"}, func(control.Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	if !b.PointInTime || len(b.Warnings) > 0 || b.Pool != "copies" {
		t.Errorf("backup is %+v", b)
	}
	d.noSnapshots(t)
	r, err := h.control.Backups().Restore(t.Context(), control.BackupRestoreRequest{ID: b.ID, To: "new"}, func(control.Progress) {})
	if err != nil || r.Pool != "copies" || r.Volume != "new" {
		t.Fatalf("restored: %+v, %v", r, err)
	}
	if text, err := os.ReadFile(d.dir("new") + "/file"); err != nil || string(text) != "before" {
		t.Errorf("the new volume has %q, %v", text, err)
	}
	v, err := h.control.Volumes().Inspect(t.Context(), control.VolumeRequest{Name: "new"})
	if err != nil || v.Mounted {
		t.Errorf("the new volume is %+v, %v", v, err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "after" {
		t.Errorf("the volume itself has %q, %v", text, err)
	}
}

// A backup that fails, or that nobody wants any more, leaves no snapshot and no backup.
func TestBackupThatFails(t *testing.T) {
	notShort(t)
	h, d := startCopying(t)
	write(t, d.dir("data")+"/file", strings.Repeat("x", 1<<20))
	d.opened = func() error { return errdefs.Errorf(errdefs.ErrUnavailable, "storage is gone") }
	_, err := h.control.Backups().Create(t.Context(), control.BackupCreateRequest{Name: "data"}, func(control.Progress) {})
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "storage is gone") {
		t.Errorf("error is %v", err)
	}
	d.noSnapshots(t)
	ctx, cancel := context.WithCancel(t.Context())
	d.opened = func() error { cancel(); return nil }
	if _, err := h.control.Backups().Create(ctx, control.BackupCreateRequest{Name: "data"}, func(control.Progress) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	h.await("the snapshot gone", func() bool { left, err := d.Snapshots(t.Context(), "data"); return err == nil && len(left) == 0 })
	if all, err := h.control.Backups().List(t.Context(), control.BackupListRequest{}); err != nil || len(all) > 0 {
		t.Errorf("there is %+v, %v", all, err)
	}
}

// A daemon that stops does not wait for a backup to end.
func TestStopDuringBackup(t *testing.T) {
	notShort(t)
	h, d := startCopying(t)
	write(t, d.dir("data")+"/file", strings.Repeat("x", 1<<20))
	begun := make(chan struct{})
	d.opened = func() error { close(begun); return nil }
	failed := make(chan error, 1)
	go func() {
		_, err := h.control.Backups().Create(t.Context(), control.BackupCreateRequest{Name: "data"}, func(control.Progress) {})
		failed <- err
	}()
	<-begun
	if err := h.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	select {
	case <-failed: // how far it came is a matter of luck
	case <-time.After(patience):
		t.Error("the backup goes on")
	}
	d.noSnapshots(t)
}
