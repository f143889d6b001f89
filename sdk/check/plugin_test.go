package check_test

import (
	"testing"

	"github.com/remora-plugins/remora/sdk/check"
)

// TestPlugins is about what plugins of every kind have.
func TestPlugins(t *testing.T) {
	t.Parallel()
	all := mutants{
		"is nothing":                   {"plugin/activate"},
		"activates for Docker alone":   {"plugin/activate-again"},
		"wants a host":                 {"plugin/any-host"},
		"closes without a word":        {"plugin/keep-alive"},
		"one connection":               {"plugin/idle-connection"},
		"8 at once":                    {"plugin/calls-at-once"},
		"knows every method":           {"plugin/unknown-method"},
		"dies of callers that hang up": {"plugin/hang-up"},
	}
	all.check(t, "", newStore, check.Options{Only: []string{"plugin/"}})
}
