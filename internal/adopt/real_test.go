package adopt

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The tests of this file read what the other tools themselves wrote.

// options are those of a volume, sorted.
func options(v Volume) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(v.Options)) {
		fmt.Fprintf(&b, " %s=%s", key, v.Options[key])
	}
	return strings.TrimPrefix(b.String(), " ")
}

func TestRealLocalPersist(t *testing.T) {
	all, err := LocalPersist("testdata/real/local-persist.json")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range all { // whose directories are not on this host
		got = append(got, v.Name+" "+v.Path)
	}
	same(t, got, []string{"app logs /srv/logs", "images /srv/images"})
}

func TestRealConvoy(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/real/vfs")); err != nil {
		t.Fatal(err)
	}
	mkdir(t, dir+"/vol1", dir+"/vol2")
	all, err := ConvoyVFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	same(t, told(dir, all), []string{"vol1 /t/vol1", "vol2 /t/vol2"})
}

func TestRealConvoyBackup(t *testing.T) {
	for _, dir := range []string{"testdata/real/backups", "testdata/real/backups/convoy-objectstore"} {
		all, err := ConvoyBackups(dir)
		if err != nil || len(all) != 1 || all[0].Err != nil {
			t.Fatalf("%v, %v", all, err)
		}
		st, err := os.Stat(all[0].Archive)
		if err != nil || st.Size() != 247 || all[0].Name != "vol1" || all[0].Path != "." {
			t.Errorf("%+v: %v, %v", all[0], st, err)
		}
	}
}

func TestRealSshfs(t *testing.T) {
	all, err := Sshfs{File: "testdata/real/sshfs/sshfs-state.json"}.Volumes()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range all {
		got = append(got, v.Name+" "+v.Path+": "+options(v))
	}
	same(t, got, []string{
		"keyed user@192.0.2.7:/srv/k: allow_other= identity_file=/root/.ssh/id_ed25519 sshcmd=user@192.0.2.7:/srv/k uid=1000",
		"plain user@192.0.2.8:data: sshcmd=user@192.0.2.8:data",
		"sshvolume user@192.0.2.7:/remote: password=hunter2 \"<&\\\\ port=2222 sshcmd=user@192.0.2.7:/remote",
	})
	if got := fmt.Sprint(Servers(all)); got != "[[192.0.2.7 22] [192.0.2.8 22] [192.0.2.7 2222]]" {
		t.Errorf("servers %s", got)
	}
}

// TestRealSshfsPlugin finds the state by what Docker knows of the plugin, with the directories of
// it in a folder of the test.
func TestRealSshfsPlugin(t *testing.T) {
	dir := t.TempDir()
	id := dir + "/plugins/b3b7bdb2f0905413af02e77b14fae6908815b8f3392c57bbba8632457a140fd6"
	config := strings.NewReplacer("/var/lib/docker/plugins/", dir+"/state/", "/srv/keys", dir+"/keys").
		Replace(string(read(t, "testdata/real/sshfs/plugin/config.json")))
	write(t, id+"/config.json", config)
	write(t, dir+"/plugins/other/config.json", `{"plugin":{"Config":{"Interface":{"Socket":"nfs.sock"}}}}`)
	write(t, dir+"/plugins/torn/config.json", "{")
	write(t, dir+"/keys/id_ed25519", "")
	if s, err := FindSshfs(dir + "/plugins"); err == nil {
		t.Errorf("without a state: %+v", s)
	}
	write(t, dir+"/plugins/"+sshfsState, "{}")
	for _, file := range []string{dir + "/plugins/" + sshfsState, id + "/rootfs/mnt/state/" + sshfsState, dir + "/state/" + sshfsState} {
		write(t, file, string(read(t, "testdata/real/sshfs/sshfs-state.json"))) // each goes before the one above
		s, err := FindSshfs(dir + "/plugins")
		if err != nil || s.File != file || filepath.Clean(s.Keys) != dir+"/keys" {
			t.Fatalf("%+v, %v, want %s", s, err, file)
		}
	}
	s, err := FindSshfs(dir + "/plugins")
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Volumes()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{dir + "/keys/id_ed25519", dir + "/keys/id_ed25519", ""} {
		if got := all[i].Options["identity_file"]; got != want {
			t.Errorf("%s: key %q, want %q", all[i].Name, got, want)
		}
	}
	write(t, dir+"/keys/id_rsa", "") // now nobody can say which one it was
	if all, err = s.Volumes(); err != nil || all[1].Options["identity_file"] != "" {
		t.Errorf("with two keys: %v, %v", all, err)
	}
}
