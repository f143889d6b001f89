package backup

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestChoose(t *testing.T) {
	at := func(volume, when string) Backup {
		started, err := time.Parse("2006-01-02 15:04", when)
		if err != nil {
			t.Fatal(err)
		}
		return Backup{ID: volume + " " + when, Host: "h", Pool: "p", Volume: volume, Started: started}
	}
	all := []Backup{
		at("a", "2024-12-31 23:00"), at("a", "2025-01-01 01:00"), at("a", "2026-02-27 01:00"),
		at("a", "2026-03-01 23:59"), at("a", "2026-03-02 00:00"), at("a", "2026-03-02 00:30"), at("a", "2026-03-02 01:00"),
		at("b", "2020-01-01 00:00"),
	}
	later := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		keep Keep
		want string
	}{
		{Keep{Last: 2}, "b 2020-01-01 00:00 [last 1]; a 2026-03-02 00:30 [last 2]; a 2026-03-02 01:00 [last 1]; "},
		{Keep{Hourly: 2}, "b 2020-01-01 00:00 [hourly 1]; a 2026-03-02 00:30 [hourly 2]; a 2026-03-02 01:00 [hourly 1]; "},
		{Keep{Daily: 3}, "b 2020-01-01 00:00 [daily 1]; a 2026-02-27 01:00 [daily 3]; a 2026-03-01 23:59 [daily 2]; a 2026-03-02 01:00 [daily 1]; "},
		{Keep{Weekly: 2}, "b 2020-01-01 00:00 [weekly 1]; a 2026-03-01 23:59 [weekly 2]; a 2026-03-02 01:00 [weekly 1]; "},
		{Keep{Monthly: 9}, "b 2020-01-01 00:00 [monthly 1]; a 2024-12-31 23:00 [monthly 4]; a 2025-01-01 01:00 [monthly 3]; a 2026-02-27 01:00 [monthly 2]; a 2026-03-02 01:00 [monthly 1]; "},
		{Keep{Last: 1, Yearly: 2}, "b 2020-01-01 00:00 [last 1 yearly 1]; a 2025-01-01 01:00 [yearly 2]; a 2026-03-02 01:00 [last 1 yearly 1]; "},
	} {
		choices, err := Choose(all, tt.keep, later)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, c := range choices {
			if len(c.Reasons) > 0 {
				got = fmt.Sprintf("%s %v; ", c.ID, c.Reasons) + got
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || len(choices) != len(all) {
			t.Errorf("%+v (-want +got):\n%s", tt.keep, diff)
		}
	}
	for _, k := range []Keep{{}, {Last: -1, Daily: 2}} {
		if _, err := Choose(all, k, later); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%+v: %v", k, err)
		}
	}
	if c, err := Choose([]Backup{at("a", "2026-03-01 23:30"), at("a", "2026-03-02 00:30")}, Keep{Daily: 2}, later.In(time.FixedZone("", 3600))); err != nil ||
		len(c[1].Reasons) != 0 {
		t.Errorf("in a zone where both are of one day: %+v, %v", c, err)
	}
	// From while the clock was ahead.
	c, err := Choose([]Backup{at("a", "2035-01-01 00:00"), at("a", "2026-03-31 23:00"), at("a", "2026-04-01 00:00")}, Keep{Last: 1}, later.Add(-30*time.Second))
	if err != nil || len(c[0].Reasons) != 1 || fmt.Sprint(c[1].Reasons) != "[last 1]" || len(c[2].Reasons) != 0 {
		t.Errorf("with one from the future: %+v, %v", c, err)
	}
}
