package block

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// byLink is a provider that knows disks by their links alone.
type byLink struct{ Provider }

func (byLink) Match(d Disk, v Device) bool {
	return len(v.Links) > 0 && v.Links[0] == "link-"+d.ID
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOldLink: a link that udev has yet to take away does not make another disk of the one that got
// the name since.
func TestOldLink(t *testing.T) {
	m := machine{filepath.Join(t.TempDir(), "dev"), filepath.Join(t.TempDir(), "sys")}
	writeFile(t, filepath.Join(m.sys, "block/sdb/dev"), "8:16\n")
	writeFile(t, filepath.Join(m.sys, "block/sdb/size"), "2048\n")
	link := filepath.Join(m.dev, "disk/by-id/link-one")
	if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../sdb", link); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // more than the clock of a file system takes for a step
	writeFile(t, filepath.Join(m.dev, "sdb"), "")
	matches := func() int {
		all, err := m.devices()
		if err != nil || len(all) != 1 {
			t.Fatalf("devices are %v, %v", all, err)
		}
		if (byLink{}).Match(Disk{ID: "one"}, all[0]) {
			return 1
		}
		return 0
	}
	if born(filepath.Join(m.dev, "sdb")) == 0 {
		t.Skip("deviates: the file system keeps no time of birth")
	}
	if matches() != 0 {
		t.Error("the link is older than the device")
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../sdb", link); err != nil {
		t.Fatal(err)
	}
	if matches() != 1 {
		t.Error("the link is of the device")
	}
}

// TestGone: a device that tells more of itself than before is the same, one that tells something else
// is not.
func TestGone(t *testing.T) {
	m := machine{t.TempDir(), t.TempDir()}
	dir := filepath.Join(m.sys, "block/sdb")
	writeFile(t, filepath.Join(dir, "dev"), "8:16\n")
	writeFile(t, filepath.Join(dir, "size"), "2048\n")
	v, err := m.device("sdb")
	if err != nil {
		t.Fatal(err)
	}
	v.Links = []string{"link-one"}
	gone := func() bool { return m.gone(byLink{}, Disk{ID: "one"}, v) }
	if gone() {
		t.Error("it has not changed")
	}
	writeFile(t, filepath.Join(dir, "serial"), "one\n")
	if gone() {
		t.Error("it tells its serial now")
	}
	v.Serial = "one"
	writeFile(t, filepath.Join(dir, "serial"), "two\n")
	if !gone() {
		t.Error("it is another one")
	}
}

func TestNamesFromTheCloud(t *testing.T) {
	for _, name := range []string{"../../etc", "a/b", "a\nb", "\x1b[2J", "", ".hidden", "-rf", "ä"} {
		if live(diskOf("1", name)) {
			t.Errorf("%q is a volume", name)
		}
	}
	if !live(diskOf("1", "a_b.c-d")) {
		t.Error("a_b.c-d is no volume")
	}
	d := &driver{x: newIndex(filepath.Join(t.TempDir(), "index"), "me")}
	for _, name := range []string{"\x1b[2J", "a\nb"} {
		if i := d.plan(Foreign{Disk: Disk{ID: "1", State: Ready}, Name: name}, ""); i.Problem == "" || i.Name == name {
			t.Errorf("a disk called %q: %+v", name, i)
		}
	}
	if imported(diskOf("1", "a", tagFrom, "important@s1")) || !imported(diskOf("1", "a", tagFrom, fromImport+"disk")) {
		t.Error("a clone of an important volume is none that was imported, or the other way round")
	}
}

// TestTagsFit: what only people read is cut to what a tag takes, whatever it is made of.
func TestTagsFit(t *testing.T) {
	for _, text := range []string{"a", string(make([]byte, 300)), "x" + string([]rune{0xe4, 0x1f600})} {
		long := text
		for len(long) < 600 {
			long += text
		}
		if err := (Tags{"from": Short(long)}).fit(); err != nil {
			t.Error(err)
		}
	}
	if (Tags{"from": string(make([]byte, 256))}).fit() == nil {
		t.Error("256 bytes fit")
	}
}
