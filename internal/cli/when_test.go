package cli

import (
	"testing"
	"time"
)

func TestParseWhen(t *testing.T) {
	zone := time.FixedZone("here", 2*3600)
	now := time.Date(2026, 11, 28, 15, 30, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"2026-11-20":                time.Date(2026, 11, 20, 23, 59, 59, 999999999, zone),
		"2026-11-20 15:04":          time.Date(2026, 11, 20, 15, 4, 0, 0, zone),
		"2026-11-20T15:04":          time.Date(2026, 11, 20, 15, 4, 0, 0, zone),
		"2026-11-20 15:04:05":       time.Date(2026, 11, 20, 15, 4, 5, 0, zone),
		"2026-11-20T15:04:05Z":      time.Date(2026, 11, 20, 15, 4, 5, 0, time.UTC),
		"2026-11-20T15:04:05+01:00": time.Date(2026, 11, 20, 14, 4, 5, 0, time.UTC),
		"yesterday":                 time.Date(2026, 11, 27, 23, 59, 59, 999999999, zone),
		"today":                     time.Date(2026, 11, 28, 23, 59, 59, 999999999, zone),
		"now":                       now,
		"3 days ago":                time.Date(2026, 11, 25, 15, 30, 0, 0, zone),
		"3d":                        time.Date(2026, 11, 25, 15, 30, 0, 0, zone),
		"a week ago":                time.Date(2026, 11, 21, 15, 30, 0, 0, zone),
		"2 months ago":              time.Date(2026, 9, 28, 15, 30, 0, 0, zone),
		"12h":                       now.Add(-12 * time.Hour),
		"1h30m ago":                 now.Add(-90 * time.Minute),
		"5 minutes ago":             now.Add(-5 * time.Minute),
	} {
		if at, err := parseWhen(text, now); err != nil || !at.Equal(want) {
			t.Errorf("%q is %v, %v, want %v", text, at, err, want)
		}
	}
	for _, text := range []string{"", "ago", "2026-13-01", "20.11.2026", "3", "3 days hence", "-3d", "-12h", "days ago", "99999999 days ago", "3 sheep ago"} {
		if at, err := parseWhen(text, now); err == nil {
			t.Errorf("%q is taken for %v", text, at)
		}
	}
}
