package main

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// packages is a tree with all that is wanted, of files that are no programs.
func packages(t *testing.T) map[string]*file {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, text string) {
		h.Size = int64(len(text))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	tree := map[string]*file{}
	for _, p := range programs() {
		b.Reset()
		w = tar.NewWriter(&b)
		for _, pattern := range p.files {
			name := strings.NewReplacer("[A-Z]*/*/*", "B/y/z", "[A-Z]*/*", "B/x", "[A-Z]*", "A", "*", "x", "?", "4").Replace(pattern)
			if p.pkg == "ca-certificates" {
				name = "usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt"
			}
			add(tar.Header{Name: "./" + name, Mode: 0o4755}, "text of "+name+"\n")
		}
		if p.pkg == "sshfs" {
			add(tar.Header{Name: "./usr/bin/sshfs", Typeflag: tar.TypeSymlink, Linkname: "../lib/sshfs.real"}, "")
			add(tar.Header{Name: "./lib/sshfs.real", Mode: 0o755}, "#!/bin/sh\n")
			add(tar.Header{Name: "./usr/share/man/man1/sshfs.1.gz", Mode: 0o644}, "unwanted")
			add(tar.Header{Name: "./usr/share/other", Mode: 0o644}, "not asked for")
			add(tar.Header{Name: "./usr/share/doc/sshfs/copyright", Mode: 0o644}, "a licence")
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := readTar(&b, &deb{name: p.pkg, version: "1", digest: "d"}, tree); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func TestAssemble(t *testing.T) {
	r, err := assemble(packages(t), []byte("the program"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"usr/bin/remora":                    "the program",
		"usr/lib/sshfs.real":                "#!/bin/sh\n", // what a link leads to
		"usr/sbin/mke2fs":                   "text of sbin/mke2fs\n",
		"usr/share/doc/sshfs/copyright":     "a licence",
		"etc/ssl/certs/ca-certificates.crt": "text of usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt\n",
		"etc/nsswitch.conf":                 texts["etc/nsswitch.conf"],
	} {
		if f := r.files[name]; f == nil || string(f.data) != want {
			t.Errorf("%s is %+v, want %q", name, f, want)
		}
	}
	for _, name := range []string{"usr/share/man/man1/sshfs.1.gz", "usr/share/other", "usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt"} {
		if r.files[name] != nil {
			t.Errorf("%s is there", name)
		}
	}
	if f := r.files["usr/bin/sh"]; f.link != "busybox" || r.files["bin"].link != "usr/bin" {
		t.Errorf("sh is %+v, bin is %+v", f, r.files["bin"])
	}
	for name, f := range r.files {
		if f.mode&0o7000 != 0 {
			t.Errorf("%s has the mode %o", name, f.mode)
		}
	}
	if list := string(r.files["usr/share/remora/packages"].data); !strings.Contains(list, "sshfs 1 sha256:d\n") || !strings.Contains(list, "ca-certificates 1") {
		t.Errorf("packages are %s", list)
	}

	more, err := assemble(packages(t), nil, []string{"sshfs"})
	if err != nil || more.files["usr/share/other"] == nil {
		t.Errorf("with the whole of a package: %v", err)
	}
	if _, err := assemble(packages(t), nil, []string{"nothere"}); err == nil {
		t.Error("a package that is not there is taken whole")
	}
	tree := packages(t)
	maps.DeleteFunc(tree, func(_ string, f *file) bool { return f.of.name == "xfsprogs" })
	if _, err := assemble(tree, nil, nil); err == nil || !strings.Contains(err.Error(), "xfsprogs") {
		t.Errorf("without a package: %v", err)
	}
	tree = packages(t)
	delete(tree, "usr/lib/sshfs.real")
	if _, err := assemble(tree, nil, nil); err == nil || !strings.Contains(err.Error(), "sshfs.real: not in any package") {
		t.Errorf("without what a link leads to: %v", err)
	}
}

// TestWrite: both forms of a bundle are the same, each time.
func TestWrite(t *testing.T) {
	var digests []string
	config := []byte("{}\n")
	for range 2 {
		r, err := assemble(packages(t), []byte("the program"), nil)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "plugin")
		if err := r.writeDir(dir, config); err != nil {
			t.Fatal(err)
		}
		digest, err := r.writeTar(dir+".tar", config)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
		sameAsTar(t, dir)
	}
	if digests[0] != digests[1] {
		t.Errorf("the same input makes %q", digests)
	}
}

func sameAsTar(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir + ".tar")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		names = append(names, path.Clean(h.Name))
		fi, err := os.Lstat(filepath.Join(dir, h.Name))
		if err != nil {
			t.Errorf("%s: %v", h.Name, err)
			continue
		}
		if h.Typeflag != tar.TypeSymlink && fi.Mode() != h.FileInfo().Mode() {
			t.Errorf("%s has the mode %v, in the tar %v", h.Name, fi.Mode(), h.FileInfo().Mode())
		}
		if !fi.ModTime().Equal(when) || !h.ModTime.Equal(when) || h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s is of %v, in the tar of %v", h.Name, fi.ModTime(), h.ModTime)
		}
	}
	if !slices.IsSorted(names) && !slices.IsSortedFunc(names, strings.Compare) {
		t.Error("the tar is not sorted")
	}
	var found int
	err = filepath.WalkDir(dir, func(_ string, _ fs.DirEntry, err error) error { found++; return err })
	if err != nil || found != len(names)+1 {
		t.Errorf("%d files and directories, %d in the tar, %v", found, len(names), err)
	}
}

func TestArchives(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"sshfs_3.7.3-1.1_amd64.deb", "sshfs_3.7.2-1_amd64.deb", "mount_1%3a2.38_amd64.deb"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const list = "NOTE: This is only a simulation!\nInst mount (1:2.38 Debian:12.11/stable [amd64])\nInst sshfs (3.7.3-1.1 Debian:12.11/stable [amd64])\nConf sshfs (3.7.3-1.1 …)\n"
	got, err := archives(dir, list)
	if want := []string{filepath.Join(dir, "mount_1%3a2.38_amd64.deb"), filepath.Join(dir, "sshfs_3.7.3-1.1_amd64.deb")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("archives are %q, %v", got, err)
	}
	if _, err := archives(dir, "Inst gone (1 x)\n"); err == nil {
		t.Error("an archive that was not fetched is found")
	}
	if _, err := archives(dir, ""); err == nil {
		t.Error("no package is all right")
	}
}
