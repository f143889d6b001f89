package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"time"
)

// tempfail is the status of a step that could not be run here.
const tempfail = 75

// step runs a command and writes the events of a package "step" with one test in it.
func step(ctx context.Context, out io.Writer, name string, command []string) {
	enc := json.NewEncoder(out)
	// An error of enc means that nobody reads; then nobody can be told either.
	emit := func(e event) {
		e.Package = "step " + name
		_ = enc.Encode(e)
	}
	emit(event{Action: "start"})
	emit(event{Action: "run", Test: name})
	began := time.Now()
	text, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	for line := range strings.Lines(string(text)) {
		emit(event{Action: "output", Test: name, Output: line})
	}
	action := "pass"
	if err != nil {
		action = "fail"
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == tempfail {
			action = "skip"
		} else {
			emit(event{Action: "output", Test: name, Output: name + ": " + err.Error() + "\n"})
		}
	}
	took := time.Since(began).Seconds()
	emit(event{Action: action, Test: name, Elapsed: took})
	if action == "skip" {
		action = "pass" // the package's own "skip" would mean that it has no tests
	}
	emit(event{Action: action, Elapsed: took})
}
