package network

import (
	"errors"
	"testing"

	"github.com/remora-plugins/remora/internal/names/daemonjson"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestFileFor(t *testing.T) {
	before := &installed{File: "/srv/d.json", Saved: daemonjson.Saved{Made: true}}
	engine := []string{"dockerd", "--config-file=/opt/d.json"}
	for _, tt := range []struct {
		what, asked string
		before      *installed
		engine      []string
		want        string
	}{
		{"the usual one", "", nil, []string{"dockerd"}, daemonjson.Path},
		{"the one that the engine reads", "", nil, engine, "/opt/d.json"},
		{"the one that was asked for", "/a", nil, engine, "/a"},
		{"the one of the earlier change", "", before, engine, "/srv/d.json"},
		{"the same again", "/srv/d.json", before, engine, "/srv/d.json"},
		{"another one", "/a", before, engine, ""},
	} {
		i, saved, err := fileFor(tt.asked, tt.before, tt.engine)
		if i.File != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, errdefs.ErrExists) {
			t.Errorf("%s: %q, %v", tt.what, i.File, err)
		}
		if known := saved != nil; known != (tt.before != nil && err == nil) {
			t.Errorf("%s: what was saved is known: %t", tt.what, known)
		}
	}
}
