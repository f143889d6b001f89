package catalogtest

import (
	"context"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/volume"
)

func TestCheckFindsWhatIsWrong(t *testing.T) {
	type config struct {
		Path string `opt:"path" help:"where"`
	}
	v := catalog.NewVolume("toy", "a toy", func(context.Context, config, catalog.Env) (volume.Driver, error) { return nil, nil })
	good := "# toy\n\n## Name\n\n## Description\n\n## Options\n\n" + catalog.Markdown(v.Keys()) +
		"\n## Examples\n\n```toml\n[pool.p]\ndriver = \"toy\"\npath = \"/x\"\n```\n\n## Limits\n\n## Errors\n"
	if wrong := check(good, v); len(wrong) != 0 {
		t.Fatalf("a good README is wrong: %q", wrong)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"section", "## Limits", "## Limit", "the sections are"},
		{"table", "| where |", "| there |", "the table of keys"},
		{"toml", "path = \"/x\"", "path = ", "a block of TOML"},
		{"key", "path = \"/x\"", "pth = \"/x\"", "did you mean"},
		{"driver", "\"toy\"", "\"boy\"", "is not of driver toy"},
		{"no example", "```toml", "```text", "no example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(check(strings.Replace(good, tt.old, tt.new, 1), v), "; "); !strings.Contains(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}
