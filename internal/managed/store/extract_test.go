package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// extract unpacks layers into a directory.
func extract(t testing.TB, dir string, lim limits, layers ...[]byte) error {
	t.Helper()
	root := must[*os.Root](t)(os.OpenRoot(dir))
	defer root.Close()
	x := newExtractor(root, &budget{limits: lim})
	defer x.leave()
	for _, l := range layers {
		if err := x.layer(bytes.NewReader(l)); err != nil {
			return err
		}
	}
	return x.close()
}

func TestExtractKeeps(t *testing.T) {
	testenv.Require(t, testenv.Root)
	at := time.Unix(1e9, 5000)
	file1 := file{tar.Header{Typeflag: tar.TypeReg, Name: "d/suid", Mode: 0o6755, Uid: 3, Gid: 4, ModTime: at, Format: tar.FormatPAX, PAXRecords: map[string]string{
		"SCHILY.xattr.user.a": "A", "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	}}, "content"}
	sticky := file{tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o1777, Uid: 1, Gid: 2, ModTime: at}, ""}
	top := file{tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o750, Uid: 9, ModTime: at}, ""}
	to := t.TempDir()
	check(t, extract(t, to, defaultLimits, archive(t, top, sticky, file1, hard("hard", "d/suid"), link("link", "/d/suid"),
		special(tar.TypeFifo, "fifo"), special(tar.TypeChar, "dev/null"), special(tar.TypeBlock, "/dev/a/b"), reg("a/b/c", "deep"))))
	got := tree(t, to)
	want := map[string]string{
		".": "drwxr-x--- 9:0", "d": "dtrwxrwxrwx 1:2", "a": "drwxr-xr-x 0:0", "a/b": "drwxr-xr-x 0:0", "dev": "drwxr-xr-x 0:0", "dev/a": "drwxr-xr-x 0:0",
		"d/suid": `ugrwxr-xr-x 3:4 links 2 at 1000000000 "content"`, "hard": `ugrwxr-xr-x 3:4 links 2 at 1000000000 "content"`,
		"link": "Lrwxrwxrwx 0:0 -> /d/suid", "fifo": "prw-r--r-- 0:0", "a/b/c": `-rw-r--r-- 0:0 links 1 at 0 "deep"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"", "/d"} {
		if fi := must[os.FileInfo](t)(os.Stat(to + name)); !fi.ModTime().Equal(at.Truncate(time.Second)) {
			t.Errorf("%s is of %v", name, fi.ModTime())
		}
	}
	attr := func(name string) string {
		b := make([]byte, 100)
		n, err := unix.Getxattr(to+"/d/suid", name, b)
		if err != nil {
			return err.Error()
		}
		return string(b[:n])
	}
	if a := attr("user.a"); a != "A" && a != unix.ENOTSUP.Error() {
		t.Errorf("user.a is %q", a)
	}
	if c := attr("security.capability"); len(c) != 20 {
		t.Errorf("the capabilities are %q", c)
	}
	if o := attr("trusted.overlay.opaque"); o != unix.ENODATA.Error() {
		t.Errorf("trusted.overlay.opaque is %q", o)
	}
}

func TestExtractLayers(t *testing.T) {
	testenv.Require(t, testenv.Root)
	lower := []file{dir("d"), reg("d/a", "1"), reg("d/b", "1"), dir("d/sub"), reg("d/sub/x", "1"), reg("f", "1"), link("l", "d"), link("abs", "/d/sub"), link("up", "d/sub/../.."), reg("e/keep", "1"), link("e/abs", "/d/sub")}
	for name, tt := range map[string]struct {
		upper []file
		want  string
	}{
		"nothing":             {nil, "abs d d/a=1 d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 f=1 l up"},
		"replaced":            {[]file{reg("f", "2"), reg("d/a", "22")}, "abs d d/a=22 d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 f=2 l up"},
		"whiteout":            {[]file{reg("d/.wh.a", ""), reg(".wh.f", "")}, "abs d d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 l up"},
		"whiteout of nothing": {[]file{reg(".wh.none", "")}, "abs d d/a=1 d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 f=1 l up"},
		"whiteout of a tree":  {[]file{reg(".wh.d", "")}, "abs e e/abs e/keep=1 f=1 l up"},
		"opaque":              {[]file{dir("d"), reg("d/new", "2"), reg("d/.wh..wh..opq", ""), dir("d/sub"), reg("d/late", "2")}, "abs d d/late=2 d/new=2 d/sub e e/abs e/keep=1 f=1 l up"},
		"opaque keeps":        {[]file{dir("d"), dir("d/sub"), reg("d/sub/new", "2"), reg("d/.wh..wh..opq", "")}, "abs d d/sub d/sub/new=2 e e/abs e/keep=1 f=1 l up"},
		"notes of aufs":       {[]file{dir(".wh..wh.plnk"), reg(".wh..wh.aufs", "")}, "abs d d/a=1 d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 f=1 l up"},
		"through a link":      {[]file{reg("l/new", "2")}, "abs d d/a=1 d/b=1 d/new=2 d/sub d/sub/x=1 e e/abs e/keep=1 f=1 l up"},
		"through an absolute": {[]file{reg("abs/new", "2")}, "abs d d/a=1 d/b=1 d/sub d/sub/new=2 d/sub/x=1 e e/abs e/keep=1 f=1 l up"},
		"absolute from below": {[]file{reg("e/abs/new", "2")}, "abs d d/a=1 d/b=1 d/sub d/sub/new=2 d/sub/x=1 e e/abs e/keep=1 f=1 l up"},
		"through one up":      {[]file{reg("up/new", "2")}, "abs d d/a=1 d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 f=1 l new=2 up"},
		"link replaced":       {[]file{reg("l", "2"), reg("abs", "2")}, "abs=2 d d/a=1 d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 f=1 l=2 up"},
		"link is a directory": {[]file{dir("l"), reg("l/x", "2")}, "abs d d/a=1 d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 f=1 l l/x=2 up"},
		"tree is a file":      {[]file{reg("d", "2"), reg("e", "2")}, "abs d=2 e=2 f=1 l up"},
		"file is a tree":      {[]file{dir("f"), reg("f/x", "2")}, "abs d d/a=1 d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 f f/x=2 l up"},
		"hard link":           {[]file{hard("h", "d/a")}, "abs d d/a=1 d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 f=1 h=1 l up"},
		"hard link by links":  {[]file{hard("l/h", "abs/x")}, "abs d d/a=1 d/b=1 d/h=1 d/sub d/sub/x=1 e e/abs e/keep=1 f=1 l up"},
		"dots inside":         {[]file{reg("d/../n", "2"), reg("/./m", "2")}, "abs d d/a=1 d/b=1 d/sub d/sub/x=1 e e/abs e/keep=1 f=1 l m=2 n=2 up"},
	} {
		t.Run(name, func(t *testing.T) {
			to := t.TempDir()
			check(t, extract(t, to, defaultLimits, archive(t, lower...), archive(t, tt.upper...)))
			var got []string
			check(t, fs.WalkDir(os.DirFS(to), ".", func(p string, d fs.DirEntry, err error) error {
				if p == "." {
					return err
				}
				if d.Type().IsRegular() {
					p += "=" + string(must[[]byte](t)(os.ReadFile(to+"/"+p)))
				}
				got = append(got, p)
				return err
			}))
			slices.Sort(got)
			if diff := cmp.Diff(strings.Fields(tt.want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// outside makes a directory with a rootfs in it, beside things that no layer may touch.
func outside(t testing.TB) (dir, rootfs string) {
	t.Helper()
	dir = t.TempDir()
	for _, d := range []string{"rootfs", "victim", "rootfs-other"} {
		check(t, os.Mkdir(dir+"/"+d, 0o755))
	}
	for _, f := range []string{"passwd", "victim/a", "rootfs-other/a"} {
		check(t, os.WriteFile(dir+"/"+f, []byte("precious"), 0o600))
		check(t, os.Chtimes(dir+"/"+f, time.Unix(5, 0), time.Unix(5, 0)))
	}
	check(t, os.Symlink("victim", dir+"/link"))
	return dir, dir + "/rootfs"
}

// untouched is what is outside of the rootfs.
func untouched(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := tree(t, dir)
	maps.DeleteFunc(all, func(name, _ string) bool { return name == "rootfs" || strings.HasPrefix(name, "rootfs/") })
	return all
}

func TestExtractRefuses(t *testing.T) {
	testenv.Require(t, testenv.Root)
	loop := []file{link("a", "b"), link("b", "a"), reg("a/x", "")}
	owner := reg("a", "")
	owner.Uid = 1<<32 - 1
	odd := reg("a", "")
	odd.Typeflag = tar.TypeCont
	for name, tt := range map[string]struct {
		files []file
		text  string
	}{
		"above":              {[]file{reg("../passwd", "x")}, `"../passwd": it leads out of the rootfs`},
		"far above":          {[]file{reg("a/../../../../../etc/x", "x")}, "it leads out of the rootfs"},
		"above as directory": {[]file{dir("..")}, `"..": it leads out of the rootfs`},
		"link above":         {[]file{link("l", "../victim")}, `"l": it links to "../victim", which leads out of the rootfs`},
		"link far above":     {[]file{link("a/b/l", "../../../victim")}, "which leads out of the rootfs"},
		"link to nothing":    {[]file{link("l", "")}, "it links to no path"},
		"hard link above":    {[]file{hard("h", "../passwd")}, `"h": it is a link to "../passwd", which is no file of the rootfs`},
		"hard link to root":  {[]file{hard("h", "/")}, "which is no file of the rootfs"},
		"hard link to none":  {[]file{hard("h", "none")}, `"h": no such file or directory`},
		"hard link to tree":  {[]file{dir("d"), hard("h", "d")}, `"h": operation not permitted`},
		"links in a circle":  {loop, `"a/x": its path goes through more than 40 links`},
		"below a file":       {[]file{reg("f", ""), reg("f/x", "")}, `"f/x": "f" is no directory`},
		"root as a file":     {[]file{reg(".", "")}, "the root is no directory"},
		"root as a link":     {[]file{link(".", "/victim")}, `".": the root is no directory`},
		"device":             {[]file{special(tar.TypeChar, "null")}, `"null": it is a device, which a plugin may not bring`},
		"block device":       {[]file{special(tar.TypeBlock, "a/sda")}, "it is a device"},
		"device as dev":      {[]file{special(tar.TypeBlock, "dev")}, "it is a device"},
		"device not in dev":  {[]file{link("dev", "/etc"), special(tar.TypeChar, "dev/null")}, "it is a device"},
		"unknown type":       {[]file{odd}, "it is of the unknown type '7'"},
		"owner":              {[]file{owner}, "its owner is 4294967295:0"},
		"whiteout of above":  {[]file{reg("a/.wh...", "")}, `it takes away ".."`},
		"whiteout of itself": {[]file{reg("a/.wh..", "")}, `it takes away "."`},
		"whiteout of none":   {[]file{reg(".wh.", "")}, `it takes away ""`},
		"long name":          {[]file{reg(strings.Repeat("x", 300), "")}, "file name too long"},
		"long path":          {[]file{reg(strings.Repeat("x/", 3000)+"x", "")}, "it is no path"},
	} {
		t.Run(name, func(t *testing.T) {
			parent, rootfs := outside(t)
			before := untouched(t, parent)
			err := extract(t, rootfs, defaultLimits, archive(t, tt.files...))
			if err == nil || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want %q", err, tt.text)
			}
			if diff := cmp.Diff(before, untouched(t, parent)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What leads out of the rootfs through links stays in it.
func TestExtractStaysInside(t *testing.T) {
	testenv.Require(t, testenv.Root)
	for name, files := range map[string][]file{
		"absolute name":       {reg("/passwd", "x")},
		"absolute link":       {link("l", "/victim"), reg("l/a", "x")},
		"absolute link far":   {link("l", "/../../../victim"), reg("l/a", "x")},
		"link of links":       {link("a", "/"), link("a/b", "/a/.."), reg("a/b/../passwd", "x"), reg("a/b/victim/a", "x")},
		"final link":          {link("l", "/passwd"), reg("l", "x")},
		"final link, dir":     {link("l", "/victim"), dir("l"), reg("l/a", "x")},
		"whiteout by link":    {link("l", "/"), reg("l/.wh.victim", "")},
		"opaque by link":      {link("l", "/"), reg("l/.wh..wh..opq", "")},
		"hard link to a link": {link("l", "/passwd"), hard("h", "l"), reg("h", "x")},
		"name of a neighbour": {link("l", "/rootfs-other"), reg("l/a", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			parent, rootfs := outside(t)
			before := untouched(t, parent)
			_ = extract(t, rootfs, defaultLimits, archive(t, files...), archive(t, files...))
			if diff := cmp.Diff(before, untouched(t, parent)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// zeros is n bytes of nothing, of which it counts what was asked for.
type zeros struct{ left, read int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	z.left -= n
	z.read += n
	return int(n), nil
}

// bomb is 10 GB of zeros in 10 MB, in a tar with the given header.
func bomb(t testing.TB, size int64) []byte {
	t.Helper()
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	check(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/zeros", Size: size}))
	return slices.Concat(zipped(t, head.Bytes()), bytes.Repeat(nothing(), 1280))
}

// nothing is 8 MB of zeros.
var nothing = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(make([]byte, 8<<20)) // a buffer takes all
	_ = w.Close()
	return b.Bytes()
})

func TestTooMuch(t *testing.T) {
	s := opened(t, t.TempDir())
	s.limits.slack = 4 << 20 // a race detector takes its time with more
	const ten = 10 << 30

	plain := &zeros{left: ten}
	head := archive(t, reg("config.json", "{}"))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/zeros", Size: ten}))
	_, err := s.Create(t.Context(), "a:latest", io.MultiReader(bytes.NewReader(head[:len(head)-1024]), &b, plain))
	wants(t, err, errdefs.ErrInvalid, `"rootfs/zeros": it unpacks to more than 4096 MiB`)
	if plain.read > 8<<20 {
		t.Errorf("%d bytes of it were read", plain.read)
	}
	_, err = s.Create(t.Context(), "a:latest", bytes.NewReader(bomb(t, ten)))
	wants(t, err, errdefs.ErrInvalid, "it unpacks to more than 4096 MiB")
	_, err = s.Create(t.Context(), "a:latest", bytes.NewReader(bomb(t, 3<<30)))
	wants(t, err, errdefs.ErrInvalid, "it unpacks to more than 200 times its size")
	_, err = s.Create(t.Context(), "a:latest", bytes.NewReader(bomb(t, 1))) // what is behind the last file is not read
	wants(t, err, errdefs.ErrInvalid, "config not found")
	for size, text := range map[int64]string{ten: "it unpacks to more than 4096 MiB", 3 << 30: "it unpacks to more than 200 times its size", 1: "it unpacks to more than 200 times its size"} {
		_, err = s.Install(t.Context(), "a:latest", "", pulled(t, s, "a", bomb(t, size)), nil, nil)
		wants(t, err, errdefs.ErrInvalid, text)
	}
	var many []file
	for i := range 60 {
		many = append(many, reg(strings.Repeat("d/", i%7)+string(rune('a'+i%26))+strings.Repeat("x", i), ""))
	}
	s.limits.entries = 50
	_, err = s.Install(t.Context(), "a:latest", "", pulled(t, s, "a", zipped(t, archive(t, many...))), nil, nil)
	wants(t, err, errdefs.ErrInvalid, "it has more than 50 files")
	_, err = s.Create(t.Context(), "a:latest", bytes.NewReader(bundle(t, "a", many...)))
	wants(t, err, errdefs.ErrInvalid, "it has more than 50 files")
	_, err = s.Install(t.Context(), "a:latest", "", pulled(t, s, "a", zipped(t, archive(t, reg(strings.Repeat("d/", 60)+"x", "")))), nil, nil)
	wants(t, err, errdefs.ErrInvalid, "it has more than 50 files")
	s.limits.bytes = 1000
	_, err = s.Install(t.Context(), "a:latest", "", pulled(t, s, "a", zipped(t, archive(t, reg("a", strings.Repeat("x", 600)))), zipped(t, archive(t, reg("a", strings.Repeat("x", 600))))), nil, nil)
	wants(t, err, errdefs.ErrInvalid, "it unpacks to more than 0 MiB")
	check(t, s.GC())
	tidied(t, s)
}

// FuzzExtract looks outside of the rootfs for what a layer did there. An entry is made of four bytes: its
// type, its name, where it links to, and its mode.
func FuzzExtract(f *testing.F) {
	testenv.Require(f, testenv.Root)
	names := []string{
		"", ".", "/", "..", "a", "a/b", "a/b/c", "b", "b/a", "c", "a/c", "/a", "../a", "../passwd", "a/../../passwd", "a/..", "../victim/a", "/../victim", "victim", "victim/a",
		".wh.a", "a/.wh.b", ".wh..wh..opq", "a/.wh..wh..opq", ".wh...", ".wh..", "b/.wh.a", "../rootfs-other/a", "../rootfs", "../rootfs/a", "dev", "dev/null", "\x00", "a\x00/../..", "a//b/./c/", "..a",
	}
	types := []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar, tar.TypeBlock, tar.TypeReg, tar.TypeDir, tar.TypeSymlink}
	f.Add([]byte{0, 4, 0, 0, 2, 7, 19, 0, 0, 8, 0, 0}, []byte(nil))
	f.Add([]byte{2, 4, 3, 0, 0, 5, 0, 0, 3, 7, 13, 0}, []byte(nil))
	f.Add([]byte{2, 4, 2, 0, 2, 5, 15, 0, 0, 24, 0, 0, 0, 22, 0, 0}, []byte(nil))
	f.Add([]byte{}, archive(f, reg("a", "x"), link("b", "/a"), hard("c", "b"), reg("../x", "x")))
	f.Add([]byte{}, zipped(f, archive(f, dir("a"), special(tar.TypeFifo, "a/b"))))
	f.Fuzz(func(t *testing.T, entries, raw []byte) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for ; len(entries) >= 4; entries = entries[4:] {
			h := &tar.Header{
				Typeflag: types[int(entries[0])%len(types)], Name: names[int(entries[1])%len(names)], Linkname: names[int(entries[2])%len(names)],
				Mode: int64(entries[3])<<4 | 0o4000, Uid: int(entries[3]), ModTime: time.Unix(9, 0),
			}
			_ = w.WriteHeader(h) // what cannot be written at all is left out
		}
		_ = w.Close()
		parent, rootfs := outside(t)
		before := untouched(t, parent)
		lim := limits{bytes: 1 << 20, entries: 200, slack: 1 << 20, ratio: 100}
		for _, layers := range [][][]byte{{b.Bytes()}, {b.Bytes(), raw}, {raw, b.Bytes()}} {
			if err := extract(t, rootfs, lim, layers...); err != nil && strings.Contains(err.Error(), "path escapes") {
				t.Errorf("only the last barrier held: %v", err)
			}
		}
		if diff := cmp.Diff(before, untouched(t, parent)); diff != "" {
			t.Fatal(diff)
		}
		var size int64
		for name, what := range tree(t, rootfs) {
			if strings.HasPrefix(what, "D") || strings.HasPrefix(what, "d") && strings.Contains(what[:2], "c") {
				t.Fatalf("%s is a device: %s", name, what)
			}
			if fi, err := os.Lstat(rootfs + "/" + name); err == nil && fi.Mode().IsRegular() {
				size += fi.Size()
			}
		}
		if size > 3<<20 {
			t.Fatalf("%d bytes were unpacked", size)
		}
	})
}
