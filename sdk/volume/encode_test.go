package volume

import (
	"encoding/json"
	"fmt"
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

func TestListIsEncodedAsTheWireHasIt(t *testing.T) {
	for _, tt := range listCases {
		t.Run(tt.name, func(t *testing.T) {
			want := wire.VolumeListResponse{Volumes: []wire.VolumeInfo{}}
			for _, info := range tt.all {
				v := wire.VolumeInfo{Name: info.Name, Mountpoint: info.Mountpoint}
				if p := tt.mounted[info.Name]; p != "" {
					v.Mountpoint = p
				}
				want.Volumes = append(want.Volumes, v)
			}
			b, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(b)+"\n", string(encodeList(tt.all, tt.mounted))); diff != "" {
				t.Errorf("answer (-encoding/json +encodeList):\n%s", diff)
			}
		})
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
	all := make([]Info, 100_000)
	for i := range all {
		all[i] = Info{Name: fmt.Sprintf("project_data-%06d", i), Mountpoint: fmt.Sprintf("/var/lib/remora/volumes/remora/project_data-%06d/data", i)}
	}
	b.ReportAllocs()
	for b.Loop() {
		encodeList(all, nil)
	}
}
