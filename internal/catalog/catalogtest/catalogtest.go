// Package catalogtest checks that the README of a driver says what its code does.
package catalogtest

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/remora-plugins/remora/internal/catalog"
)

// sections are the headings of a driver's README, in this order.
var sections = []string{"Name", "Description", "Options", "Examples", "Limits", "Errors"}

// README checks README.md in the current directory against v: it has the sections
// Name, Description, Options, Examples, Limits and Errors in this order; under Options
// stand the tables that [catalog.Markdown] makes of the keys and of the options; and
// every pool in a block of TOML is one that v would open.
func README(t *testing.T, v catalog.Volume) {
	t.Helper()
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range check(string(raw), v) {
		t.Error("README.md: " + wrong)
	}
}

func check(text string, v catalog.Volume) (wrong []string) {
	var headings []string
	for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(text, -1) {
		headings = append(headings, m[1])
	}
	if !slices.Equal(headings, sections) {
		wrong = append(wrong, "the sections are "+strings.Join(headings, ", ")+", want "+strings.Join(sections, ", "))
	}
	_, options, _ := strings.Cut(text, "\n## Options\n")
	options, _, _ = strings.Cut(options, "\n## ")
	for what, keys := range map[string][]catalog.Key{"keys": v.Keys(), "options": v.Options()} {
		if table := catalog.Markdown(keys); len(keys) > 0 && !strings.Contains(options, table) {
			wrong = append(wrong, "the table of "+what+" under Options is not\n"+table)
		}
	}
	pools := 0
	for _, m := range regexp.MustCompile("(?ms)^```toml\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		var config struct {
			Pool map[string]map[string]any `toml:"pool"`
		}
		if err := toml.Unmarshal([]byte(m[1]), &config); err != nil {
			wrong = append(wrong, "a block of TOML: "+err.Error())
		}
		for name, table := range config.Pool {
			pools++
			if table["driver"] != v.Name() {
				wrong = append(wrong, "pool "+name+" is not of driver "+v.Name())
			}
			delete(table, "driver")
			if err := v.Check(table); err != nil {
				wrong = append(wrong, "pool "+name+": "+err.Error())
			}
		}
	}
	if pools == 0 {
		wrong = append(wrong, "no example of a pool in a block of TOML")
	}
	return wrong
}
