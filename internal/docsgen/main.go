// Command docsgen writes docs/reference from the code: the commands, the configuration
// with its drivers, and the metrics are each described in one place alone.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/remora-plugins/remora/drivers/all"
)

//go:generate go run . ../../docs/reference

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: docsgen DIRECTORY")
		os.Exit(2)
	}
	for name, text := range pages(all.Volumes()) {
		if err := os.WriteFile(filepath.Join(os.Args[1], name), []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "docsgen:", err)
			os.Exit(1)
		}
	}
}
