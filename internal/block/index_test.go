package block

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func diskOf(id, name string, more ...string) Disk {
	tags := Tags{TagUUID: "uuid-" + id, TagName: name, TagNamespace: "test"}
	for i := 0; i < len(more); i += 2 {
		tags[more[i]] = more[i+1]
	}
	return Disk{ID: id, Tags: tags, State: Ready, Size: 1}
}

func (x *index) has(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, d := range x.volumes() {
		got = append(got, d.Tags[TagName]+"="+d.ID)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("volumes are %q, want %q", got, want)
	}
}

// TestIndexAndOldLists: what we did is not undone by a list that does not know of it yet, and what
// others did is seen.
func TestIndexAndOldLists(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		x := newIndex(filepath.Join(dir, "index"), "me")
		x.merge(Query{}, []Disk{diskOf("1", "a"), diskOf("2", "b")}, time.Now())
		x.has(t, "a=1", "b=2")
		time.Sleep(time.Hour)
		began := time.Now()
		x.put(diskOf("3", "c"))
		x.retag(diskOf("1", "a"), Tags{tagFormatted: "now"})
		x.drop("2")
		x.merge(Query{}, []Disk{diskOf("1", "a"), diskOf("2", "b")}, began) // began before
		x.has(t, "a=1", "c=3")
		time.Sleep(time.Second)
		x.merge(Query{}, []Disk{diskOf("1", "a"), diskOf("2", "b")}, time.Now()) // and behind
		x.has(t, "a=1", "c=3")
		x.merge(Query{Names: []string{"c"}}, nil, time.Now())
		x.has(t, "a=1", "c=3")
		time.Sleep(settled)
		x.merge(Query{}, []Disk{diskOf("1", "a"), diskOf("4", "d")}, time.Now())
		x.has(t, "a=1", "d=4")
		if d, _ := x.volume("a"); !formatted(d) {
			t.Error("an old list took the record of formatting away")
		}
		x.merge(Query{Names: []string{"d"}}, nil, time.Now())
		x.has(t, "a=1")
		if err := x.save(); err != nil {
			t.Fatal(err)
		}
		x.put(diskOf("5", "e"))
		x.drop("1")
		x.close()
	})
	again := newIndex(filepath.Join(dir, "index"), "me")
	if err := again.load(); err != nil || !again.known() {
		t.Fatalf("load: %v", err)
	}
	again.has(t, "e=5")
	again.close()
	f, err := os.OpenFile(filepath.Join(dir, "index"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"drop":"5`); err != nil { // a crash
		t.Fatal(err)
	}
	_ = f.Close()
	torn := newIndex(filepath.Join(dir, "index"), "me")
	if err := torn.load(); err != nil {
		t.Fatal(err)
	}
	torn.has(t, "e=5")
	torn.put(diskOf("6", "f"))
	torn.close()
	mended := newIndex(filepath.Join(dir, "index"), "me")
	if err := mended.load(); err != nil {
		t.Fatal(err)
	}
	mended.has(t, "e=5", "f=6")
	mended.close()
}

// TestTagsOfOthers: what another host changed is seen at once, also of a disk that this one changed
// a moment ago; and what this one changed is not taken back by a list that is behind.
func TestTagsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newIndex(filepath.Join(t.TempDir(), "index"), "me")
		x.merge(Query{}, []Disk{diskOf("1", "a"), diskOf("2", "b"), diskOf("3", "c")}, time.Now())
		time.Sleep(time.Hour)
		x.change("1", func(d *Disk) { d.Holders = []Holder{{Host: "me"}} })
		x.retag(diskOf("2", "b"), Tags{tagFormatted: begun, tagFS: "ext4"})
		x.retag(diskOf("3", "c"), Tags{tagTemp: "x"})
		time.Sleep(time.Second)
		x.merge(Query{}, []Disk{
			diskOf("1", "a", tagTrashed, "0000000000000001-x"),
			diskOf("2", "b", tagTrashed, "0000000000000002-x", tagFormatted, "2026-01-01T00:00:00Z", tagFS, "xfs"),
			diskOf("3", "c"),
		}, time.Now())
		x.has(t)
		if d, _ := x.byID("2"); !formatted(d) || d.Tags[tagFS] != "xfs" {
			t.Errorf("what another host formatted is remembered as %q", d.Tags)
		}
		// A list that was asked for before our own change tells that much, and no more.
		before := time.Now()
		time.Sleep(time.Second)
		x.put(diskOf("4", "d"))
		x.retag(diskOf("4", "d"), Tags{tagFormatted: begun, tagFS: "ext4"})
		x.merge(Query{}, []Disk{diskOf("4", "e", tagFormatted, "2026-01-01T00:00:00Z", tagFS, "ext4")}, before)
		if d, ok := x.volume("d"); !ok || !formatted(d) {
			t.Errorf("a disk that was formatted is remembered as %q", d.Tags)
		}
	})
}

// TestWinner: whichever way a host hears of two disks of one name, it comes to the same.
func TestWinner(t *testing.T) {
	old, young := diskOf("1", "a"), diskOf("2", "a")
	old.Created, young.Created = time.Unix(1, 0), time.Unix(2, 0)
	used := young.with(Tags{tagFormatted: "now"})
	instead := young.with(Tags{tagReplaces: old.Tags[TagUUID]})
	data := old.with(Tags{tagFormatted: "now"})
	trashed := old.with(Tags{tagTrashed: "x"})
	temp := old.with(Tags{tagTemp: "x"})
	failed := old
	failed.State = Failed
	twin := old
	twin.ID, twin.Tags = "0", Tags{TagName: "a", TagUUID: "uuid-0"}
	for i, tt := range []struct {
		a, b Disk
		want string
	}{
		{old, young, "1"},
		{old, used, "2"},
		{data, used, "1"},
		{data, instead, "2"},
		{trashed, young, "2"},
		{temp, young, "2"},
		{failed, young, "2"},
		{old, twin, "0"},
	} {
		for _, all := range [][]Disk{{tt.a, tt.b}, {tt.b, tt.a}} {
			if d, ok := winner(all); !ok || d.ID != tt.want {
				t.Errorf("case %d: %q", i, d.ID)
			}
		}
	}
	if _, ok := winner([]Disk{trashed, failed}); ok {
		t.Error("none is a volume")
	}
}

func TestLabels(t *testing.T) {
	for _, l := range []string{"remora.schedule", "Who is it?", "_", "a_b", "__5f", "é", ""} {
		if key := relabel(l); unlabel(key) != l {
			t.Errorf("%q became %q and %q", l, key, unlabel(key))
		}
	}
}

func TestToken(t *testing.T) {
	at := time.Unix(600, 0)
	if token("n", "a", at, 0) != token("n", "a", at.Add(59*time.Second), 0) {
		t.Error("two hosts come to two tokens within a minute")
	}
	seen := map[string]bool{}
	for _, u := range []string{
		token("n", "a", at, 0), token("n", "b", at, 0), token("m", "a", at, 0), token("n", "a", at, 1), token("n", "a", at.Add(time.Minute), 0),
	} {
		if seen[u] || len(u) != 36 {
			t.Errorf("%q", u)
		}
		seen[u] = true
	}
}

// TestOptions: the spellings of REX-Ray, and what a provider does not have.
func TestOptions(t *testing.T) {
	tr := Traits{Kind: "fake", Options: []string{"type", "zone", "iops"}}
	a, err := tr.decode(map[string]string{"VolumeType": "fast", "availabilityZONE": "z", "size": "3", "fsType": "xfs", "IOPS": "7"})
	if err != nil || *a.Type != "fast" || *a.Zone != "z" || *a.FS != "xfs" || int64(*a.Size) != 3<<30 || *a.IOPS != 7 {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := tr.decode(map[string]string{"size": "512m"}); err != nil || int64(*a.Size) != 512<<20 {
		t.Errorf("size with a unit: %v", err)
	}
	for opts, want := range map[string]string{
		"encryptionKey": `option "encryptionKey": fake has nothing of the kind`,
		"volumetyp":     `unknown option "volumetyp", did you mean "type"? (there are: fs, gid, iops, mode, mount_options, size, type, uid, zone)`,
		"colour":        `unknown option "colour" (there are: fs, gid, iops, mode, mount_options, size, type, uid, zone)`,
	} {
		if _, err := tr.decode(map[string]string{opts: "1"}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", opts, err)
		}
	}
	if _, err := tr.decode(map[string]string{"type": "a", "volumeType": "b"}); err == nil {
		t.Error("two types")
	}
}

// TestIndexPartOfAList: what a list says nothing of is as it was, and a disk of an old list that was
// freed here is not there for that.
func TestIndexPartOfAList(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		in := func(zone string, d Disk) Disk { d.Zone = zone; return d }
		x := newIndex(filepath.Join(dir, "index"), "me")
		x.mergePart(Query{}, []Disk{in("a", diskOf("1", "one"))}, time.Now(), []string{"b"})
		if x.known() {
			t.Error("a part of a list is taken for all there is")
		}
		x.merge(Query{}, []Disk{in("a", diskOf("1", "one")), in("b", diskOf("2", "two")), in("a", diskOf("3", "three"))}, time.Now())
		time.Sleep(time.Hour)
		x.mergePart(Query{}, []Disk{in("a", diskOf("1", "one"))}, time.Now(), []string{"b"})
		x.has(t, "one=1", "two=2")
		if !x.known() {
			t.Error("what was known is not known any more")
		}
		x.change("2", func(o *Disk) { o.Holders = nil })
		x.change("9", func(o *Disk) { o.Holders = nil })
		x.merge(Query{Names: []string{"two"}}, nil, time.Now())
		x.has(t, "one=1")
	})
}

// TestIndexForgetsNoRemoval: what was removed right before a restart does not come back by a list
// that is behind, however the daemon ended.
func TestIndexForgetsNoRemoval(t *testing.T) {
	for _, end := range []string{"closed", "killed"} {
		t.Run(end, func(t *testing.T) {
			x := newIndex(filepath.Join(t.TempDir(), "index"), "me")
			x.merge(Query{}, []Disk{diskOf("1", "a"), diskOf("2", "b")}, time.Now())
			if err := x.save(); err != nil {
				t.Fatal(err)
			}
			x.drop("2")
			if end == "closed" {
				if err := x.save(); err != nil {
					t.Fatal(err)
				}
			}
			again := newIndex(x.path, "me")
			if err := again.load(); err != nil {
				t.Fatal(err)
			}
			again.merge(Query{}, []Disk{diskOf("1", "a"), diskOf("2", "b")}, time.Now())
			again.has(t, "a=1")
			again.put(diskOf("2", "b")) // it was taken in again
			again.has(t, "a=1", "b=2")
			again.close()
			x.close()
		})
	}
}

// TestIndexForgetsNoChange: what was made, or put in the trash, right before a restart is so after it, although
// the list is behind; what others changed meanwhile is taken over, and much later the list is right.
func TestIndexForgetsNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newIndex(filepath.Join(t.TempDir(), "index"), "")
		x.merge(Query{}, []Disk{diskOf("1", "a"), diskOf("2", "b")}, time.Now())
		if err := x.save(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		x.retag(diskOf("2", "b"), Tags{tagTrashed: trashID()})
		x.change("2", func(d *Disk) { d.Size = 7 })
		x.put(diskOf("3", "c"))
		x.close() // as by a kill: nothing is written any more
		again := newIndex(x.path, "")
		if err := again.load(); err != nil {
			t.Fatal(err)
		}
		defer again.close()
		time.Sleep(time.Second)
		theirs := diskOf("2", "b")
		theirs.Tags["theirs"] = "x"
		again.merge(Query{}, []Disk{diskOf("1", "a"), theirs}, time.Now())
		again.has(t, "a=1", "c=3")
		if d, _ := again.byID("2"); !inTrash(d) || d.Tags["theirs"] != "x" {
			t.Errorf("tags are %v", d.Tags)
		}
		time.Sleep(settled + time.Second)
		again.merge(Query{}, []Disk{diskOf("1", "a"), diskOf("2", "b")}, time.Now())
		again.has(t, "a=1", "b=2")
	})
}
