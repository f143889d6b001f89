package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNetworkManagers: one that runs is told of as long as it lacks the file that packages bring, and what to do writes that file.
func TestNetworkManagers(t *testing.T) {
	for _, m := range managers {
		t.Run(m.name, func(t *testing.T) {
			root := t.TempDir()
			make := func(path, text string) {
				t.Helper()
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			process := func(pid, name, ns string) {
				t.Helper()
				make("/proc/"+pid+"/comm", name+"\n")
				if err := os.MkdirAll(filepath.Join(root, "proc", pid, "ns"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(ns, filepath.Join(root, "proc", pid, "ns/net")); err != nil {
					t.Fatal(err)
				}
			}
			look := func() []finding {
				d := &doctor{}
				d.networkManagers(root)
				return d.found
			}
			process("self", "remora", "net:[1]")
			process("7", m.process, "net:[2]")
			if found := look(); len(found) != 0 {
				t.Errorf("one of another host is told: %v", found)
			}
			process("8", m.process, "net:[1]")
			found := look()
			if len(found) != 1 || found[0].Result != "warn" || !strings.Contains(found[0].Text, m.name+" runs") {
				t.Fatalf("%v", found)
			}
			// What packages bring says what the doctor has a person write.
			shipped, err := os.ReadFile("../../packaging/network/" + m.file)
			if err != nil {
				t.Fatal(err)
			}
			_, rest, _ := strings.Cut(found[0].Mend, "'")
			text, _, _ := strings.Cut(rest, "'")
			for line := range strings.SplitSeq(strings.ReplaceAll(text, `\n`, "\n"), "\n") {
				if !strings.Contains(string(shipped), line) {
					t.Errorf("the file of the package lacks %q", line)
				}
			}
			make(m.dirs[len(m.dirs)-1]+"/"+m.file, "")
			if found := look(); len(found) != 1 || found[0].Result != "ok" {
				t.Errorf("with the file: %v", found)
			}
		})
	}
}

func TestManagedBy(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "run/systemd/netif/links")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"ADMIN_STATE=configuring\nOPER_STATE=routable\nNETWORK_FILE=/etc/x.network\n": "/etc/x.network",
		"ADMIN_STATE=unmanaged\nOPER_STATE=routable\n":                                "",
		"ADMIN_STATE=unmanaged\nNETWORK_FILE=/lib/05-remora.network\n":                "",
	} {
		if err := os.WriteFile(filepath.Join(dir, "3"), []byte("# This is private data.\n"+text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := managedBy(root, 3); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := managedBy(root, 4); got != "" {
		t.Error(got)
	}
}
