package daemon

import (
	"slices"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/control"
)

// A volume may ask for a schedule when it is made, and later; what one of its name asked for
// before does not count, but what comes back from the trash has what it had.
func TestVolumesAskForSchedules(t *testing.T) {
	const config = "[pool.a]\n[pool.b]\n[schedule.hourly]\ncron = \"@hourly\"\nvolumes = [\"by-name\"]\nbackup = \"near\"\n[schedule.nightly]\ncron = \"@daily\"\nbackup = \"near\"\n" +
		"[repository.near]\nurl = \"DIR/none\"\npassword_file = \"DIR/none\"\n"
	h := newHost(t, config)
	start := func() {
		h.start()
		h.await("ready", h.served)
	}
	start()
	ctx := t.Context()
	wants := func(what, hourly, nightly string) {
		t.Helper()
		for name, want := range map[string]string{"hourly": hourly, "nightly": nightly} {
			var got []string
			for _, r := range statusOf(h)[name].Runs {
				got = append(got, r.Pool+"/"+r.Volume)
			}
			slices.Sort(got)
			if strings.Join(got, " ") != want {
				t.Errorf("%s: %s is for %q, want %q", what, name, got, want)
			}
		}
	}
	create := func(pool, name string, opts map[string]string) error { return h.plugin(pool).Create(ctx, name, opts) }
	asks := func(names string) map[string]string { return map[string]string{"schedule": names} }
	h.must(create("a", "by-name", nil))
	h.must(create("a", "one", asks("nightly, hourly")))
	h.must(create("b", "one", nil))
	h.must(create("b", "two", map[string]string{"schedule": "nightly", "mode": "0700"}))
	wants("at first", "a/by-name a/one", "a/one b/two")
	if err := create("a", "bad", asks("nightlong")); err == nil || !strings.Contains(err.Error(), `option "schedule": no schedule "nightlong", there are: hourly, nightly`) {
		t.Errorf("error is %v", err)
	}
	if _, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Pool: "a", Name: "bad"}); err == nil {
		t.Error("made in spite of a wrong schedule")
	}
	h.must(create("a", "one", nil)) // an engine asks again
	h.must(create("b", "one", asks("hourly")))
	h.must(create("b", "two", asks("")))
	wants("after a change", "a/by-name a/one b/one", "a/one")
	v, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Pool: "a", Name: "one"})
	h.must(err)
	if strings.Join(v.Schedules, " ") != "hourly nightly" {
		t.Errorf("volume is %+v", v)
	}
	h.must(h.stop())
	h.control.Close()

	start()
	wants("after a restart", "a/by-name a/one b/one", "a/one")
	h.must(h.plugin("a").Remove(ctx, "one"))
	wants("without it", "a/by-name b/one", "")
	trash, err := h.control.Storage().Trash(ctx, control.TrashListRequest{Pool: "a"})
	h.must(err)
	_, err = h.control.Storage().Restore(ctx, control.TrashRestoreRequest{Pool: "a", ID: trash.Trashed[0].ID, Name: "one"})
	h.must(err)
	wants("brought back", "a/by-name a/one b/one", "a/one")
	h.must(h.plugin("a").Remove(ctx, "one"))
	h.must(create("a", "one", nil))
	wants("another of its name", "a/by-name b/one", "")
	h.must(h.stop())
	h.control.Close()
}
