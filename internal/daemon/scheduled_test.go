package daemon

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/internal/service/backups"
)

// age makes a volume of the driver dir as old as three days.
func age(h *host, name string) {
	h.t.Helper()
	facts := filepath.Join(h.dir, "state/volumes/remora", name, "volume.json")
	text, err := os.ReadFile(facts)
	h.must(err)
	var all map[string]any
	h.must(json.Unmarshal(text, &all))
	all["created"] = time.Now().Add(-72 * time.Hour)
	text, err = json.Marshal(all)
	h.must(err)
	h.must(os.WriteFile(facts, text, 0o600))
}

const nightlyBackup = `[pool.remora]
[repository.near]
url = "DIR/repository"
password_file = "DIR/password"
[schedule.nightly]
cron = "@daily"
volumes = ["data*"]
backup = "near"
keep_last = 1
`

// A backup that was missed is made once, of volumes whose driver has no snapshots too; those that
// the schedule does not keep go, and nobody else's.
func TestScheduledBackup(t *testing.T) {
	notShort(t)
	h := newHost(t, nightlyBackup)
	start := func() {
		h.start()
		h.await("ready", h.served)
	}
	end := func() {
		h.must(h.stop())
		h.control.Close()
	}
	start()
	ctx := t.Context()
	write(t, h.dir+"/password", "secret")
	_, err := h.control.Backups().Init(ctx, control.BackupRepository{})
	h.must(err)
	for _, name := range []string{"data", "data2", "other"} {
		h.must(h.plugin("remora").Create(ctx, name, nil))
		age(h, name)
	}
	labels := map[string]string{schedule.Label: "nightly"}
	for _, l := range []map[string]string{nil, {schedule.Label: "weekly"}, labels} {
		_, err = h.control.Backups().Create(ctx, control.BackupCreateRequest{Name: "data", Labels: l}, func(control.Progress) {})
		h.must(err)
	}
	list := func(name string) (all []string) {
		found, err := h.control.Backups().List(ctx, control.BackupListRequest{Name: name})
		h.must(err)
		for _, b := range found {
			all = append(all, b.Labels[schedule.Label])
		}
		return all
	}
	end()

	for range 2 {
		start()
		var last time.Time
		h.await("seen", func() bool {
			last = time.Time{}
			for _, r := range statusOf(h)["nightly"].Runs {
				if r.Last.IsZero() || r.Running {
					return false
				}
				last = r.Last
			}
			return !last.IsZero()
		})
		for name, want := range map[string]string{"data": ",weekly,nightly", "data2": "nightly", "other": ""} {
			if got := strings.Join(list(name), ","); got != want {
				t.Errorf("backups of %q are %q, want %q", name, got, want)
			}
		}
		s := statusOf(h)["nightly"]
		if s.Volumes != 2 || s.Failed != 0 || s.Error != "" || strings.Join(s.Tasks, " ") != "backup to near" {
			t.Errorf("status is %+v", s)
		}
		families, _ := h.metrics()
		got := value(t, families["remora_schedule_last_success_timestamp_seconds"], "pool=remora", "schedule=nightly", "task=backup to near", "volume=data2")
		if age := time.Since(time.Unix(int64(got), 0)); age < 0 || age > time.Minute {
			t.Errorf("the metric has %v", got)
		}
		if n := value(t, families["remora_schedule_failed"], "schedule=nightly"); n != 0 {
			t.Errorf("%v have failed", n)
		}
		end()
	}
	h.must(os.Rename(h.dir+"/repository", h.dir+"/away"))
	start()
	h.await("error", func() bool { return statusOf(h)["nightly"].Failed == 2 })
	if s := statusOf(h)["nightly"]; !strings.Contains(s.Error, `repository "near": directory `) {
		t.Errorf("status is %+v", s)
	}
	end()
}

// The retention of a schedule leaves out the backups of others, whatever is gone already.
func TestKeepOfScheduledBackups(t *testing.T) {
	notShort(t)
	h := newHost(t, nightlyBackup)
	h.start()
	h.await("ready", h.served)
	ctx := t.Context()
	write(t, h.dir+"/password", "secret")
	_, err := h.control.Backups().Init(ctx, control.BackupRepository{})
	h.must(err)
	h.must(h.plugin("remora").Create(ctx, "data", nil))
	h.must(h.stop())
	h.control.Close()
	// The same by a daemon whose parts can be called.
	d, p := h.assemble()
	cron, err := schedule.Parse("@hourly")
	h.must(err)
	s := schedule.Schedule{Name: "nightly", Cron: cron, Volumes: []string{"*"}, Keep: schedule.Keep{Last: 2}}
	near := schedule.Task{Repository: "near"}
	for _, l := range []map[string]string{nil, {schedule.Label: "weekly"}} {
		_, err := d.backups.Create(ctx, control.BackupCreateRequest{Name: "data", Labels: l}, func(control.Progress) {})
		h.must(err)
	}
	for i := range 4 {
		if i == 3 { // somebody removes one behind the back of the list
			taken, err := d.schedules.In(p).Taken(ctx, near, "nightly", "data")
			h.must(err)
			other := backups.New(d.backups.Options)
			h.must(other.Remove(ctx, control.BackupRequest{ID: taken[0].Name}))
			other.Close()
		}
		done, err := s.Run(ctx, d.schedules.In(p), near, "data", time.Now)
		if !done || err != nil {
			t.Fatalf("run: %v, %v", done, err)
		}
	}
	all, err := d.backups.List(ctx, control.BackupListRequest{})
	h.must(err)
	var of []string
	for _, b := range all {
		of = append(of, b.Labels[schedule.Label])
	}
	if got := strings.Join(of, ","); got != ",weekly,nightly,nightly" {
		t.Errorf("there are those of %q", got)
	}
	h.must(p.Close(ctx))
}
