package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Keep says which snapshots or backups of a schedule stay. Each rule keeps some, and what no rule keeps
// goes; without any rule all stay.
type Keep struct {
	// Last is how many of the youngest stay.
	Last int
	// Of so many hours, days, weeks, months and years, of those in which there is one, the
	// youngest stays.
	Hourly, Daily, Weekly, Monthly, Yearly int
}

// Taken is a snapshot by its name, or a backup by its ID, and when it was made.
type Taken struct {
	Name string
	At   time.Time
}

// early is how far beyond now something may have been made and still counts: clocks differ.
const early = time.Minute

// Remove returns those of all that do not stay, the oldest first. The youngest always stays,
// and so does one of which nobody knows when it was made: without a time, or with one that has not come yet,
// from before the clock was set back. Such a one takes no other's place. The calendar is that of now's time zone.
func (k Keep) Remove(all []Taken, now time.Time) []Taken {
	if k == (Keep{}) {
		return nil
	}
	dated := slices.DeleteFunc(slices.Clone(all), func(s Taken) bool { return s.At.IsZero() || s.At.After(now.Add(early)) })
	slices.SortFunc(dated, func(a, b Taken) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.Name, a.Name)) })
	stays := make([]bool, len(dated))
	for i := range min(len(dated), max(k.Last, 1)) {
		stays[i] = true
	}
	for _, rule := range []struct {
		n      int
		period func(time.Time) string
	}{
		{k.Hourly, func(t time.Time) string { return t.Format("2006-01-02 15 -0700") }}, // an hour may come twice
		{k.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{k.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, "-", w) }},
		{k.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{k.Yearly, func(t time.Time) string { return t.Format("2006") }},
	} {
		last, n := "", 0
		for i, s := range dated {
			if p := rule.period(s.At.In(now.Location())); p != last && n < rule.n {
				last = p
				n++
				stays[i] = true
			}
		}
	}
	var gone []Taken
	for i, s := range slices.Backward(dated) {
		if !stays[i] {
			gone = append(gone, s)
		}
	}
	return gone
}
