// Command table prints what reports of "remora plugin check --format json" say, as a table and
// a list of deviations in Markdown: the second half of docs/conformance.md.
//
//	go run ./test/foreign/table PLUGINS.TXT DIR
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/sdk/check"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: table PLUGINS.TXT DIR")
		os.Exit(2)
	}
	if err := run(os.Stdout, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

// checked is one plugin with what came of it.
type checked struct {
	name, source, version string
	report                check.Report
}

func run(w io.Writer, list, dir string) error {
	b, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var all []checked
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 4 || strings.HasPrefix(line, "#") {
			continue
		}
		c := checked{name: f[0], source: f[2], version: f[3]}
		b, err := os.ReadFile(filepath.Join(dir, c.name+".json"))
		if os.IsNotExist(err) {
			continue // it could not be built here
		}
		if err == nil {
			err = json.Unmarshal(b, &c.report)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if len(c.version) == 40 {
			c.version = c.version[:12]
		}
		all = append(all, c)
	}
	return write(w, all)
}

func write(w io.Writer, all []checked) error {
	var b strings.Builder
	b.WriteString("| Plugin | Version | Kind | Verdict | Passed | Failed | Skipped |\n|---|---|---|---|---:|---:|---:|\n")
	for _, c := range all {
		r := c.report
		fmt.Fprintf(&b, "| [%s](https://%s) | `%s` | %s | %s | %d | %d | %d |\n", c.name, c.source, c.version, strings.Join(r.Kinds, ", "), r.Verdict,
			r.Count(check.Pass), len(r.Failed()), r.Count(check.Skipped))
	}
	for _, c := range all {
		if len(c.report.Failed()) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n", c.name)
		for _, result := range c.report.Failed() {
			fmt.Fprintf(&b, "\n`%s`: %s\n\n", result.ID, markdown(result.Reasons[0]))
			if len(result.Evidence) > 0 {
				fmt.Fprintf(&b, "```text\n%s\n```\n", result.Evidence[0])
			}
		}
		if left := c.report.Left(); len(left) > 0 {
			fmt.Fprintf(&b, "\nWhat it could not remove again: %s.\n", markdown(strings.Join(left, "; ")))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// markdown keeps what a plugin said from being taken for mark-up.
func markdown(text string) string {
	return strings.NewReplacer("<", "&lt;", "|", `\|`, "*", `\*`, "_", `\_`).Replace(text)
}
