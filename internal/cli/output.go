package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
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

// plain makes what others have written fit for a terminal: what would move its cursor, wipe a line, or turn the order of letters
// around is shown for what it is. Somebody decides by what he reads here.
func plain(text string) string { return shown(text, "") }

// shown is plain, where a few characters may stay.
func shown(text, may string) string {
	hidden := func(r rune) bool {
		return (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) && !strings.ContainsRune(may, r)
	}
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if hidden(r) {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func tableTo(out io.Writer, head []string, rows [][]string) error {
	buffered := bufio.NewWriterSize(out, 64<<10) // a tabwriter writes each cell by itself
	w := tabwriter.NewWriter(buffered, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = plain(cell)
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t ")); err != nil {
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
