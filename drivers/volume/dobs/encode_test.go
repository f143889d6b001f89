package dobs

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
)

// TestEncoding: what comes back is what was written, in words that DigitalOcean takes, whichever
// way the account spells them.
func TestEncoding(t *testing.T) {
	for value, want := range map[string]string{
		"data":                 "remora:volume:data",
		"my-app_data":          "remora:volume:my-app_data",
		"Pg_Data":              "remora:volume:Pg_Data:ua",
		"a.b":                  "remora:volume:a:2eb",
		"2026-11-28T09:30:00Z": "remora:volume:2026-11-28T09:3a30:3a00Z:uc",
		"ABC":                  "remora:volume:ABC:ue",
		"aaaaB":                "remora:volume:aaaaB:u08",
		"über":                 "remora:volume::c3:bcber",
	} {
		got := encode("volume", value, 1)
		if len(got) != 1 || got[0] != want {
			t.Errorf("%q is %q, want %q", value, got, want)
		}
	}
	long := strings.Repeat("Ü😀x_", 40)
	values := []string{
		"", "x", "X", "Data", "dATA", ":p1-2", "a:u8", "q:r2", "name=\"v\",other", "line\nand\x00", "日本語のボリューム", long[:255], strings.Repeat("A", 255),
		strings.Repeat("a", 255), strings.Repeat("\xff", 255), strings.Repeat("aB:", 85),
	}
	for _, value := range values {
		for _, key := range []string{"volume", "o.mount_options", "l." + strings.Repeat("k", 80)} {
			for _, rev := range []int{1, 7, 999999} {
				tags := encode(key, value, rev)
				for i, tag := range tags {
					if !wordForm.MatchString(tag) || len(tag) > 255 {
						t.Errorf("%q of %d letters is no tag", tag, len(tag))
					}
					tags[i] = strings.ToUpper(tag)
					if i%2 == 0 {
						tags[i] = strings.ToLower(tag)
					}
				}
				slices.Reverse(tags)
				if diff := cmp.Diff(block.Tags{key: value}, read(tags)); diff != "" {
					t.Errorf("%q as revision %d: %s", value, rev, diff)
				}
			}
		}
	}
	seen := map[string]string{}
	for _, value := range values {
		for _, tag := range encode("volume", value, 1) {
			if was, ok := seen[strings.ToLower(tag)]; ok && was != value {
				t.Errorf("%q and %q share the tag %s", was, value, tag)
			}
			seen[strings.ToLower(tag)] = value
		}
	}
}

// TestChange: a change that is cut off anywhere leaves the value before it or the one after it, and
// made again leaves nothing over.
func TestChange(t *testing.T) {
	others := []string{"production", "remora", "remora:", "remora:x", "Remora:volume:data", "remora:pool:remora"}
	steps := []block.Tags{
		{"formatted": "begun"},
		{"formatted": "2026-11-28T09:30:00Z", "fs": "ext4"},
		{"formatted": "2026-11-28T09:30:00Z"},
		{"volume": "Other"},
		{"volume": "other", "trashed": strings.Repeat("Ä", 120)},
		{"trashed": strings.Repeat("Ö", 100)},
		{"trashed": "", "none": ""},
	}
	want := block.Tags{"volume": "data", "pool": "remora"}
	now := others
	for _, step := range steps {
		before := read(now)
		add, remove := change(now, step)
		for k, v := range step {
			if want[k] = v; v == "" {
				delete(want, k)
			}
		}
		at := slices.Clone(now)
		states := [][]string{slices.Clone(at)}
		for _, tag := range add {
			at = append(at, tag)
			states = append(states, slices.Clone(at))
		}
		for _, tag := range remove {
			at = slices.DeleteFunc(at, func(o string) bool { return o == tag })
			states = append(states, slices.Clone(at))
		}
		for _, cut := range states {
			for k, v := range read(cut) {
				if v != before[k] && v != want[k] {
					t.Errorf("%v cut off: %s is %q", step, k, v)
				}
			}
			add, remove := change(cut, step)
			again := slices.DeleteFunc(append(slices.Clone(cut), add...), func(o string) bool { return slices.Contains(remove, o) })
			if diff := cmp.Diff(want, read(again)); diff != "" {
				t.Errorf("%v made again after %q: %s", step, cut, diff)
			}
			if add, remove := change(again, step); len(add)+len(remove) != 0 {
				t.Errorf("%v made once more would add %q and remove %q", step, add, remove)
			}
		}
		now = at
		if diff := cmp.Diff(want, read(now)); diff != "" {
			t.Fatalf("after %v: %s", step, diff)
		}
	}
	if !slices.Contains(now, "production") || !slices.Contains(now, "remora:x") {
		t.Errorf("tags of others are gone: %q", now)
	}
}

// TestNamespaceComesLast: a disk that is being adopted is nobody's before all else is written.
func TestNamespaceComesLast(t *testing.T) {
	add, _ := change(nil, block.Tags{block.TagNamespace: "remora", block.TagUUID: "u", block.TagName: "z", "formatted": "x", "root": "auto"})
	if len(add) != 5 || add[4] != "remora:pool:remora" {
		t.Errorf("tags are written in the order %q", add)
	}
}

func FuzzTags(f *testing.F) {
	f.Add("volume", "Pg_Data")
	f.Add("remora:volume:a:zz", "remora:o-x:p1-2")
	f.Add("remora:trashed:x:p2-3:r4", "remora:trashed::c3:p1-99")
	f.Fuzz(func(t *testing.T, a, b string) {
		read([]string{a, b, a + b, prefix + a + ":" + b})
		if b == "" || len(b) > 255 {
			return
		}
		if got := read(encode("k", b, 1))["k"]; got != b {
			t.Errorf("%q comes back as %q", b, got)
		}
	})
}
