package csi

import (
	"embed"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/remora-plugins/remora/internal/catalog"
)

// The files of the catalog begin with comments of the form "# key: text"; what goes on is indented.
//
//go:embed catalog/*.toml
var catalogFiles embed.FS

// states are how far a file of the catalog has been tried.
var states = []string{"tested here", "started here", "documented only"}

// examples reads the catalog. That all files can be read is proved by a test.
func examples() []catalog.Example {
	entries, err := catalogFiles.ReadDir("catalog")
	if err != nil {
		panic(err)
	}
	var all []catalog.Example
	for _, e := range entries {
		text, err := catalogFiles.ReadFile(path.Join("catalog", e.Name()))
		if err != nil {
			panic(err)
		}
		example, err := readExample(strings.TrimSuffix(e.Name(), ".toml"), string(text))
		if err != nil {
			panic(fmt.Sprintf("catalog/%s: %v", e.Name(), err))
		}
		all = append(all, example)
	}
	return all
}

// readExample reads a file of the catalog.
func readExample(name, text string) (catalog.Example, error) {
	x := catalog.Example{Name: name, Text: text}
	fields := map[string]string{}
	key := ""
	for line := range strings.Lines(text) {
		comment, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "#")
		if !ok {
			break
		}
		word, rest, isField := strings.Cut(comment, ":")
		switch {
		case x.Title == "":
			x.Title = strings.TrimSpace(comment)
		case strings.HasPrefix(comment, "   ") && key != "":
			fields[key] += " " + strings.TrimSpace(comment)
		case isField:
			key = strings.TrimSpace(word)
			fields[key] = strings.TrimSpace(rest)
		}
	}
	x.Driver, x.Needs, x.Sources = fields["driver"], fields["needs"], strings.Fields(fields["sources"])
	x.State, x.How, _ = strings.Cut(fields["state"], ": ")
	if x.Title == "" || x.Driver == "" || x.Needs == "" || len(x.Sources) == 0 || !slices.Contains(states, x.State) {
		return x, fmt.Errorf("want a title, driver, state (%s), needs and sources in comments", strings.Join(states, ", "))
	}
	table, err := poolOf(text)
	if err != nil {
		return x, err
	}
	for _, start := range []string{"image", "command", "endpoint"} {
		if _, ok := table[start]; ok && x.Start == "" {
			x.Start = start
		}
	}
	x.Kubeshim, _ = table["kubeshim"].(bool)
	return x, nil
}

// poolOf returns the one pool of a file, without the name of its driver.
func poolOf(text string) (map[string]any, error) {
	var file struct {
		Pool map[string]map[string]any `toml:"pool"`
	}
	if err := toml.Unmarshal([]byte(text), &file); err != nil {
		return nil, err
	}
	for name, table := range file.Pool {
		if len(file.Pool) != 1 || table["driver"] != "csi" {
			return nil, fmt.Errorf("pool %q: want one pool, and its driver csi", name)
		}
		delete(table, "driver")
		return table, nil
	}
	return nil, errors.New("no pool")
}
