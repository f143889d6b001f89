package schedule

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// taken returns a snapshot for each time, called after it.
func taken(t *testing.T, loc *time.Location, times ...string) []Taken {
	t.Helper()
	var all []Taken
	for _, text := range times {
		all = append(all, Taken{text, at(t, loc, text)})
	}
	return all
}

func TestKeep(t *testing.T) {
	week := []string{
		"2026-11-23 08:00", "2026-11-22 23:00", "2026-11-22 08:00", "2026-11-21 08:00", // from Monday back
		"2026-11-14 08:00", "2026-10-31 08:00", "2026-10-01 08:00",
	}
	for _, tt := range []struct {
		name string
		keep Keep
		all  []string
		want string // goes
	}{
		{"no rule", Keep{}, week, ""},
		{"last", Keep{Last: 2}, week, "2026-10-01 08:00,2026-10-31 08:00,2026-11-14 08:00,2026-11-21 08:00,2026-11-22 08:00"},
		{"last of fewer", Keep{Last: 9}, week, ""},
		{"daily", Keep{Daily: 2}, week, "2026-10-01 08:00,2026-10-31 08:00,2026-11-14 08:00,2026-11-21 08:00,2026-11-22 08:00"},
		{"days without one do not count", Keep{Daily: 5}, week, "2026-10-01 08:00,2026-11-22 08:00"},
		{"weekly", Keep{Weekly: 2}, week, "2026-10-01 08:00,2026-10-31 08:00,2026-11-14 08:00,2026-11-21 08:00,2026-11-22 08:00"},
		{"monthly", Keep{Monthly: 12}, week, "2026-10-01 08:00,2026-11-14 08:00,2026-11-21 08:00,2026-11-22 08:00,2026-11-22 23:00"},
		{"hourly", Keep{Hourly: 2}, []string{"2026-11-23 08:59", "2026-11-23 08:01", "2026-11-22 08:00"}, "2026-11-23 08:01"},
		{"one rule is enough", Keep{Last: 1, Daily: 2, Monthly: 2}, week, "2026-10-01 08:00,2026-11-14 08:00,2026-11-21 08:00,2026-11-22 08:00"},
		{"an hour twice", Keep{Hourly: 2}, []string{"2026-10-25 02:30 +0100", "2026-10-25 02:30 +0200", "2026-10-25 01:30"}, "2026-10-25 01:30"},
		{"weeks over the new year", Keep{Weekly: 2}, []string{"2027-01-03 08:00", "2026-12-28 08:00", "2026-12-27 08:00"}, "2026-12-28 08:00"},
		{"none", Keep{Last: 1}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			loc := zone(t, "Europe/Berlin")
			var got []string
			for _, s := range tt.keep.Remove(taken(t, loc, tt.all...), later(loc)) {
				got = append(got, s.Name)
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, ",")); diff != "" {
				t.Errorf("goes (-want +got):\n%s", diff)
			}
		})
	}
}

// later is after all that is taken in these tests.
func later(loc *time.Location) time.Time { return time.Date(2200, 1, 1, 0, 0, 0, 0, loc) }

// What was made while the clock was ahead does not push out what was made since it is right.
func TestKeepFromTheFuture(t *testing.T) {
	loc := zone(t, "Europe/Berlin")
	all := taken(t, loc, "2035-01-01 08:00", "2035-01-02 08:00", "2026-11-23 08:50", "2026-11-23 08:00", "2026-11-22 08:00", "2026-11-21 08:00")
	for _, tt := range []struct {
		keep Keep
		want string // goes
	}{
		{Keep{Last: 1}, "2026-11-21 08:00,2026-11-22 08:00,2026-11-23 08:00"},
		{Keep{Daily: 1}, "2026-11-21 08:00,2026-11-22 08:00,2026-11-23 08:00"},
		{Keep{Daily: 2, Yearly: 1}, "2026-11-21 08:00,2026-11-23 08:00"},
		{Keep{Last: 9}, ""},
	} {
		var got []string
		for _, s := range tt.keep.Remove(all, at(t, loc, "2026-11-23 08:50").Add(-30*time.Second)) { // another's clock may be a little ahead
			got = append(got, s.Name)
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, ",")); diff != "" {
			t.Errorf("%+v: goes (-want +got):\n%s", tt.keep, diff)
		}
	}
}

func TestKeepUnknownTime(t *testing.T) {
	got := Keep{Last: 1}.Remove([]Taken{{"unknown", time.Time{}}, {"old", time.Unix(1, 0)}, {"new", time.Unix(2, 0)}}, later(time.UTC))
	if len(got) != 1 || got[0].Name != "old" {
		t.Errorf("%+v goes", got)
	}
}

// Whatever there is, the youngest stays, each rule finds as many periods as it asks for, a
// snapshot goes only for a younger one of all its periods or for their number, and to do it
// again removes nothing more.
func TestKeepProperties(t *testing.T) {
	periods := []string{"2006-01-02 15", "2006-01-02", "", "2006-01", "2006"}
	period := func(rule int, at time.Time) string {
		if rule == 2 {
			for at.Weekday() != time.Monday {
				at = at.AddDate(0, 0, -1)
			}
			return at.Format(time.DateOnly)
		}
		return at.Format(periods[rule])
	}
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		k := Keep{r.IntN(4), r.IntN(4), r.IntN(4), r.IntN(4), r.IntN(4), r.IntN(4)}
		rules := []int{k.Hourly, k.Daily, k.Weekly, k.Monthly, k.Yearly}
		var all []Taken
		when := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for i := range r.IntN(60) {
			when = when.Add(time.Duration(1 + r.Int64N(int64(time.Hour)<<(2*r.IntN(6)))))
			all = append(all, Taken{string(rune('A' + i)), when})
		}
		mixed := slices.Clone(all)
		r.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		gone := k.Remove(mixed, later(time.UTC))
		left := slices.DeleteFunc(slices.Clone(all), func(s Taken) bool { return slices.Contains(gone, s) })
		if k == (Keep{}) {
			if len(gone) > 0 {
				t.Fatalf("seed %d: without a rule %d go", seed, len(gone))
			}
			continue
		}
		if len(all) == 0 {
			continue
		}
		if len(left) == 0 || left[len(left)-1] != all[len(all)-1] {
			t.Fatalf("seed %d: the youngest goes", seed)
		}
		if n := min(len(all), k.Last); !slices.Equal(left[len(left)-n:], all[len(all)-n:]) {
			t.Fatalf("seed %d: of the last %d not all stay", seed, n)
		}
		wanted := map[string]bool{all[len(all)-1].Name: true}
		for _, s := range all[len(all)-min(len(all), k.Last):] {
			wanted[s.Name] = true
		}
		for rule, n := range rules {
			youngest := map[string]string{} // of a period
			var order []string
			for _, s := range slices.Backward(all) {
				if p := period(rule, s.At); youngest[p] == "" {
					youngest[p] = s.Name
					order = append(order, p)
				}
			}
			for _, p := range order[:min(n, len(order))] {
				wanted[youngest[p]] = true
			}
		}
		if len(wanted) != len(left) {
			t.Fatalf("seed %d: %+v leaves %d, want %d", seed, k, len(left), len(wanted))
		}
		for _, s := range left {
			if !wanted[s.Name] {
				t.Fatalf("seed %d: %+v leaves %s for nothing", seed, k, s.Name)
			}
		}
		if again := k.Remove(left, later(time.UTC)); len(again) > 0 {
			t.Fatalf("seed %d: again, %d more go", seed, len(again))
		}
	}
}
