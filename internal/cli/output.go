package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// printJSON prints v as scripts read it.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints rows under a head, in columns.
func (a *app) table(head []string, rows [][]string) error { return tableTo(a.Stdout, head, rows) }

func tableTo(out io.Writer, head []string, rows [][]string) error {
	buffered := bufio.NewWriterSize(out, 64<<10) // a tabwriter writes each cell by itself
	w := tabwriter.NewWriter(buffered, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(strings.Join(row, "\t"), "\t ")); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return buffered.Flush()
}

// ago says how long ago t was, as Docker does.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return long(time.Since(t)) + " ago"
}

// long says how long something takes, as Docker does.
func long(d time.Duration) string {
	for _, unit := range []struct {
		name string
		d    time.Duration
	}{{"days", 24 * time.Hour}, {"hours", time.Hour}, {"minutes", time.Minute}} {
		if n := int(d / unit.d); n >= 2 {
			return fmt.Sprintf("%d %s", n, unit.name)
		}
	}
	n := max(0, int(d/time.Second))
	if n == 1 {
		return "1 second"
	}
	return fmt.Sprintf("%d seconds", n)
}
