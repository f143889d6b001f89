package config_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/schedule"
)

func TestSchedules(t *testing.T) {
	text := `
[schedule.nightly]
cron = "30 3 * * *"
jitter = "20m"
pools = ["remora", "fast"]
volumes = "db* web"
keep_daily = 7
keep_monthly = 12
[schedule."a-b"]
cron = "@hourly"
pools = ["*"]
backup = ["near", "far"]
[schedule.both]
cron = "@daily"
backup = "near"
snapshot = true
keep_yearly = 2
[repository.near]
url = "/srv/near"
password_file = "/p"
[repository.far]
url = "/srv/far"
password_file = "/p"
[pool.remora]
[pool.fast]
`
	c, err := config.Load(config.Source{
		File: write(t, text), Drivers: drivers(), Flags: map[string]string{"schedule.a-b.keep_hourly": "3"},
		Env: []string{
			"REMORA_SCHEDULES=more,nightly", "REMORA_SCHEDULE_MORE_CRON=@weekly", "REMORA_SCHEDULE_MORE_VOLUMES=a, b",
			"REMORA_SCHEDULE_NIGHTLY_KEEP_DAILY=8", "REMORA_SCHEDULE_A_B_KEEP_LAST=2",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	cron := func(text string) schedule.Cron {
		c, err := schedule.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	want := []schedule.Schedule{
		{Name: "a-b", Cron: cron("@hourly"), Pools: []string{"*"}, Keep: schedule.Keep{Last: 2, Hourly: 3}, Tasks: []schedule.Task{{Repository: "near"}, {Repository: "far"}}},
		{Name: "both", Cron: cron("@daily"), Keep: schedule.Keep{Yearly: 2}, Tasks: []schedule.Task{{}, {Repository: "near"}}},
		{Name: "more", Cron: cron("@weekly"), Volumes: []string{"a", "b"}},
		{
			Name: "nightly", Cron: cron("30 3 * * *"), Jitter: 20 * time.Minute, Pools: []string{"remora", "fast"}, Volumes: []string{"db*", "web"},
			Keep: schedule.Keep{Daily: 8, Monthly: 12},
		},
	}
	if diff := cmp.Diff(want, c.Schedules, cmp.Comparer(func(a, b schedule.Cron) bool { return a == b })); diff != "" {
		t.Errorf("schedules (-want +got):\n%s", diff)
	}
	i := slices.IndexFunc(c.Values(), func(v config.Value) bool { return v.Key == "schedule.nightly.pools" })
	if i < 0 || c.Values()[i].Value != "remora, fast" || !strings.HasSuffix(c.Values()[i].Source, "remora.toml:5") {
		t.Errorf("values are %+v", c.Values())
	}
	if len(c.Warnings) != 0 {
		t.Errorf("warnings are %q", c.Warnings)
	}
}

// Every key of a schedule must be settable by the environment alone.
func TestEveryScheduleKeyHasAVariable(t *testing.T) {
	samples := map[string]string{"cron": "@weekly", "duration": "77s", "list": "near", "number": "7", "true|false": "true"}
	for _, k := range config.ScheduleKeys() {
		env := "REMORA_SCHEDULE_X_" + strings.ToUpper(k.Name)
		c := mustLoad(t, near+"[pool.near]\n", "REMORA_SCHEDULES=x", "REMORA_SCHEDULE_X_CRON=@weekly", env+"="+samples[k.Type])
		v := config.Value{Key: "schedule.x." + k.Name, Value: samples[k.Type], Source: env}
		if !slices.Contains(c.Values(), v) || k.Help == "" {
			t.Errorf("%s gives %v", env, c.Values())
		}
	}
}
