package volume

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// listCases are volumes, and where those that are mounted lie.
var listCases = []struct {
	name    string
	all     []Info
	mounted map[string]string
}{
	{name: "none"},
	{name: "one", all: []Info{{Name: "data", Mountpoint: "/srv/data"}}},
	{name: "without a mountpoint", all: []Info{{Name: "a"}, {Name: "b", Mountpoint: "/srv/b"}, {Name: "c"}}},
	{name: "mounted", all: []Info{{Name: "a"}, {Name: "b", Mountpoint: "/srv/b"}}, mounted: map[string]string{"a": "/run/a", "b": "/run/b"}},
	{name: "half unmounted", all: []Info{{Name: "b", Mountpoint: "/srv/b"}}, mounted: map[string]string{"b": ""}},
	{name: "in need of escapes", all: []Info{
		{Name: "quote\"", Mountpoint: `/srv/back\slash`},
		{Name: "<&>", Mountpoint: "/srv/tab\tnewline\n\x00\x7f"},
		{Name: "größe", Mountpoint: "/srv/\u2028 and not UTF-8: \xff"},
	}},
}

// wireList is the answer to List as encoding/json makes it.
func wireList(t *testing.T, all []Info, elsewhere map[string]string) string {
	t.Helper()
	want := wire.VolumeListResponse{Volumes: []wire.VolumeInfo{}}
	for _, info := range all {
		v := wire.VolumeInfo{Name: info.Name, Mountpoint: info.Mountpoint}
		if p := elsewhere[info.Name]; p != "" {
			v.Mountpoint = p
		}
		want.Volumes = append(want.Volumes, v)
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func TestListIsEncodedAsTheWireHasIt(t *testing.T) {
	for _, tt := range listCases {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(wireList(t, tt.all, tt.mounted), string(new(answer).list(tt.all, tt.mounted))); diff != "" {
				t.Errorf("answer (-encoding/json +ours):\n%s", diff)
			}
		})
	}
}

// What is mended from one answer to the next must be what would be made anew.
func TestListIsMendedRight(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		x, a := newIndex(), new(answer)
		x.merge(0, nil, nil)
		name := func() string { return string(rune('a' + r.IntN(12))) }
		for step := range 40 {
			for range r.IntN(4) {
				switch r.IntN(6) {
				case 0, 1, 2:
					x.put(Info{Name: name(), Mountpoint: []string{"", "/srv/a", `/srv/"b"`}[r.IntN(3)]})
				case 3, 4:
					x.drop(name())
				case 5:
					x.merge(x.begin(), []Info{{Name: name()}, {Name: "m", Mountpoint: "/m"}}, func(string) bool { return r.IntN(2) == 0 })
					x.end()
				}
			}
			elsewhere := map[string]string{}
			for range r.IntN(3) {
				elsewhere[name()] = []string{"/run/a", "/run/b"}[r.IntN(2)]
			}
			var want []Info
			for _, n := range slices.Sorted(maps.Keys(x.volumes)) {
				want = append(want, x.volumes[n].Info)
			}
			all, _ := x.list()
			if diff := cmp.Diff(wireList(t, want, elsewhere), string(a.list(all, elsewhere))); diff != "" {
				t.Fatalf("seed %d, step %d: answer (-encoding/json +ours):\n%s", seed, step, diff)
			}
		}
	}
}

func TestListIsAnsweredAnewAfterEachChange(t *testing.T) {
	h := &Handler{index: newIndex(), mounts: newMounts(&ledger{live: map[string]record{}})}
	h.index.merge(0, nil, nil)
	list := func() string {
		t.Helper()
		b, err := h.wireList(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := h.wireList(t.Context(), nil)
		if err != nil || &again[0] != &b[0] {
			t.Errorf("without a change the answer was made again, %v", err)
		}
		return string(b)
	}
	mount := func(name, mountpoint string) {
		t.Helper()
		r := record{Volume: name, Mountpoint: mountpoint}
		if mountpoint != "" {
			r.Refs = map[string]ref{"id": {Count: 1}}
		}
		if err := h.mounts.set(&mounted{record: r}); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name   string
		change func()
		want   string
	}{
		{"nothing", func() {}, `{"Volumes":[],"Err":""}`},
		{"created", func() { h.index.put(Info{Name: "b"}) }, `{"Volumes":[{"Name":"b"}],"Err":""}`},
		{"another created", func() { h.index.put(Info{Name: "a", Mountpoint: "/a"}) }, `{"Volumes":[{"Name":"a","Mountpoint":"/a"},{"Name":"b"}],"Err":""}`},
		{"mounted", func() { mount("b", "/run/b") }, `{"Volumes":[{"Name":"a","Mountpoint":"/a"},{"Name":"b","Mountpoint":"/run/b"}],"Err":""}`},
		{"mounted where it lies", func() { mount("a", "/a") }, `{"Volumes":[{"Name":"a","Mountpoint":"/a"},{"Name":"b","Mountpoint":"/run/b"}],"Err":""}`},
		{"mounted in another place", func() { mount("b", "/run/c") }, `{"Volumes":[{"Name":"a","Mountpoint":"/a"},{"Name":"b","Mountpoint":"/run/c"}],"Err":""}`},
		{"unmounted", func() { mount("b", "") }, `{"Volumes":[{"Name":"a","Mountpoint":"/a"},{"Name":"b"}],"Err":""}`},
		{"removed", func() { h.index.drop("b") }, `{"Volumes":[{"Name":"a","Mountpoint":"/a"}],"Err":""}`},
		{"moved", func() { h.index.put(Info{Name: "a", Mountpoint: "/z"}); mount("a", "") }, `{"Volumes":[{"Name":"a","Mountpoint":"/z"}],"Err":""}`},
		{"all gone", func() { h.index.drop("a") }, `{"Volumes":[],"Err":""}`},
	} {
		step.change()
		if got := list(); got != step.want+"\n" {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
}

func BenchmarkList(b *testing.B) {
	x := newIndex()
	var listing []Info
	for i := range 100_000 {
		n := fmt.Sprintf("project_data-%06d", i)
		listing = append(listing, Info{Name: n, Mountpoint: "/var/lib/remora/volumes/remora/" + n + "/data"})
	}
	x.merge(0, listing, nil)
	for _, bb := range []struct {
		name   string
		change func(a *answer)
	}{
		{"kept", func(*answer) {}},
		{"mended", func(*answer) { x.put(Info{Name: "project_data-050000x"}); x.drop("project_data-050000x") }},
		{"anew", func(a *answer) { a.all, a.encoded = nil, nil }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			a := new(answer)
			b.ReportAllocs()
			for b.Loop() {
				bb.change(a)
				all, _ := x.list()
				a.list(all, nil)
			}
		})
	}
}
