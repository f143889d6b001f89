package catalog_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestDecodeTableOfTexts(t *testing.T) {
	type pool struct {
		Parameters map[string]string `opt:"parameters" help:"what"`
		Flags      []string          `opt:"flags" help:"what else"`
	}
	for _, tt := range []struct {
		given any
		want  map[string]string
	}{
		{map[string]any{"type": "gp3", "iops": int64(3000), "encrypted": true, "a.b/c": ""}, map[string]string{"type": "gp3", "iops": "3000", "encrypted": "true", "a.b/c": ""}},
		{"type=gp3, tag=a=b", map[string]string{"type": "gp3", "tag": "a=b"}},
		{"", map[string]string{}},
		{map[string]any{}, map[string]string{}},
	} {
		got, err := catalog.DecodeTable[pool](map[string]any{"parameters": tt.given})
		if err != nil {
			t.Errorf("%v: %v", tt.given, err)
		}
		if diff := cmp.Diff(tt.want, got.Parameters); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.given, diff)
		}
	}
	for _, wrong := range []any{"type", "=x", "a=1,a=2", int64(3), true, []any{"a=b"}, map[string]any{"a": []any{}}, map[string]any{"a": map[string]any{}}, map[string]any{"a": "\x00"}} {
		if _, err := catalog.DecodeTable[pool](map[string]any{"parameters": wrong}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	if _, err := catalog.DecodeTable[pool](map[string]any{"flags": map[string]any{"a": "b"}}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a table where a list is meant: %v", err)
	}
	if keys := catalog.Describe[pool](); keys[0].Type != "table" {
		t.Errorf("type %q", keys[0].Type)
	}
}
