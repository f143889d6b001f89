package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// failed reads one run of go test and prints "PACKAGE TEST" for each test that is worth another
// run. Where a package did not end by itself, or much of it failed, that is none: to run a part of
// it again would hide what never ran.
func failed(in io.Reader, out io.Writer) error {
	tests, whole := map[string]map[string]bool{}, map[string]bool{}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) == 0 && err != nil {
			break
		}
		var e event
		switch {
		case json.Unmarshal(line, &e) != nil:
		case e.Action == "output" && strings.HasPrefix(e.Output, "panic: "):
			whole[e.Package] = true
		case e.Action == "fail" && e.Test != "":
			if tests[e.Package] == nil {
				tests[e.Package] = map[string]bool{}
			}
			tests[e.Package][top(e.Test)] = true
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(tests)) {
		if whole[pkg] || len(tests[pkg]) > maxFlaky {
			continue
		}
		for _, test := range slices.Sorted(maps.Keys(tests[pkg])) {
			if _, err := fmt.Fprintln(out, pkg, test); err != nil {
				return err
			}
		}
	}
	return nil
}
