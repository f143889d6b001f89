package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/drivers/all"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/testenv"
)

// snapshotsOf returns the snapshots of a volume that a schedule made, and how many others there are.
func snapshotsOf(h *host, pool, name string) (scheduled []control.Snapshot, others int) {
	h.t.Helper()
	l, err := h.control.Storage().ListSnapshots(h.t.Context(), control.SnapshotListRequest{Pool: pool, Volume: name})
	h.must(err)
	for _, s := range l.Snapshots {
		if s.Labels[schedule.Label] == "daily" {
			scheduled = append(scheduled, s)
		} else {
			others++
		}
	}
	return scheduled, others
}

// schedules returns the status of the schedules, by name.
func statusOf(h *host) map[string]control.Schedule {
	h.t.Helper()
	l, err := h.control.Storage().Schedules(h.t.Context())
	h.must(err)
	all := map[string]control.Schedule{}
	for _, s := range l.Schedules {
		all[s.Name] = s
	}
	return all
}

// On real storage what was missed while there was no daemon is made up for once, and what is in
// the snapshot is what was in the volume.
func TestMissedSnapshot(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Btrfs)
	h := newHost(t, "[pool.snaps]\ndriver = \"btrfs\"\nsize = \"256m\"\n[pool.plain]\n[schedule.daily]\ncron = \"@daily\"\nvolumes = [\"data\"]\n")
	start := func() {
		h.start()
		h.await("ready", h.served)
	}
	start()
	ctx := t.Context()
	for _, name := range []string{"data", "other"} {
		h.must(h.plugin("snaps").Create(ctx, name, nil))
	}
	h.must(h.plugin("plain").Create(ctx, "data", nil))
	v, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Pool: "snaps", Name: "data"})
	h.must(err)
	h.must(os.WriteFile(filepath.Join(v.Mountpoint, "f"), []byte("precious"), 0o600))
	if got, _ := snapshotsOf(h, "snaps", "data"); len(got) != 0 || statusOf(h)["daily"].Volumes != 1 {
		t.Fatalf("at first there are %+v, %+v", got, statusOf(h))
	}
	facts := filepath.Join(filepath.Dir(v.Mountpoint), "volume.json")
	var all map[string]any
	text, err := os.ReadFile(facts)
	h.must(err)
	h.must(json.Unmarshal(text, &all))
	all["created"] = time.Now().Add(-72 * time.Hour)
	text, err = json.Marshal(all)
	h.must(err)
	h.must(os.WriteFile(facts, text, 0o600))
	h.must(h.stop())
	h.control.Close()

	for range 2 {
		start()
		h.await("seen", func() bool { return !statusOf(h)["daily"].Last.IsZero() })
		got, others := snapshotsOf(h, "snaps", "data")
		if len(got) != 1 || others != 0 {
			t.Fatalf("there are %+v and %d others", got, others)
		}
		diff, err := h.control.Storage().DiffSnapshot(ctx, control.SnapshotDiffRequest{Pool: "snaps", Volume: "data", From: got[0].Name}, func(c control.Change) {
			t.Errorf("%+v", c)
		})
		h.must(err)
		if diff != (control.Diff{}) {
			t.Errorf("they differ: %+v", diff)
		}
		if none, others := snapshotsOf(h, "snaps", "other"); len(none)+others != 0 {
			t.Errorf("of another volume there are %+v", none)
		}
		s := statusOf(h)["daily"]
		y, m, d := time.Now().Date()
		if s.Cron != "@daily" || !s.Next.Equal(time.Date(y, m, d+1, 0, 0, 0, 0, time.Local)) || s.Error == "" {
			t.Errorf("status is %+v", s)
		}
		h.must(h.stop())
		h.control.Close()
	}
}

// assemble puts together what a daemon of the first pool is made of, without one that runs.
func (h *host) assemble(drivers ...catalog.Volume) (*Daemon, *pool.Pool) {
	h.t.Helper()
	o := options(h.dir, slog.New(slog.NewTextHandler(h.t.Output(), nil)), append(all.Volumes(), drivers...))
	conf, err := o.Load()
	h.must(err)
	d := &Daemon{options: o, log: o.Logger(conf), boot: conf, doors: map[string]*door{}}
	d.conf.Store(conf)
	d.life, d.end = context.WithCancelCause(context.WithoutCancel(h.t.Context()))
	h.t.Cleanup(func() { d.end(nil) })
	d.pools.Become(pool.Running)
	d.metrics = newMetrics(d)
	d.openServices(h.t.Context())
	h.t.Cleanup(d.backups.Close)
	driver, err := d.openDriver(h.t.Context(), conf.Pools[0])
	h.must(err)
	p, err := d.newPool(h.t.Context(), conf.Pools[0], driver)
	h.must(err)
	d.pools.Put(p)
	return d, p
}

// Runs on real storage keep what they are told to, and leave alone what is not theirs.
func TestScheduledRun(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Btrfs)
	h := newHost(t, "[pool.snaps]\ndriver = \"btrfs\"\nsize = \"256m\"\n")
	ctx := t.Context()
	d, p := h.assemble()
	h.must(p.Handler.Create(ctx, "data", nil))
	h.must(p.Handler.CreateSnapshot(ctx, "data", "mine", nil))
	h.must(p.Handler.CreateSnapshot(ctx, "data", "theirs", map[string]string{schedule.Label: "other"}))
	cron, err := schedule.Parse("@hourly")
	h.must(err)
	s := schedule.Schedule{Name: "daily", Cron: cron, Volumes: []string{"*"}, Keep: schedule.Keep{Last: 2}}
	var made []string
	for range 4 {
		ok, err := s.Run(ctx, d.schedules.In(p), schedule.Task{}, "data", time.Now)
		if !ok || err != nil {
			t.Fatalf("run: %v, %v", ok, err)
		}
		found, err := p.Handler.Snapshots(ctx, "data")
		h.must(err)
		made = append(made, found[len(found)-1].Name)
	}
	found, err := p.Handler.Snapshots(ctx, "data")
	h.must(err)
	var names []string
	for _, x := range found {
		names = append(names, x.Name)
	}
	if got, want := strings.Join(names, " "), strings.Join(append([]string{"mine", "theirs"}, made[2:]...), " "); got != want {
		t.Errorf("there are %q, want %q", got, want)
	}
	h.must(p.Close(ctx))
	if _, err := s.Run(ctx, d.schedules.In(p), schedule.Task{}, "data", time.Now); err == nil {
		t.Error("a pool that is closed takes snapshots")
	}
}

// A reload takes over what has changed in the schedules, and in the pools they are for.
func TestReloadSchedules(t *testing.T) {
	k, driver := knowingDriver()
	close(driver.gate)
	pools := "[pool.a]\ndriver = \"knowing\"\n[pool.b]\n"
	h := startHost(t, pools, k)
	ctx := t.Context()
	h.must(h.plugin("a").Create(ctx, "data", nil))
	if got := statusOf(h); len(got) != 0 {
		t.Errorf("schedules are %+v", got)
	}
	reload := func(toml, want string) {
		t.Helper()
		h.configure(toml)
		r, err := h.control.Reload(ctx)
		h.must(err)
		if got := strings.Join(r.Schedules, " "); got != want {
			t.Errorf("schedules that changed are %q, want %q", got, want)
		}
	}
	reload(pools+"[schedule.x]\ncron = \"@daily\"\npools = [\"*\"]\n[schedule.y]\ncron = \"@weekly\"\npools = [\"a\"]\n", "x y")
	got := statusOf(h)
	if got["x"].Volumes != 1 || got["x"].Error != `pool "b": the driver cannot make snapshots` || got["y"].Volumes != 1 || got["y"].Error != "" {
		t.Errorf("schedules are %+v", got)
	}
	reload("[pool.a]\ndriver = \"knowing\"\nlinger = \"1s\"\n[schedule.x]\ncron = \"@hourly\"\npools = [\"*\"]\n", "x y")
	got = statusOf(h)
	if len(got) != 1 || got["x"].Cron != "@hourly" || got["x"].Volumes != 1 || got["x"].Error != "" {
		t.Errorf("schedules are %+v", got)
	}
	reload("[pool.b]\n[schedule.x]\ncron = \"@hourly\"\npools = [\"a*\"]\n", "x")
	if got := statusOf(h); got["x"].Volumes != 0 || !got["x"].Next.IsZero() {
		t.Errorf("schedules are %+v", got)
	}
}
