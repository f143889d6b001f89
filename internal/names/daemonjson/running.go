package daemonjson

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// PIDFile is where dockerd leaves the number of its process unless it is told otherwise.
const PIDFile = "/run/docker.pid"

// Running returns the command line of the engine whose process a file names. Of one that does not run it is empty.
func Running(pidFile string) []string {
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		return nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		return nil
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n))
	if err != nil || len(line) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
}

// Flags returns those of the two keys that an engine was given on its command line: with the same in its
// file it would not start.
func Flags(args []string) (all []string) {
	for _, key := range []string{keyDNS, keySearch} {
		if slices.ContainsFunc(args, func(a string) bool {
			return a == "--"+key || strings.HasPrefix(a, "--"+key+"=")
		}) {
			all = append(all, "--"+key)
		}
	}
	return all
}

// File returns the file that an engine was told to read on its command line; empty is [Path].
func File(args []string) string {
	file := ""
	for i, a := range args {
		if value, ok := strings.CutPrefix(a, "--config-file="); ok {
			file = value
		} else if a == "--config-file" && i+1 < len(args) {
			file = args[i+1]
		}
	}
	if !filepath.IsAbs(file) { // to which directory that is relative only the engine knows
		return ""
	}
	return file
}
