package config

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
)

// near returns what to say behind an unknown word: the one that was probably meant, and
// all there are.
func near(word string, known []string) string {
	slices.Sort(known)
	if best := catalog.Nearest(word, known); best != "" {
		return fmt.Sprintf(", did you mean %q? (there are: %s)", best, strings.Join(known, ", "))
	}
	return fmt.Sprintf(" (there are: %s)", strings.Join(known, ", "))
}

// line returns the line of a file in which a dotted key stands, 0 where it cannot be told.
// It reads the file as people write it: a header for each table, a key on each line.
func line(file, key string) int {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	table := ""
	n := 0
	for text := range strings.Lines(string(data)) {
		n++
		text = strings.TrimSpace(text)
		if header, ok := strings.CutPrefix(text, "["); ok {
			table, _, _ = strings.Cut(header, "]")
			table = strings.ReplaceAll(strings.TrimSpace(table), `"`, "") + "."
			if table == key+"." {
				return n
			}
			continue
		}
		name, _, ok := strings.Cut(text, "=")
		if name = strings.Trim(strings.TrimSpace(name), `"`); ok && (table+name == key || strings.HasPrefix(key, table+name+".")) {
			return n
		}
	}
	return 0
}
