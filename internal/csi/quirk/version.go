package quirk

import (
	"strconv"
	"strings"
)

// number reads the first three numbers of a version such as "v1.18.0-rc1" or "2.5".
func number(version string) (n [3]int, ok bool) {
	version = strings.TrimPrefix(strings.TrimSpace(version), "v")
	for i := range n {
		end := 0
		for end < len(version) && version[end] >= '0' && version[end] <= '9' {
			end++
		}
		part, err := strconv.Atoi(version[:end])
		if err != nil {
			return n, i > 0 // "1.x" is 1.0.0, and "canary" nothing
		}
		n[i] = part
		rest, more := strings.CutPrefix(version[end:], ".")
		if !more {
			return n, true
		}
		version = rest
	}
	return n, true
}

func compare(a, b [3]int) int {
	for i := range a {
		if a[i] != b[i] {
			return a[i] - b[i]
		}
	}
	return 0
}

// within reports whether a version is in a range: conditions that all hold, each of "<", "<=", ">" or ">=" and a
// version. One that cannot be read is in every range.
func within(version, span string) bool {
	v, ok := number(version)
	if !ok {
		return true
	}
	for condition := range strings.FieldsSeq(span) {
		limit, _ := number(strings.TrimLeft(condition, "<>="))
		c := compare(v, limit)
		switch strings.TrimRight(condition, "v.0123456789") {
		case "<":
			ok = c < 0
		case "<=":
			ok = c <= 0
		case ">":
			ok = c > 0
		case ">=":
			ok = c >= 0
		}
		if !ok {
			return false
		}
	}
	return true
}
