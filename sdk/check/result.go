package check

import (
	"time"
)

// Outcome is what came of a case.
type Outcome string

// What may come of a case.
const (
	// Pass: it is as the case asserts.
	Pass Outcome = "pass"
	// Fail: the plugin does something else.
	Fail Outcome = "fail"
	// Broken: the plugin gave no answer, or one that no engine can read.
	Broken Outcome = "broken"
	// Deviates: the case is in [Options].Skip, and did not run.
	Deviates Outcome = "deviates"
	// Skipped: the case could not be decided here, or is not about this plugin.
	Skipped Outcome = "skipped"
)

// Verdict is what the plugin is.
type Verdict string

// The verdicts, from the best.
const (
	// Conforms: no case failed.
	Conforms Verdict = "conforms"
	// DeviatesFrom: a case failed, and engines can use the plugin.
	DeviatesFrom Verdict = "deviates"
	// IsBroken: no engine can use it, or not reliably.
	IsBroken Verdict = "broken"
)

// Evidence is one call and its answer.
type Evidence struct {
	// Method is what was called; Request is the body.
	Method  string `json:"method"`
	Request string `json:"request,omitempty"`
	// Status and Answer are what came back. Status is 0 where nothing did, and Error says why.
	Status int    `json:"status,omitempty"`
	Answer string `json:"answer,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Result is what came of one case.
type Result struct {
	ID      string  `json:"id"`
	Kind    string  `json:"kind,omitempty"`
	Asserts string  `json:"asserts"`
	Source  string  `json:"source"`
	Outcome Outcome `json:"outcome"`
	Basic   bool    `json:"basic,omitempty"`
	// Reasons say what was wrong, or why the case did not run.
	Reasons []string `json:"reasons,omitempty"`
	// Evidence is the call at which each reason was found.
	Evidence []Evidence `json:"evidence,omitempty"`
	// Left is what could not be removed again.
	Left []string `json:"left,omitempty"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
}

// Report is what came of a run.
type Report struct {
	Plugin  string `json:"plugin"`
	Address string `json:"address"`
	// Kinds are those that the plugin says it is, Unchecked those of them that there are no
	// cases for.
	Kinds     []string  `json:"kinds"`
	Unchecked []string  `json:"unchecked,omitempty"`
	Verdict   Verdict   `json:"verdict"`
	Started   time.Time `json:"started"`
	Results   []Result  `json:"cases"`
	// Load is what a soak measured, if there was one.
	Load *LoadReport `json:"load,omitempty"`
	// Interrupted: the run ended before all cases had run.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Count returns how many cases had an outcome.
func (r *Report) Count(o Outcome) (n int) {
	for _, result := range r.Results {
		if result.Outcome == o {
			n++
		}
	}
	return n
}

// Failed returns the results that speak against the plugin.
func (r *Report) Failed() (all []Result) {
	for _, result := range r.Results {
		if result.Outcome == Fail || result.Outcome == Broken {
			all = append(all, result)
		}
	}
	return all
}

// Left returns all that could not be removed again.
func (r *Report) Left() (all []string) {
	for _, result := range r.Results {
		all = append(all, result.Left...)
	}
	if r.Load != nil {
		all = append(all, r.Load.Left...)
	}
	return all
}

// judge sets the verdict.
func (r *Report) judge() {
	r.Verdict = Conforms
	for _, result := range r.Failed() {
		if result.Outcome == Broken || result.Basic {
			r.Verdict = IsBroken
			return
		}
		r.Verdict = DeviatesFrom
	}
	if r.Load != nil && r.Load.Errors > 0 && r.Verdict == Conforms {
		r.Verdict = DeviatesFrom
	}
}
