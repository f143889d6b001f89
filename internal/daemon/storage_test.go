package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// idle is a volume of which only the limit is known.
const idle = "idle"

// knowing is a memory that knows how large its volumes are and has snapshots, when the gate is
// open.
type knowing struct {
	memory
	gate  chan struct{}
	asked chan struct{}
}

func (k knowing) wait() {
	select {
	case k.asked <- struct{}{}:
	default:
	}
	<-k.gate
}

func (k knowing) Usage(_ context.Context, name string) (volume.Usage, error) {
	k.wait()
	if name == idle {
		return volume.Usage{Used: volume.Unknown, Limit: 10}, nil
	}
	return volume.Usage{Used: 5, Limit: 10}, nil
}

func (k knowing) Snapshots(context.Context, string) ([]volume.Snapshot, error) {
	k.wait()
	return []volume.Snapshot{{Name: "s"}}, nil
}

func (knowing) CreateSnapshot(context.Context, string, string, map[string]string) error { return nil }

func (knowing) RemoveSnapshot(context.Context, string, string) error { return nil }

func knowingDriver() (catalog.Volume, knowing) {
	k := knowing{newMemory(), make(chan struct{}), make(chan struct{}, 1000)}
	return catalog.NewVolume("knowing", "knows sizes", func(context.Context, struct{}, catalog.Env) (volume.Driver, error) { return k, nil }), k
}

// surveying is a knowing that tells of its volumes at once, but for those whose names begin with
// "shy".
type surveying struct {
	knowing
	gone bool // it tells of nothing but an error
}

func (s surveying) Survey(context.Context) iter.Seq2[volume.Figures, error] {
	return func(yield func(volume.Figures, error) bool) {
		if s.gone {
			yield(volume.Figures{}, errdefs.ErrUnavailable)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for name := range s.names {
			three, usage := 3, volume.Usage{Used: 8}
			if name == idle {
				usage = volume.Usage{Used: volume.Unknown, Limit: 10}
			}
			if !strings.HasPrefix(name, "shy") && !yield(volume.Figures{Name: name, Usage: &usage, Snapshots: &three}, nil) {
				return
			}
		}
	}
}

// A driver that tells of all volumes at once is asked for the others alone.
func TestListSurveys(t *testing.T) {
	_, k := knowingDriver()
	close(k.gate)
	open := func(gone bool) func(context.Context, struct{}, catalog.Env) (volume.Driver, error) {
		return func(context.Context, struct{}, catalog.Env) (volume.Driver, error) { return surveying{k, gone}, nil }
	}
	h := startHost(t, "[pool.a]\ndriver = \"surveying\"\n[pool.b]\ndriver = \"failing\"\n",
		catalog.NewVolume("surveying", "tells all", open(false)), catalog.NewVolume("failing", "tells nothing", open(true)))
	for i := range 100 {
		h.must(h.plugin("a").Create(t.Context(), fmt.Sprintf("v%02d", i), nil))
	}
	h.must(h.plugin("a").Create(t.Context(), "shy", nil))
	h.must(h.plugin("a").Create(t.Context(), idle, nil))
	list := func(pool string) []control.Volume {
		for len(k.asked) > 0 {
			<-k.asked
		}
		all, err := h.control.Volumes().List(t.Context(), control.VolumeListRequest{Pool: pool, Usage: true})
		h.must(err)
		if len(all) != 102 {
			t.Fatalf("listed are %d", len(all))
		}
		i := slices.IndexFunc(all, func(v control.Volume) bool { return v.Name == idle })
		if v := all[i]; v.Used != nil || v.Limit != 10 || v.Snapshots == nil || v.Unknown != nil {
			t.Errorf("of which only the limit is known: %+v", v)
		}
		return slices.Delete(all, i, i+1)
	}
	for _, v := range list("a") {
		used, snapshots := int64(8), 3
		if v.Name == "shy" {
			used, snapshots = 5, 1
		}
		if v.Used == nil || *v.Used != used || v.Snapshots == nil || *v.Snapshots != snapshots || v.Unknown != nil {
			t.Errorf("%+v", v)
		}
	}
	if n := len(k.asked); n != 2 {
		t.Errorf("%d single questions, want 2", n)
	}
	if _, err := h.control.Reconcile(t.Context(), func(control.Progress) {}); err != nil {
		t.Fatal(err)
	}
	for _, v := range list("b") {
		if v.Used == nil || *v.Used != 5 || *v.Snapshots != 1 {
			t.Errorf("%+v", v)
		}
	}
	if n := len(k.asked); n != 204 {
		t.Errorf("%d single questions, want 204", n)
	}
}

// Who lists volumes does not wait for a driver that does not answer, however often, and no
// more calls to it are under way than may be.
func TestListDoesNotWait(t *testing.T) {
	d, k := knowingDriver()
	h := startHost(t, "[pool.a]\ndriver = \"knowing\"\n[pool.b]\n", d)
	ctx := t.Context()
	for i := range 3 * pool.Askers {
		h.must(h.plugin("a").Create(ctx, fmt.Sprintf("v%02d", i), nil))
	}
	h.must(h.plugin("b").Create(ctx, "plain", nil))
	start := time.Now()
	for range 2 {
		all, err := h.control.Volumes().List(ctx, control.VolumeListRequest{Usage: true})
		h.must(err)
		if len(all) != 3*pool.Askers+1 {
			t.Fatalf("listed are %d", len(all))
		}
		for _, v := range all[:3*pool.Askers] {
			if v.Used != nil || v.Snapshots != nil || !slices.Equal(v.Unknown, []string{"Used", "Limit", "Snapshots"}) {
				t.Errorf("%+v", v)
			}
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("two lists took %s", took)
	}
	if n := len(k.asked); n != pool.Askers {
		t.Errorf("%d calls are under way, want %d", n, pool.Askers)
	}
	list, err := h.control.Storage().ListSnapshots(ctx, control.SnapshotListRequest{Pool: "a"})
	h.must(err)
	if len(list.Snapshots) != 0 || len(list.Errors) != 3*pool.Askers || list.Errors[0] != `volume "v00": the driver does not answer in time` {
		t.Errorf("snapshots listed as %+v", list)
	}

	close(k.gate)
	h.await("answers", func() bool {
		all, err := h.control.Volumes().List(ctx, control.VolumeListRequest{Pool: "a", Usage: true})
		h.must(err)
		for _, v := range all {
			if v.Used == nil || *v.Used != 5 || v.Limit != 10 || v.Snapshots == nil || *v.Snapshots != 1 || v.Unknown != nil {
				return false
			}
		}
		return true
	})
	list, err = h.control.Storage().ListSnapshots(ctx, control.SnapshotListRequest{})
	h.must(err)
	if len(list.Snapshots) != 3*pool.Askers || len(list.Errors) != 0 {
		t.Errorf("snapshots listed as %+v", list)
	}
	all, err := h.control.Volumes().List(ctx, control.VolumeListRequest{})
	h.must(err)
	if all[0].Used != nil {
		t.Error("who does not want to know is told")
	}
}

// A driver that does not know is helped by counting, for who asks, and later.
func TestCountedUsage(t *testing.T) {
	h := startHost(t, "[pool.a]\n")
	ctx := t.Context()
	h.must(h.plugin("a").Create(ctx, "data", nil))
	v, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Name: "data"})
	h.must(err)
	h.await("counted", func() bool {
		v, err = h.control.Volumes().Inspect(ctx, control.VolumeRequest{Name: "data"})
		return err == nil && v.Used != nil && !v.UsedAt.IsZero()
	})
	h.must(os.WriteFile(filepath.Join(v.Mountpoint, "f"), make([]byte, 1<<20), 0o600))
	var files int64
	u, err := h.control.Storage().Usage(ctx, control.VolumeRequest{Name: "data"}, func(p control.Progress) { files = p.Done })
	h.must(err)
	if u.Used < *v.Used+1<<20 || files != 1 {
		t.Errorf("%+v in %d files, was %d", u, files, *v.Used)
	}
	again, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Name: "data"})
	h.must(err)
	if again.Used == nil || *again.Used != u.Used || len(again.Mounts) > 0 {
		t.Errorf("afterwards it is %+v", again)
	}
}

func trashOf(h *host, pool string) []control.Trashed {
	h.t.Helper()
	l, err := h.control.Storage().Trash(h.t.Context(), control.TrashListRequest{Pool: pool})
	h.must(err)
	return l.Trashed
}

// What an engine removes comes back with its data, although the daemon is killed in between,
// and is there at once.
func TestRemovedByEngineComesBack(t *testing.T) {
	h := newHost(t, "[pool.a]\n[pool.b]\ntrash_keep = \"0s\"\n")
	c := startChild(h)
	ctx := t.Context()
	for _, pool := range []string{"a", "b"} {
		h.must(h.plugin(pool).Create(ctx, "data", nil))
		p, err := h.plugin(pool).Mount(ctx, "data", "one")
		h.must(err)
		h.must(os.WriteFile(filepath.Join(p, "f"), []byte("precious"), 0o600))
		h.must(h.plugin(pool).Unmount(ctx, "data", "one"))
		h.must(h.plugin(pool).Remove(ctx, "data"))
	}
	c.signal(syscall.SIGKILL)
	_ = c.cmd.Wait() // killed
	h.control.Close()
	c = startChild(h)
	all := trashOf(h, "")
	if len(all) != 1 || all[0].Pool != "a" || all[0].Name != "data" || all[0].Expires.Sub(all[0].RemovedAt) != 72*time.Hour {
		t.Fatalf("in the trash: %+v", all)
	}
	v, err := h.control.Storage().Restore(ctx, control.TrashRestoreRequest{Pool: "a", ID: all[0].ID, Name: "data"})
	h.must(err)
	got, err := h.plugin("a").Get(ctx, "data")
	h.must(err)
	text, err := os.ReadFile(filepath.Join(got.Mountpoint, "f"))
	if err != nil || string(text) != "precious" || v.Mountpoint != got.Mountpoint {
		t.Errorf("it reads %q, %v", text, err)
	}
	c.end()
}

// A daemon that starts destroys what expired while there was none, and nothing else.
func TestExpiredTrash(t *testing.T) {
	h := newHost(t, "[pool.a]\n")
	h.start()
	h.await("ready", h.served)
	ctx := t.Context()
	for _, name := range []string{"old", "young"} {
		h.must(h.plugin("a").Create(ctx, name, nil))
		h.must(h.plugin("a").Remove(ctx, name))
	}
	ids := map[string]string{}
	for _, x := range trashOf(h, "a") {
		ids[x.Name] = x.ID
	}
	h.must(h.stop())
	trash := h.dir + "/state/volumes/a/.remora-trash/"
	aged := fmt.Sprintf("%016x-00000000", time.Now().Add(-73*time.Hour).UnixNano())
	h.must(os.Rename(trash+ids["old"], trash+aged))
	// In the first ten minutes nothing expires, or in the time that it is kept if that is shorter. The younger one was removed just now.
	h.configure("[trash]\nkeep = \"1s\"\n[pool.a]\n")
	h.start()
	h.await("ready", h.served)
	h.await("purged", func() bool { _, err := os.Stat(trash + aged); return errors.Is(err, fs.ErrNotExist) })
	if all := trashOf(h, "a"); len(all) != 1 || all[0].Name != "young" {
		t.Errorf("in the trash: %+v", all)
	}
	// A configuration without a trash lets nothing in, and leaves alone what is there.
	h.configure("[trash]\nkeep = \"0s\"\n[pool.a]\n")
	r, err := h.control.Reload(ctx)
	h.must(err)
	if !slices.Equal(r.Changed, []string{"a"}) {
		t.Errorf("reloaded: %+v", r)
	}
	h.must(h.plugin("a").Create(ctx, "more", nil))
	h.must(h.plugin("a").Remove(ctx, "more"))
	if all := trashOf(h, "a"); len(all) != 1 || all[0].Name != "young" || !all[0].Expires.IsZero() {
		t.Errorf("in the trash: %+v", all)
	}
	h.must(h.control.Storage().Purge(ctx, control.TrashRequest{ID: ids["young"]}))
	h.must(h.stop())
}

// Protection holds against everybody, and where it cannot be looked up.
func TestProtectedVolume(t *testing.T) {
	h := startHost(t, "[pool.a]\n")
	ctx := t.Context()
	long := strings.Repeat("x", volume.MaxName)
	for _, name := range []string{"dear", long} {
		h.must(h.plugin("a").Create(ctx, name, nil))
		h.must(h.control.Storage().Protect(ctx, control.VolumeProtectRequest{Name: name, Protected: true}))
		if err := h.plugin("a").Remove(ctx, name); err == nil || !strings.Contains(err.Error(), "protected; to remove it: remora volume unprotect --pool a "+name) {
			t.Errorf("removed by an engine: %v", err)
		}
		for _, purge := range []bool{true, false} {
			err := h.control.Volumes().Remove(ctx, control.VolumeRemoveRequest{Name: name, Purge: purge})
			if !errors.Is(err, errdefs.ErrDenied) {
				t.Errorf("removed by a person, purge %t: %v", purge, err)
			}
		}
	}
	all, err := h.control.Volumes().List(ctx, control.VolumeListRequest{})
	h.must(err)
	if len(all) != 2 || !all[0].Protected || !all[1].Protected {
		t.Errorf("listed as %+v", all)
	}
	// Somebody put a file where the folder was: nobody can tell now.
	folder := h.dir + "/state/protected/a"
	h.must(os.Rename(folder, folder+".away"))
	h.must(os.WriteFile(folder, nil, 0o600))
	err = h.control.Volumes().Remove(ctx, control.VolumeRemoveRequest{Name: "dear"})
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "cannot tell whether it is protected") {
		t.Errorf("where it cannot be told: %v", err)
	}
	h.must(os.Remove(folder))
	h.must(os.Rename(folder+".away", folder))
	h.must(h.control.Storage().Protect(ctx, control.VolumeProtectRequest{Name: "dear"}))
	h.must(h.plugin("a").Remove(ctx, "dear"))
	err = h.control.Storage().Protect(ctx, control.VolumeProtectRequest{Name: "../dear", Protected: true})
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a name that is none: %v", err)
	}
}

// cramped is a memory whose trash has no room.
type cramped struct{ memory }

func (cramped) Trash(context.Context, string) error {
	return errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("mkdir: %w", syscall.ENOSPC))
}

func (cramped) Trashed(context.Context) ([]volume.Trashed, error) { return nil, nil }
func (cramped) Restore(_ context.Context, id, name string) error  { return errdefs.ErrNotFound }
func (cramped) Purge(_ context.Context, id string) error          { return errdefs.ErrNotFound }

// Where not even the trash has room a volume stays, and a person is told what to do.
func TestTrashWithoutRoom(t *testing.T) {
	d := catalog.NewVolume("cramped", "has no room", func(context.Context, struct{}, catalog.Env) (volume.Driver, error) {
		return cramped{newMemory()}, nil
	})
	h := startHost(t, "[pool.a]\ndriver = \"cramped\"\n", d)
	ctx := t.Context()
	h.must(h.plugin("a").Create(ctx, "data", nil))
	err := h.control.Volumes().Remove(ctx, control.VolumeRemoveRequest{Name: "data"})
	if err == nil || err.Error() != `volume "data": into the trash: mkdir: no space left on device` || len(errdefs.Hints(err)) != 1 {
		t.Errorf("it says %v, and hints at %q", err, errdefs.Hints(err))
	}
	if _, err := h.plugin("a").Get(ctx, "data"); err != nil {
		t.Errorf("it is gone: %v", err)
	}
	h.must(h.control.Volumes().Remove(ctx, control.VolumeRemoveRequest{Name: "data", Purge: true}))
}

// A volume that the pool has not is looked for in the others by what is known of them: one whose storage does
// not answer keeps nobody waiting.
func TestElsewhereDoesNotAnswer(t *testing.T) {
	var hangs atomic.Bool
	gate := make(chan struct{})
	far := catalog.NewVolume("far", "does not answer any more", func(context.Context, struct{}, catalog.Env) (volume.Driver, error) {
		d := newMemory()
		d.list = func() {
			if hangs.Load() {
				<-gate
			}
		}
		return d, nil
	})
	h := startHost(t, "[pool.remora]\ndriver = \"mem\"\n[pool.far]\ndriver = \"far\"\n", far)
	defer close(gate)
	ctx := t.Context()
	h.must(h.plugin("far").Create(ctx, "there", nil))
	hangs.Store(true)
	for name, hint := range map[string]string{"there": `pool "far" has a volume of this name: --pool far`, "nowhere": ""} {
		start := time.Now()
		_, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Name: name})
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: answered after %s", name, took)
		}
		if !errors.Is(err, errdefs.ErrNotFound) || strings.Join(errdefs.Hints(err), "; ") != hint {
			t.Errorf("%s: %v, %q", name, err, errdefs.Hints(err))
		}
	}
}
