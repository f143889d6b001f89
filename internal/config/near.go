package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
)

// near returns what to say behind an unknown word: the one that was probably meant, and
// all there are.
func near(word string, known []string) string {
	known = slices.Sorted(slices.Values(known))
	lower := make([]string, len(known)) // a variable is written in upper case, a key is not
	for i, k := range known {
		lower[i] = strings.ToLower(k)
	}
	if i := slices.Index(lower, catalog.Nearest(word, lower)); i >= 0 {
		return fmt.Sprintf(", did you mean %q? (there are: %s)", known[i], strings.Join(known, ", "))
	}
	if table, rest, ok := strings.Cut(word, "."); ok {
		var tables []string
		for _, k := range known {
			if t, ok := strings.CutSuffix(k, ".NAME"); ok {
				tables = append(tables, t)
			}
		}
		if t := catalog.Nearest(table, tables); t != "" && t != table {
			return fmt.Sprintf(", did you mean %q? (there are: %s)", t+"."+rest, strings.Join(known, ", "))
		}
	}
	return fmt.Sprintf(" (there are: %s)", strings.Join(known, ", "))
}
