package schedule

import (
	"errors"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// at reads a time as people write it, with the offset where a clock shows it twice.
func at(t testing.TB, loc *time.Location, text string) time.Time {
	t.Helper()
	if when, err := time.Parse("2006-01-02 15:04 -0700", text); err == nil {
		return when.In(loc)
	}
	when, err := time.ParseInLocation("2006-01-02 15:04", text, loc)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func mustParse(t testing.TB, text string) Cron {
	t.Helper()
	c, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNext(t *testing.T) {
	const spring, autumn = "2026-03-29", "2026-10-25" // in Berlin, at 02:00 and 03:00
	for _, tt := range []struct {
		cron, zone, after string
		want              string // one after the other
	}{
		{"* * * * *", "UTC", "2026-01-01 00:00", "2026-01-01 00:01,2026-01-01 00:02"},
		{"*/20 * * * *", "UTC", "2026-01-01 00:10", "2026-01-01 00:20,2026-01-01 00:40,2026-01-01 01:00"},
		{"5/20 3 * * *", "UTC", "2026-01-01 03:06", "2026-01-01 03:25,2026-01-01 03:45,2026-01-02 03:05"},
		{"@hourly", "UTC", "2026-12-31 23:00", "2027-01-01 00:00"},
		{"@daily", "UTC", "2026-12-31 23:00", "2027-01-01 00:00,2027-01-02 00:00"},
		{"@midnight", "UTC", "2026-12-31 23:00", "2027-01-01 00:00"},
		{"@weekly", "UTC", "2026-11-28 12:00", "2026-11-29 00:00,2026-12-06 00:00"},
		{"@monthly", "UTC", "2026-11-28 12:00", "2026-12-01 00:00,2027-01-01 00:00"},
		{" 30  2\t* * 7 ", "UTC", "2026-11-28 12:00", "2026-11-29 02:30"},
		{"0 9-17/4,22 * * mon-fri", "UTC", "2026-11-27 17:00", "2026-11-27 22:00,2026-11-30 09:00,2026-11-30 13:00,2026-11-30 17:00"},
		{"0 0 * JAN,jul Sun", "UTC", "2026-01-25 00:00", "2026-07-05 00:00"},
		{"0 0 13 * 5", "UTC", "2026-11-01 00:00", "2026-11-06 00:00,2026-11-13 00:00,2026-11-20 00:00"}, // either
		{"0 0 */10 * 1", "UTC", "2026-11-01 00:00", "2026-12-21 00:00"},                                 // both
		{"0 0 31 * *", "UTC", "2026-01-31 00:00", "2026-03-31 00:00,2026-05-31 00:00"},
		{"0 0 29 2 *", "UTC", "2096-02-29 00:00", "2104-02-29 00:00"},
		{"59 23 31 12 *", "UTC", "2026-12-31 23:59", "2027-12-31 23:59"},

		// a time that is left out
		{"30 2 * * *", "Europe/Berlin", spring + " 01:59", spring + " 03:00,2026-03-30 02:30"},
		{"0,30 2-3 * * *", "Europe/Berlin", spring + " 01:59", spring + " 03:00," + spring + " 03:30,2026-03-30 02:00"},
		{"30 * * * *", "Europe/Berlin", spring + " 00:45", spring + " 01:30," + spring + " 03:30"},
		{"@daily", "America/Havana", "2026-03-07 12:00", "2026-03-08 01:00,2026-03-09 00:00"},
		{"0 12 * * *", "Pacific/Apia", "2011-12-29 12:00", "2011-12-31 00:00,2011-12-31 12:00"}, // a whole day
		// one that comes twice
		{"30 2 * * *", "Europe/Berlin", autumn + " 00:00", autumn + " 02:30 +0200,2026-10-26 02:30"},
		{"30 2 * * *", "Europe/Berlin", autumn + " 02:29 +0100", "2026-10-26 02:30"},
		{"0 2,3 * * *", "Europe/Berlin", autumn + " 00:00", autumn + " 02:00 +0200," + autumn + " 03:00 +0100,2026-10-26 02:00"},
		{"30 * * * *", "Europe/Berlin", autumn + " 01:45", autumn + " 02:30 +0200," + autumn + " 02:30 +0100," + autumn + " 03:30"},
		{"@daily", "America/Havana", "2026-10-31 12:00", "2026-11-01 00:00 -0400,2026-11-02 00:00"},
		{"45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00", "2026-04-05 01:45 +1100,2026-04-06 01:45"},
	} {
		t.Run(tt.cron+" "+tt.zone+" "+tt.after, func(t *testing.T) {
			loc := zone(t, tt.zone)
			c, now := mustParse(t, tt.cron), at(t, loc, tt.after)
			for text := range strings.SplitSeq(tt.want, ",") {
				next := c.Next(now)
				if want := at(t, loc, text); !next.Equal(want) || next.Location() != loc {
					t.Fatalf("after %s comes %s, want %s", now, next, want)
				}
				now = next
			}
		})
	}
}

func TestNextIgnoresSeconds(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 59, 999, time.UTC)
	for _, cron := range []string{"1 * * * *", "1 0 * * *"} {
		if got := mustParse(t, cron).Next(now); !got.Equal(time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC)) {
			t.Errorf("%s: %s", cron, got)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ cron, want string }{
		{"", `"": want minute, hour,`},
		{"* * * *", "want minute, hour,"},
		{"* * * * * *", "want minute, hour,"},
		{"@fortnightly", "want minute, hour,"},
		{"60 * * * *", `minute: "60" is none from 0 to 59`},
		{"-1 * * * *", `minute: "" is none from 0 to 59`},
		{"+1 * * * *", `minute: "+1" is none`},
		{"1, * * * *", `minute: "" is none`},
		{"* 24 * * *", `hour: "24" is none from 0 to 23`},
		{"* * 0 * *", `day of the month: "0" is none from 1 to 31`},
		{"* * * 13 *", `month: "13" is none from 1 to 12`},
		{"* * * anf *", `month: "anf" is none`},
		{"* * * * 8", `day of the week: "8" is none from 0 to 7`},
		{"* * * * ?", `day of the week: "?" is none`},
		{"30-10 * * * *", `minute: "30-10" ends before it begins`},
		{"*/0 * * * *", `minute: "0" is no step from 1 to 59`},
		{"*/99 * * * *", `minute: "99" is no step from 1 to 59`},
		{"*/x * * * *", `minute: "x" is no step`},
		{"*-5 * * * *", `minute: "*" is none`},
		{"0 0 30 2 *", "there is no such day in any year"},
		{"0 0 31 4,6,9,11 *", "there is no such day in any year"},
	} {
		_, err := Parse(tt.cron)
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %s", tt.cron, err, tt.want)
		}
	}
}

// Whatever is parsed comes, later than what it comes after, at a minute that is meant, and
// never twice on a clock that is set.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"* * * * *", "@weekly", "0 0 29 2 *", "*/7 1-3,5 */2 jan-dec sun", "30 2 * * *", "0 0 13 * 5", "0 0 */31 2 1", "1/2/3 - , x"} {
		f.Add(seed, int64(1774746000), uint8(0))
		f.Add(seed, int64(1792890000), uint8(1))
	}
	zones := []*time.Location{time.UTC, zone(f, "Europe/Berlin"), zone(f, "America/Havana"), zone(f, "Australia/Lord_Howe")}
	f.Fuzz(func(t *testing.T, text string, unix int64, z uint8) {
		c, err := Parse(text)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("error is %v", err)
			}
			return
		}
		again, err := Parse(c.String())
		if err != nil || again != c {
			t.Errorf("%q is read again as %q, %v", text, again, err)
		}
		now := time.Unix(unix%(1<<32), 0).In(zones[int(z)%len(zones)])
		shown := map[string]bool{}
		for range 3 {
			next := c.Next(now)
			if !next.After(now) || next.Second() != 0 {
				t.Fatalf("%q: after %s comes %s", text, now, next)
			}
			if word := next.Format("2006-01-02 15:04"); c.hours != allHours && shown[word] {
				t.Errorf("%q: %s comes twice", text, word)
			} else {
				shown[word] = true
			}
			now = next
		}
	})
}
