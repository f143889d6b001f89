package daemon

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Who gives up a restore to a new volume while that is made finds none: an empty one would be taken for
// one that is whole.
func TestRestoreToNewGivenUp(t *testing.T) {
	notShort(t)
	h, d := startCopying(t)
	write(t, d.dir("data")+"/file", "text")
	_, err := h.control.Backups().Create(t.Context(), control.BackupCreateRequest{Name: "data"}, silent)
	h.must(err)
	d.gate = &gate{entered: make(chan struct{}), open: make(chan struct{})}
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data", To: "new"}, silent)
		ended <- err
	}()
	<-d.gate.entered
	giveUp()
	if err := <-ended; err == nil {
		t.Fatal("restored")
	}
	time.Sleep(100 * time.Millisecond) // the daemon hears of it
	close(d.gate.open)
	h.must(h.plugin("copies").Unmount(t.Context(), "new", "none")) // waits until it is made
	h.await("nothing under way", func() bool { return h.noFills("copies") })
	if got := h.names("copies"); !slices.Equal(got, []string{"data"}) {
		t.Errorf("volumes are %q", got)
	}
}

// full is a driver of directories whose trash has no room.
type full struct {
	*copying
	cramped
}

func (d full) Create(ctx context.Context, name string, opts map[string]string) error {
	return d.copying.Create(ctx, name, opts)
}

func (d full) Remove(ctx context.Context, name string) error {
	return errors.Join(d.copying.Remove(ctx, name), os.RemoveAll(filepath.Join(d.root, name)))
}

func (d full) Mount(ctx context.Context, name, target string) (string, error) {
	return d.copying.Mount(ctx, name, target)
}

func (d full) Unmount(ctx context.Context, name, at string) error {
	return d.copying.Unmount(ctx, name, at)
}

func (d full) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	return d.copying.Volumes(ctx)
}
func (d full) Ping(ctx context.Context) error { return nil }
func (d full) Close() error                   { return nil }

// Where the old content has no room in the trash the volume stays as it is, and can be used: to free
// room is not possible while the new content lies beside it.
func TestRestoreInPlaceWithoutRoomInTheTrash(t *testing.T) {
	notShort(t)
	d, _ := copies(t)
	h := startHost(t, strings.ReplaceAll(copiesPool, "copying", "full"), catalog.NewVolume("full", "has no room",
		func(context.Context, struct{}, catalog.Env) (volume.Driver, error) { return full{d, cramped{}}, nil }))
	ctx := t.Context()
	write(t, h.dir+"/password", "secret")
	_, err := h.control.Backups().Init(ctx, control.BackupRepository{})
	h.must(err)
	h.must(h.plugin("copies").Create(ctx, "data", nil))
	write(t, d.dir("data")+"/file", "old")
	_, err = h.control.Backups().Create(ctx, control.BackupCreateRequest{Name: "data"}, silent)
	h.must(err)
	write(t, d.dir("data")+"/file", "new")
	_, err = h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data"}, silent)
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "left as it is") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("restored: %v", err)
	}
	at, err := h.plugin("copies").Mount(ctx, "data", "one")
	h.must(err)
	if text, err := os.ReadFile(at + "/file"); err != nil || string(text) != "new" {
		t.Errorf("the volume has %q, %v", text, err)
	}
	h.must(h.plugin("copies").Unmount(ctx, "data", "one"))
	if got := h.names("copies"); !slices.Equal(got, []string{"data"}) || !h.noFills("copies") {
		t.Errorf("volumes are %q", got)
	}
}
