package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// parseWhen reads a time in the past: a date, which is the end of that day, a date with a time of
// day, RFC 3339, "yesterday", or how long ago, such as "3d" or "3 days ago".
func parseWhen(text string, now time.Time) (time.Time, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	if day, err := time.ParseInLocation(time.DateOnly, text, now.Location()); err == nil {
		return endOf(day), nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02t15:04", time.DateTime, "2006-01-02t15:04:05"} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	if at, err := time.Parse(time.RFC3339, strings.ToUpper(text)); err == nil {
		return at, nil
	}
	switch text {
	case "now":
		return now, nil
	case "today":
		return endOf(now), nil
	case "yesterday":
		return endOf(now.AddDate(0, 0, -1)), nil
	}
	if at, ok := before(strings.TrimSuffix(text, "ago"), now); ok {
		return at, nil
	}
	return time.Time{}, errdefs.Errorf(errdefs.ErrInvalid, `%q: want a date such as 2026-11-20 or "2026-11-20 15:04", or a time ago such as 12h or "3 days ago"`, text)
}

// endOf returns the last moment of a day.
func endOf(day time.Time) time.Time {
	return time.Date(day.Year(), day.Month(), day.Day()+1, 0, 0, 0, 0, day.Location()).Add(-time.Nanosecond)
}

// before reads how long before now something is: a number and a unit, "1h30m", or "a week".
func before(text string, now time.Time) (time.Time, bool) {
	words := strings.Fields(text)
	if len(words) == 1 {
		if d, err := time.ParseDuration(words[0]); err == nil && d >= 0 {
			return now.Add(-d), true
		}
		digits := strings.TrimRight(words[0], "abcdefghijklmnopqrstuvwxyz")
		words = []string{digits, words[0][len(digits):]}
	}
	if len(words) != 2 {
		return now, false
	}
	n, err := strconv.ParseUint(words[0], 10, 15)
	if words[0] == "a" || words[0] == "an" || words[0] == "one" {
		n, err = 1, nil
	}
	if err != nil {
		return now, false
	}
	switch strings.TrimSuffix(words[1], "s") {
	case "minute":
		return now.Add(-time.Duration(n) * time.Minute), true
	case "hour":
		return now.Add(-time.Duration(n) * time.Hour), true
	case "d", "day":
		return now.AddDate(0, 0, -int(n)), true
	case "w", "week":
		return now.AddDate(0, 0, -7*int(n)), true
	case "month":
		return now.AddDate(0, -int(n), 0), true
	case "y", "year":
		return now.AddDate(-int(n), 0, 0), true
	}
	return now, false
}
