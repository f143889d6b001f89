package gcepd

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

var (
	googleKey   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	googleValue = regexp.MustCompile(`^[a-z0-9_-]{0,63}$`)
)

// TestLabels: what Google allows for labels holds all that a tag may be, and as it is where it can.
func TestLabels(t *testing.T) {
	for _, tt := range []struct {
		tags block.Tags
		want map[string]string
	}{
		{block.Tags{"volume": "my_data-1"}, map[string]string{"remora_volume": "my_data-1"}},
		{block.Tags{"o.size": "10g"}, map[string]string{"remora_o-size": "10g"}},
		{block.Tags{"volume": "My_Data"}, map[string]string{"remora_volume": "x-_4dy_5f_44ata"}},
		{block.Tags{"root": "/data"}, map[string]string{"remora_root": "x-_2fdata"}},
		{block.Tags{"volume": "x-ray"}, map[string]string{"remora_volume": "x-x-ray"}},
		{block.Tags{"volume": strings.Repeat("a", 70)}, map[string]string{"remora_volume": strings.Repeat("a", 63), "remora_volume--2": "aaaaaaa"}},
		{block.Tags{"formatted": "2026-11-28T09:30:00Z"}, map[string]string{"remora_formatted": "x-2026-11-28_5409_3a30_3a00_5a"}},
	} {
		if diff := cmp.Diff(tt.want, encode(tt.tags)); diff != "" {
			t.Errorf("%v: %s", tt.tags, diff)
		}
	}
	for _, key := range []string{"volume", "o.size", "l.a..2", "l.x_2d", "l." + strings.Repeat("long", 25), "l.n.2"} {
		for _, value := range []string{
			"a", "x", "x-", "z-", "x-_", "z-zz", "A.b", "ärger", "日本", "\x00\xff", "a=b", "_", "__5f", "-2", strings.Repeat("Ü", 127), strings.Repeat("long_name-", 12), strings.Repeat("A", 255),
		} {
			tags := block.Tags{key: value, "id": "0-1"}
			labels := encode(tags)
			for k, v := range labels {
				if !googleKey.MatchString(k) || !googleValue.MatchString(v) {
					t.Errorf("%q=%q: Google does not allow the label %q=%q", key, value, k, v)
				}
			}
			labels["env"] = "prod"
			if diff := cmp.Diff(tags, decode(labels)); diff != "" {
				t.Errorf("%q=%q: %s", key, value, diff)
			}
		}
	}
}

func FuzzLabels(f *testing.F) {
	f.Add("o.size", "10g", "remora_x", "x-_4")
	f.Add("l.long", strings.Repeat("\xff", 255), "remora_-00", "z-00")
	keys := regexp.MustCompile(`^[a-z][a-z0-9._]{0,200}$`)
	f.Fuzz(func(t *testing.T, key, value, foreign, text string) {
		decode(map[string]string{foreign: text, foreign + "--2": text})
		if !keys.MatchString(key) || value == "" || len(value) > 255 {
			return
		}
		if diff := cmp.Diff(block.Tags{key: value}, decode(encode(block.Tags{key: value}))); diff != "" {
			t.Error(diff)
		}
	})
}

// TestRelabel: changes leave nothing behind of a longer value, and nothing of others is touched.
func TestRelabel(t *testing.T) {
	labels, err := relabel(map[string]string{"env": "prod"}, block.Tags{"volume": strings.Repeat("a", 200), "root": "data"})
	if err != nil || len(labels) != 6 {
		t.Fatalf("%v %v", labels, err)
	}
	before := maps.Clone(labels)
	now, err := relabel(labels, block.Tags{"volume": "a", "root": ""})
	if diff := cmp.Diff(map[string]string{"env": "prod", "remora_volume": "a"}, now); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if diff := cmp.Diff(before, labels); diff != "" {
		t.Errorf("what was given was changed: %s", diff)
	}
	many := block.Tags{}
	for i := range 30 {
		many[fmt.Sprintf("l.%d", i)] = strings.Repeat("Ü", 100)
	}
	if _, err = relabel(nil, many); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "Google allows 64") {
		t.Errorf("too many: %v", err)
	}
}
