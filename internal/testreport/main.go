// Testreport turns what "go test -json" prints into what a person wants to know:
// one line for each package, the output of what failed, the skips by their reasons,
// and on the last line the count, which go test never gives.
//
//	go test -json ./... | testreport
//	testreport step NAME COMMAND [ARGUMENT]... | testreport
//	testreport failed <EVENTS
//
// A step is a command that counts as one test, such as a linter: it prints the same
// JSON. A step that ends with status 75 (EX_TEMPFAIL, sysexits.h) is skipped, and its
// last line is the reason. Several runs may follow each other in one input; a test that
// "go test -short" left out in one and that ran in a later one is counted once.
//
// With failed it prints the tests of one run that are worth running again, alone. One that
// then passes is flaky: its failure is shown, it is named and counted, and more than three of
// them are a failure.
//
// Testreport ends with 1 where something failed, where nothing ran, or where a skip is
// forbidden by REMORA_TEST_MUST_RUN (package testenv).
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/remora-plugins/remora/internal/testenv"
)

func main() {
	if len(os.Args) > 3 && os.Args[1] == "step" {
		step(context.Background(), os.Stdout, os.Args[2], os.Args[3:])
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "failed" {
		if err := failed(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "testreport:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "usage: testreport [step NAME COMMAND [ARGUMENT]... | failed]")
		os.Exit(2)
	}
	if !run(os.Stdin, os.Stdout, testenv.PolicyFromEnv()) {
		os.Exit(1)
	}
}
