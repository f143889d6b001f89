package check

import "github.com/remora-plugins/remora/sdk/internal/secrets"

// hider returns what takes the secrets of the options out of a text.
func hider(opts map[string]string) func(string) string {
	known := secrets.Of(opts)
	return func(text string) string { return secrets.Hide(text, known) }
}
