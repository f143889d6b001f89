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
