package schedule

import (
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Cron says at which minutes something is to be done. The zero Cron is at none.
type Cron struct {
	text                             string
	minutes, hours, days, months, on uint64 // a bit for each value that is meant
	// anyDay and anyWeekday: the field begins with "*". Of two that do not, one is enough.
	anyDay, anyWeekday bool
}

// field is one of the five.
type field struct {
	name        string
	least, most int
	words       string // of three letters each, from least on
}

var fields = [...]field{
	{"minute", 0, 59, ""},
	{"hour", 0, 23, ""},
	{"day of the month", 1, 31, ""},
	{"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
	{"day of the week", 0, 7, "sunmontuewedthufrisat"},
}

var nicknames = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
}

// allHours is the field of the hours when it leaves out none.
const allHours = 1<<24 - 1

// Parse reads the five fields of crontab(5), or one of @hourly, @daily, @midnight, @weekly and
// @monthly.
func Parse(text string) (Cron, error) {
	c := Cron{text: strings.TrimSpace(text)}
	words := strings.Fields(text)
	if len(words) == 1 {
		if full, ok := nicknames[words[0]]; ok {
			words = strings.Fields(full)
		}
	}
	if len(words) != len(fields) {
		return Cron{}, errdefs.Errorf(errdefs.ErrInvalid,
			`%q: want minute, hour, day of the month, month and day of the week, such as "30 3 * * *", or @hourly, @daily, @weekly, @monthly`, text)
	}
	for i, set := range []*uint64{&c.minutes, &c.hours, &c.days, &c.months, &c.on} {
		var err error
		if *set, err = fields[i].parse(words[i]); err != nil {
			return Cron{}, errdefs.Errorf(errdefs.ErrInvalid, "%q: %s: %w", text, fields[i].name, err)
		}
	}
	if c.on&(1<<7) != 0 { // Sunday, too
		c.on = c.on&^(1<<7) | 1
	}
	c.anyDay, c.anyWeekday = words[2][0] == '*', words[4][0] == '*'
	if !c.comes() {
		return Cron{}, errdefs.Errorf(errdefs.ErrInvalid, "%q: there is no such day in any year", text)
	}
	return c, nil
}

// String returns what was parsed.
func (c Cron) String() string { return c.text }

// parse reads one field: parts with commas between them.
func (f field) parse(text string) (set uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		more, err := f.part(part)
		if err != nil {
			return 0, err
		}
		set |= more
	}
	return set, nil
}

// part reads "*", a value or a range, each with a step or without.
func (f field) part(text string) (set uint64, err error) {
	span, stepText, stepped := strings.Cut(text, "/")
	step := 1
	if stepped {
		if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > f.most || !digits(stepText) {
			return 0, errdefs.Errorf(errdefs.ErrInvalid, "%q is no step from 1 to %d", stepText, f.most)
		}
	}
	from, to := f.least, f.most
	if span != "*" {
		first, last, ranged := strings.Cut(span, "-")
		if from, err = f.value(first); err != nil {
			return 0, err
		}
		switch {
		case ranged:
			if to, err = f.value(last); err != nil {
				return 0, err
			}
		case !stepped:
			to = from
		}
		if to < from {
			return 0, errdefs.Errorf(errdefs.ErrInvalid, "%q ends before it begins", span)
		}
	}
	for v := from; v <= to; v += step {
		set |= 1 << v
	}
	return set, nil
}

// value reads a number, or the name of a month or day.
func (f field) value(text string) (int, error) {
	if len(text) == 3 && f.words != "" {
		if i := strings.Index(f.words, strings.ToLower(text)); i >= 0 && i%3 == 0 {
			return f.least + i/3, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || !digits(text) || n < f.least || n > f.most {
		return 0, errdefs.Errorf(errdefs.ErrInvalid, "%q is none from %d to %d", text, f.least, f.most)
	}
	return n, nil
}

func digits(s string) bool { return len(s) <= 2 && strings.Trim(s, "0123456789") == "" }

// comes tells whether there is such a day at all.
func (c Cron) comes() bool {
	if c.anyDay || !c.anyWeekday {
		return true
	}
	for m := time.January; m <= time.December; m++ {
		last := time.Date(2024, m+1, 0, 0, 0, 0, 0, time.UTC).Day() // of a leap year
		if c.months&(1<<m) != 0 && bits.TrailingZeros64(c.days) <= last {
			return true
		}
	}
	return false
}

// day tells whether a day is meant.
func (c Cron) day(y int, m time.Month, d int) bool {
	if c.months&(1<<m) == 0 {
		return false
	}
	inMonth := c.days&(1<<d) != 0
	inWeek := c.on&(1<<time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Weekday()) != 0
	if c.anyDay || c.anyWeekday {
		return inMonth && inWeek
	}
	return inMonth || inWeek
}

// horizon is for how many days Next looks ahead: of two leap days in a row, one may be left
// out at the turn of a century, and what is meant may want a weekday besides.
const horizon = 41 * 366

// Next returns the first time after another one, in the same time zone; the zero time where
// there is none. A time that the clock leaves out, as when summer begins, is the moment at
// which it goes on; one that comes twice is the first of the two. Where all hours are meant,
// those that come twice are two.
func (c Cron) Next(after time.Time) time.Time {
	if c.hours == allHours {
		return c.nextMinute(after)
	}
	y, m, d := after.Date()
	for i := range horizon {
		date := time.Date(y, m, d+i, 0, 0, 0, 0, time.UTC)
		y, m, d := date.Date()
		if !c.day(y, m, d) {
			continue
		}
		for hour := range 24 {
			if c.hours&(1<<hour) == 0 {
				continue
			}
			for minute := range 60 {
				if c.minutes&(1<<minute) == 0 {
					continue
				}
				if t := wall(y, m, d, hour, minute, after.Location()); t.After(after) {
					return t
				}
			}
		}
	}
	return time.Time{}
}

// nextMinute is Next for all hours, as they pass.
func (c Cron) nextMinute(after time.Time) time.Time {
	s := time.Duration(after.Second())*time.Second + time.Duration(after.Nanosecond())
	t := after.Add(time.Minute - s)
	for end := after.AddDate(0, 0, horizon); t.Before(end); {
		y, m, d := t.Date()
		switch {
		case !c.day(y, m, d):
			next := wall(y, m, d+1, 0, 0, t.Location())
			if !next.After(t) { // a midnight that comes twice
				next = t.Add(time.Minute)
			}
			t = next
		case c.minutes&(1<<t.Minute()) != 0:
			return t
		default:
			t = t.Add(time.Minute)
		}
	}
	return time.Time{}
}

// wall returns when a clock first shows a time, or goes on past it.
func wall(y int, m time.Month, d, hour, minute int, loc *time.Location) time.Time {
	t := time.Date(y, m, d, hour, minute, 0, 0, loc)
	want := time.Date(y, m, d, hour, minute, 0, 0, time.UTC)
	_, offset := t.Zone()
	shown := t.Unix() + int64(offset)
	start, end := t.ZoneBounds()
	switch {
	case shown > want.Unix():
		return start
	case shown < want.Unix():
		return end
	case start.IsZero():
		return t
	}
	_, before := start.Add(-time.Second).Zone()
	if first := time.Unix(want.Unix()-int64(before), 0).In(loc); first.Before(start) {
		return first
	}
	return t
}
