package main

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
)

// have fails unless all of these programs are there; the values are the packages in which Debian has them.
func have(tools map[string]string) error {
	missing := map[string]bool{}
	for name, pkg := range tools {
		if _, err := exec.LookPath(name); err != nil {
			missing[pkg] = true
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("programs are missing: apt-get install %s", strings.Join(slices.Sorted(maps.Keys(missing)), " "))
}
