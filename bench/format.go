package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// span formats a time in microseconds with three digits or so.
func span(us float64) string {
	switch {
	case math.IsNaN(us):
		return "–"
	case us < 9.95:
		return fmt.Sprintf("%.1f µs", us)
	case us < 999.5:
		return fmt.Sprintf("%.0f µs", us)
	case us < 9_950:
		return fmt.Sprintf("%.2f ms", us/1e3)
	case us < 99_500:
		return fmt.Sprintf("%.1f ms", us/1e3)
	case us < 999_500:
		return fmt.Sprintf("%.0f ms", us/1e3)
	}
	return fmt.Sprintf("%.2f s", us/1e6)
}

// count formats a number with three digits that mean something, and commas.
func count(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v < 9.95:
		return fmt.Sprintf("%.1f", v)
	case v >= 1000:
		unit := math.Pow(10, math.Floor(math.Log10(v))-2)
		v = math.Round(v/unit) * unit
	}
	return commas(int(math.Round(v)))
}

func commas(n int) string {
	digits := strconv.Itoa(n)
	var groups []string
	for len(digits) > 3 {
		groups = append([]string{digits[len(digits)-3:]}, groups...)
		digits = digits[:len(digits)-3]
	}
	return strings.Join(append([]string{digits}, groups...), ",")
}

// mib formats a number of bytes.
func mib(bytes int64) string {
	if bytes == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

// times formats a ratio with its bounds.
func (r ratio) times() string {
	return fmt.Sprintf("%.2f× (%.2f–%.2f)", r.mid, r.low, r.high)
}

// table writes a table in Markdown. A column whose head ends in ":" is aligned right.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	names, rule := make([]string, len(head)), make([]string, len(head))
	for i, h := range head {
		names[i], rule[i] = strings.TrimSuffix(h, ":"), "---"
		if names[i] != h {
			rule[i] = "--:"
		}
	}
	line(names)
	line(rule)
	for _, r := range rows {
		line(r)
	}
	return b.String()
}
