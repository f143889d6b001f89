package check

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Formats are the names that [Report.Write] knows.
var Formats = []string{"text", "json", "junit", "tap"}

// Write writes the report in one of [Formats].
func (r *Report) Write(w io.Writer, format string) error {
	switch format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(r)
	case "junit":
		return r.junit(w)
	case "tap":
		return r.tap(w)
	case "text":
		return r.text(w)
	}
	return fmt.Errorf("format %q: want one of %s", format, strings.Join(Formats, ", "))
}

// String writes a call and its answer on two lines.
func (e Evidence) String() string {
	request := strings.TrimSpace(e.Method + " " + e.Request)
	if e.Error != "" {
		return fmt.Sprintf("-> %s\n<- no answer: %s", request, e.Error)
	}
	return fmt.Sprintf("-> %s\n<- %s", request, strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, e.Answer)))
}

// text is for people.
func (r *Report) text(w io.Writer) error {
	var b strings.Builder
	for _, result := range r.Results {
		fmt.Fprintf(&b, "%-8s  %s", result.Outcome, result.ID)
		if result.Outcome == Deviates || result.Outcome == Skipped {
			fmt.Fprintf(&b, ": %s", strings.Join(result.Reasons, "; "))
		}
		b.WriteByte('\n')
		if result.Outcome != Fail && result.Outcome != Broken {
			continue
		}
		fmt.Fprintf(&b, "          asserts: %s\n          source:  %s\n", result.Asserts, result.Source)
		for i, reason := range result.Reasons {
			fmt.Fprintf(&b, "          %s\n", reason)
			if i < len(result.Evidence) && (i == 0 || result.Evidence[i] != result.Evidence[i-1]) {
				for line := range strings.SplitSeq(result.Evidence[i].String(), "\n") {
					fmt.Fprintf(&b, "            %s\n", line)
				}
			}
		}
	}
	r.loadText(&b)
	for _, left := range r.Left() {
		fmt.Fprintf(&b, "left behind: %s\n", left)
	}
	if len(r.Unchecked) > 0 {
		fmt.Fprintf(&b, "not checked: %s\n", strings.Join(r.Unchecked, ", "))
	}
	fmt.Fprintf(&b, "%s: %s\n", r.Plugin, r.Summary())
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) loadText(b *strings.Builder) {
	if r.Load == nil {
		return
	}
	fmt.Fprintf(b, "load: %d calls by %d clients in %.1f s, %d failed\n", r.Load.Calls, r.Load.Clients, r.Load.Seconds, r.Load.Errors)
	fmt.Fprintf(b, "%-36s %8s %8s %10s %10s %10s %10s\n", "METHOD", "CALLS", "FAILED", "P50 MS", "P90 MS", "P99 MS", "MAX MS")
	for _, m := range r.Load.Methods {
		fmt.Fprintf(b, "%-36s %8d %8d %10.2f %10.2f %10.2f %10.2f\n", m.Method, m.Calls, m.Errors, m.P50, m.P90, m.P99, m.Max)
	}
	for _, line := range r.Load.Failed {
		fmt.Fprintf(b, "  %s\n", line)
	}
}

// Summary is the verdict with the counts behind it, on one line.
func (r *Report) Summary() string {
	parts := []string{fmt.Sprintf("%d passed", r.Count(Pass))}
	for _, o := range []Outcome{Fail, Broken, Deviates, Skipped} {
		if n := r.Count(o); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, map[Outcome]string{Fail: "failed", Broken: "without a usable answer", Deviates: "known deviations", Skipped: "skipped"}[o]))
		}
	}
	verdict := string(r.Verdict)
	if r.Interrupted {
		verdict = "interrupted, so far " + verdict
	}
	return verdict + ": " + strings.Join(parts, ", ")
}

// withLoad returns the results, with that of a soak behind them where it failed: those who
// read nothing but cases would miss why the plugin does not conform.
func (r *Report) withLoad() []Result {
	if r.Load == nil || r.Load.Errors == 0 {
		return r.Results
	}
	return append(slices.Clip(r.Results), Result{
		ID: "load/errors", Outcome: Fail, Asserts: "Several clients at once use the plugin without an error.", Source: docAPI,
		Reasons: append([]string{fmt.Sprintf("%d of %d calls failed", r.Load.Errors, r.Load.Calls)}, r.Load.Failed...), Seconds: r.Load.Seconds,
	})
}

// tap is the Test Anything Protocol, version 13.
func (r *Report) tap(w io.Writer) error {
	var b strings.Builder
	all := r.withLoad()
	fmt.Fprintf(&b, "TAP version 13\n1..%d\n", len(all))
	for i, result := range all {
		ok, directive := "ok", ""
		switch result.Outcome {
		case Fail, Broken:
			ok = "not ok"
		case Deviates, Skipped:
			directive = " # SKIP " + strings.ReplaceAll(strings.Join(result.Reasons, "; "), "#", "")
		case Pass:
		}
		fmt.Fprintf(&b, "%s %d - %s%s\n", ok, i+1, result.ID, directive)
		if ok == "ok" {
			continue
		}
		// JSON is YAML as well.
		details, err := json.Marshal(map[string]any{"outcome": result.Outcome, "asserts": result.Asserts, "source": result.Source, "reasons": result.Reasons, "evidence": result.Evidence})
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "  ---\n  %s\n  ...\n", details)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
