package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// ends matches what ends in a letter or digit.
var ends = regexp.MustCompile(`[a-zA-Z0-9]$`)

// TestMigrationIsComplete wants a word in the guide for whatever the other tools take: each
// verb, flag, key and label of testdata/migrate.txt stands in a table of the tool's section.
func TestMigrationIsComplete(t *testing.T) {
	page, err := os.ReadFile("../../docs/guide/migrate.md")
	if err != nil {
		t.Fatal(err)
	}
	words, err := os.ReadFile("testdata/migrate.txt")
	if err != nil {
		t.Fatal(err)
	}
	section, tool, looked := "", "", 0
	for line := range strings.Lines(string(words)) {
		line = strings.TrimSpace(line)
		if name, is := strings.CutPrefix(line, "## "); is {
			_, rest, there := strings.Cut(string(page), "\n## "+name+"\n")
			if !there {
				t.Fatalf("the guide has no section %q", name)
			}
			rest, _, _ = strings.Cut(rest, "\n## ")
			tool, section = name, strings.Join(regexp.MustCompile(`(?m)^\|.*$`).FindAllString(rest, -1), "\n")
			continue
		}
		if strings.HasPrefix(line, "# ") {
			continue
		}
		looked++
		word := regexp.QuoteMeta(line)
		if ends.MatchString(line) {
			word += `([^a-zA-Z0-9_-]|$)` // and not as a part of a longer one
		}
		if !regexp.MustCompile(word).MatchString(section) {
			t.Errorf("%s: the tables do not say what takes the place of %q", tool, line)
		}
	}
	if looked < 250 {
		t.Errorf("%d words were looked for", looked)
	}
}
