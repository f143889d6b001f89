package csi

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/test/csi/tap"
)

// table is what a run came to, for people.
type table struct {
	tb   *testing.T
	seen *tap.Tap
	rows []row
}

type row struct {
	what string
	took time.Duration
	rpcs int
	note string
}

func newTable(t *testing.T, tap *tap.Tap) *table { return &table{tb: t, seen: tap} }

// step runs something and writes down how long it took and how many calls it made of the driver. A run ends with the
// first step that fails.
func (b *table) step(what string, do func()) {
	b.tb.Helper()
	calls, began := b.seen.Calls(), time.Now()
	do()
	b.rows = append(b.rows, row{what: what, took: time.Since(began), rpcs: b.seen.Calls() - calls})
	if b.tb.Failed() {
		b.tb.Fatalf("failed: %s", what)
	}
}

// note writes down what was not done, and why.
func (b *table) note(what, why string) { b.rows = append(b.rows, row{what: what, note: why}) }

// print shows the table, and appends it to a file.
func (b *table) print(file string) {
	b.tb.Helper()
	facts := b.seen.Facts()
	var w strings.Builder
	fmt.Fprintf(&w, "## %s %s\n\n| step | time | RPCs |\n|---|---|---|\n", facts.Name, facts.Version)
	for _, r := range b.rows {
		if r.note != "" {
			fmt.Fprintf(&w, "| %s | %s | |\n", r.what, r.note)
			continue
		}
		fmt.Fprintf(&w, "| %s | %s | %d |\n", r.what, short(r.took), r.rpcs)
	}
	fmt.Fprintf(&w, "\n| RPC | calls | least | mean | most | errors |\n|---|---|---|---|---|---|\n")
	figures := b.seen.Figures()
	total := 0
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		f := figures[name]
		total += f.Calls
		var errs []string
		for code, n := range f.Errors {
			errs = append(errs, fmt.Sprintf("%d %s", n, code))
		}
		slices.Sort(errs)
		fmt.Fprintf(&w, "| %s | %d | %s | %s | %s | %s |\n", name, f.Calls, short(f.Min), short(f.Sum/time.Duration(f.Calls)), short(f.Max), strings.Join(errs, ", "))
	}
	fmt.Fprintf(&w, "\n%d calls, %d out of order.\n\n", total, len(b.seen.Violations()))
	b.tb.Logf("%s", w.String())
	if file == "" {
		return
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		b.tb.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(w.String()); err != nil {
		b.tb.Error(err)
	}
}

// short is a duration in three digits.
func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.3g ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%.3g s", d.Seconds())
}
