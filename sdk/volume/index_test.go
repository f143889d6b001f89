package volume

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestIndexMerge(t *testing.T) {
	nobody := func(string) bool { return false }
	tests := []struct {
		name string
		had  []string
		// during is what happens between the begin of a listing and its merge.
		during  func(x *index)
		listing []string
		keep    func(string) bool
		want    []string
		lost    []string
	}{
		{"takes over", nil, nil, []string{"b", "a"}, nobody, []string{"a", "b"}, nil},
		{"what has gone", []string{"a", "b"}, nil, []string{"a"}, nobody, []string{"a"}, []string{"b"}},
		{"what is mounted stays", []string{"a", "b"}, nil, nil, func(n string) bool { return n == "a" }, []string{"a"}, []string{"b"}},
		{"made meanwhile", nil, func(x *index) { x.put(Info{Name: "a"}) }, nil, nobody, []string{"a"}, nil},
		{"removed meanwhile", []string{"a"}, func(x *index) { x.drop("a") }, []string{"a"}, nobody, nil, nil},
		{"removed and made meanwhile", []string{"a"}, func(x *index) { x.drop("a"); x.put(Info{Name: "a"}) }, nil, nobody, []string{"a"}, nil},
		{"made and removed meanwhile", nil, func(x *index) { x.put(Info{Name: "a"}); x.drop("a") }, []string{"a"}, nobody, nil, nil},
		{"found meanwhile", nil, func(x *index) { s := x.begin(); x.found(s, Info{Name: "a"}); x.end() }, nil, nobody, []string{"a"}, nil},
		{"another listing meanwhile", []string{"a"}, func(x *index) {
			s := x.begin()
			x.merge(s, []Info{{Name: "b"}}, nobody)
			x.end()
		}, []string{"a", "b"}, nobody, []string{"a", "b"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := newIndex()
			for _, n := range tt.had {
				x.put(Info{Name: n})
			}
			since := x.begin()
			if tt.during != nil {
				tt.during(x)
			}
			var listing []Info
			for _, n := range tt.listing {
				listing = append(listing, Info{Name: n})
			}
			lost := x.merge(since, listing, tt.keep)
			x.end()
			slices.Sort(lost)
			if !slices.Equal(lost, tt.lost) {
				t.Errorf("lost %q, want %q", lost, tt.lost)
			}
			all, loaded := x.list()
			var got []string
			for _, i := range all {
				got = append(got, i.Name)
			}
			if !slices.Equal(got, tt.want) || !loaded {
				t.Errorf("volumes %q loaded %t, want %q", got, loaded, tt.want)
			}
			if len(x.gone) != 0 {
				t.Errorf("still remembers what was dropped: %v", x.gone)
			}
		})
	}
}

// A look that saw a volume just before it was removed does not bring it back.
// What a listing says again is not held twice, and what it says anew counts.
func TestIndexKeepsWhatIsTheSame(t *testing.T) {
	x := newIndex()
	merge := func(opts map[string]string) map[string]string {
		x.merge(x.begin(), []Info{{Name: "a", Options: opts}}, func(string) bool { return false })
		x.end()
		got, _ := x.get("a")
		return got.Options
	}
	first := merge(map[string]string{"size": "1g"})
	merge(map[string]string{"size": "1g"})["seen"] = "yes"
	if first["seen"] != "yes" {
		t.Error("options that are the same are held twice")
	}
	for _, opts := range []map[string]string{{"size": "2g"}, nil, {"mode": "0700"}} {
		if got := merge(opts); !maps.Equal(got, opts) {
			t.Errorf("options are %v, want %v", got, opts)
		}
	}
}

func TestIndexFoundTooLate(t *testing.T) {
	x := newIndex()
	since := x.begin()
	x.put(Info{Name: "a"})
	x.drop("a")
	x.found(since, Info{Name: "a"})
	x.end()
	if _, ok := x.get("a"); ok {
		t.Error("a volume that was removed is back")
	}
	since = x.begin()
	x.put(Info{Name: "a", Mountpoint: "/new"})
	x.found(since, Info{Name: "a", Mountpoint: "/old"})
	x.end()
	if info, _ := x.get("a"); info.Mountpoint != "/new" {
		t.Errorf("an older look counts more than a newer word: %+v", info)
	}
}

func TestIndexListIsSharedButNotChanged(t *testing.T) {
	x := newIndex()
	if _, loaded := x.list(); loaded {
		t.Error("loaded before any listing")
	}
	x.merge(0, []Info{{Name: "a"}, {Name: "c"}}, nil)
	before, _ := x.list()
	x.put(Info{Name: "b"})
	x.drop("a")
	if before[0].Name != "a" || before[1].Name != "c" || len(before) != 2 {
		t.Errorf("a list in a reader's hands changed to %v", before)
	}
	if after, _ := x.list(); len(after) != 2 || after[0].Name != "b" {
		t.Errorf("list %v", after)
	}
}

// TestIndexSortsWhatChanged holds the list that is made of the last one and of what
// changed to one that is made from nothing, over many random changes.
func TestIndexSortsWhatChanged(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test's dice
	x := newIndex()
	x.merge(x.begin(), nil, func(string) bool { return false })
	x.end()
	there := map[string]bool{}
	for range 500 {
		for range dice.IntN(4) {
			name := fmt.Sprintf("v%d", dice.IntN(40))
			if there[name] = dice.IntN(2) == 0; there[name] {
				x.put(Info{Name: name, Mountpoint: fmt.Sprint(dice.IntN(9))})
			} else {
				x.drop(name)
			}
		}
		before, _ := x.list()
		all, _ := x.list()
		if len(before) > 0 && &before[0] != &all[0] {
			t.Fatal("another slice without a change")
		}
		var want []Info
		for _, name := range slices.Sorted(maps.Keys(there)) {
			if info, ok := x.get(name); ok != there[name] {
				t.Fatalf("%s: %v", name, ok)
			} else if ok {
				want = append(want, info)
			}
		}
		if !slices.EqualFunc(all, want, func(a, b Info) bool { return a.Name == b.Name && a.Mountpoint == b.Mountpoint }) {
			t.Fatalf("list is %v, want %v", all, want)
		}
	}
}
