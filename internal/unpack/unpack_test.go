package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// told is a tree as a line for each name: mode, owner, size or target, content if it is short.
func told(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		name, _ := filepath.Rel(dir, p)
		fmt.Fprintf(&b, "%s %s %d:%d", st.Mode(), name, sys.Uid, sys.Gid)
		switch {
		case st.Mode()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			b.WriteString(" -> " + to)
		case st.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if len(data) < 100 {
				fmt.Fprintf(&b, " %d %q", sys.Nlink, data)
			} else {
				fmt.Fprintf(&b, " %d bytes, whole %v", len(data), sys.Blocks*512 >= st.Size())
			}
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func same(t *testing.T, got, want string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestRealArchives unpacks what the tools themselves wrote.
func TestRealArchives(t *testing.T) {
	testenv.Require(t, testenv.Root)
	for _, tt := range []struct{ file, below, want string }{
		{"offen.tar.gz", "backup/app", appTree},
		{"offen.tar.zst", "/backup/app/", appTree},
		{"offen.tar.zst", "backup/db", `drwx------ . 999:999
dtrwxrwxrwx empty 0:0
-rw-r--r-- sparse 0:0 307203 bytes, whole false
-rw-r--r-- table 0:0 1 "rows\n"
`},
		{"convoy.tar.gz", ".", `drwx------ . 0:0
-rw-r--r-- hard 0:0 2 "hello\n"
Lrwxrwxrwx link 0:0 -> sub/a
drwxr-x--- sub 70:71
-rw-r--r-- sub/a 0:0 2 "hello\n"
`},
	} {
		dir := t.TempDir()
		if _, err := Fill(t.Context(), "testdata/"+tt.file, tt.below, dir, nil); err != nil {
			t.Errorf("%s: %v", tt.file, err)
			continue
		}
		same(t, told(t, dir), tt.want)
		if tt.below == "backup/app" {
			st, err := os.Stat(dir + "/sub/a")
			if err != nil || !st.ModTime().Equal(time.Date(2020, 2, 3, 4, 5, 7, 0, time.UTC)) {
				t.Errorf("time of sub/a: %v, %v", st.ModTime(), err)
			}
		}
	}
}

const appTree = `drwxr-xr-x . 0:0
-rw-r--r-- größe und so 0:0 1 "x\n"
-rw-r--r-- hard 0:0 1 "hello\n"
Lrwxrwxrwx link 0:0 -> sub/a
Lrwxrwxrwx out 0:0 -> /etc/passwd
prw-r--r-- pipe 0:0
dgrwxr-x--- sub 70:71
-rw-r--r-- sub/a 0:0 1 "hello\n"
`

func TestDirs(t *testing.T) {
	dirs, loose, err := Dirs(t.Context(), "testdata/offen.tar.gz", "backup", nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, fmt.Sprint(dirs, loose), "[{app 6 14} {db 2 307208}] 1")
	_, _, err = Dirs(t.Context(), "testdata/offen.tar.gz", "backups", nil)
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(fmt.Sprint(errdefs.Hints(err)), `there is: "backup"`) {
		t.Errorf("of a path that is not there: %v, %v", err, errdefs.Hints(err))
	}
	if _, _, err = Dirs(t.Context(), "testdata/offen.tar.gz", "backup/loose", nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of a file: %v", err)
	}
}

// packed writes an archive of headers, each with its name as content if it is a file.
func packed(t testing.TB, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return put(t, b.Bytes())
}

func put(t testing.TB, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func reg(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }

func sym(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}

// TestHostile: nothing is written outside, nothing stays inside, whatever the archive says.
func TestHostile(t *testing.T) {
	testenv.Require(t, testenv.Root)
	out := t.TempDir()
	for name, headers := range map[string][]tar.Header{
		"dots":            {reg("ok"), reg("../x")},
		"dots within":     {reg("a/../../x")},
		"link out":        {sym("l", out), reg("l/x")},
		"link up":         {sym("l", ".."), reg("l/x")},
		"link to link":    {sym("a", ".."), sym("b", "a"), reg("b/x")},
		"hard link":       {reg("a"), {Typeflag: tar.TypeLink, Name: "b", Linkname: "../../../etc/passwd"}},
		"hard by symlink": {sym("l", "/etc"), {Typeflag: tar.TypeLink, Name: "b", Linkname: "l/passwd"}},
		"file in file":    {reg("a"), reg("a/b")},
		"dir over file":   {reg("d/x"), reg("d")},
		"top is a file":   {{Typeflag: tar.TypeReg, Name: "."}, reg("a")},
	} {
		file, dir := packed(t, headers...), t.TempDir()
		_, err := Fill(t.Context(), file, ".", dir, nil)
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
		if left := told(t, dir); strings.Count(left, "\n") != 1 {
			t.Errorf("%s: left behind:\n%s", name, left)
		}
	}
	if left := told(t, out); strings.Count(left, "\n") != 1 {
		t.Errorf("written outside:\n%s", left)
	}
}

func TestLinksAndLast(t *testing.T) {
	testenv.Require(t, testenv.Root)
	file := packed(t, reg("p/d/a"), sym("p/l", "d"), reg("p/l/b"), tar.Header{Typeflag: tar.TypeLink, Name: "p/h", Linkname: "p/d/a"},
		sym("p/a", "/nowhere"), reg("p/a"), tar.Header{Typeflag: tar.TypeBlock, Name: "p/sda", Devmajor: 8},
		tar.Header{Typeflag: tar.TypeReg, Name: "p/suid", Mode: 0o4711, Uid: 5, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}},
		tar.Header{Typeflag: tar.TypeDir, Name: "p/was", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}}, tar.Header{Typeflag: tar.TypeFifo, Name: "p/was"})
	dir := t.TempDir()
	r, err := Fill(t.Context(), file, "p", dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, told(t, dir), `drwxr-xr-x . 0:0
-rw-r--r-- a 0:0 1 "p/a"
drwxr-xr-x d 0:0
-rw-r--r-- d/a 0:0 2 "p/d/a"
-rw-r--r-- d/b 0:0 1 "p/l/b"
-rw-r--r-- h 0:0 2 "p/d/a"
Lrwxrwxrwx l 0:0 -> d
urwx--x--x suid 5:0 1 "p/suid"
prw-r--r-- was 0:0
`)
	value := make([]byte, 10)
	if n, err := syscall.Getxattr(dir+"/suid", "user.k", value); err != nil || string(value[:n]) != "v" {
		t.Errorf("attribute: %q, %v", value[:max(n, 0)], err)
	}
	if r.Skipped != 1 || r.Files != 8 {
		t.Errorf("result %+v", r)
	}
}

// TestCutOff cuts archives at every byte: each is refused, and the directory stays empty.
func TestCutOff(t *testing.T) {
	testenv.Require(t, testenv.Root)
	plain := packed(t, reg("a"), reg("b"))
	for _, file := range []string{"testdata/offen.tar.gz", "testdata/offen.tar.zst", plain} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		whole, step := len(data), 7
		if file == plain {
			whole, step = 2048+511, 128 // of the two blocks of zeros one is enough
		}
		dir := t.TempDir()
		for n := 0; n < whole; n += step {
			if _, err := Fill(t.Context(), put(t, data[:n]), ".", dir, nil); !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("%s: %d of %d bytes: %v", file, n, len(data), err)
			}
			if s, err := Look(dir); s != Empty || err != nil {
				t.Fatalf("%s: %d bytes: state %v, %v", file, n, s, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	fmt.Fprint(w, "hello")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	flipped, err := os.ReadFile("testdata/offen.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	flipped[len(flipped)-6] ^= 1
	for text, data := range map[string][]byte{
		"it is empty":                    {},
		"the archive is cut off":         gz.Bytes(),
		"not an archive of tar":          bytes.Repeat([]byte("x"), 2000),
		"its checksum is another":        flipped,
		"it is encrypted by age":         []byte("age-encryption.org/v1\n"),
		"it is encrypted by gpg":         []byte("-----BEGIN PGP MESSAGE-----"),
		"it is compressed by xz":         []byte("\xfd7zXZ\x00"),
		"there is no directory \".\" in": make([]byte, 1024),
	} {
		dir := t.TempDir()
		if _, err := Fill(t.Context(), put(t, data), ".", dir, nil); err == nil || !strings.Contains(err.Error(), text) || errdefs.Class(err) == nil {
			t.Errorf("want %q, got %v", text, err)
		}
	}
	if _, err := Fill(t.Context(), t.TempDir(), ".", t.TempDir(), nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("of a directory: %v", err)
	}
	if _, err := Fill(t.Context(), "testdata/none", ".", t.TempDir(), nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	if _, err := Fill(t.Context(), "testdata/offen.tar.gz", ".", "testdata", nil); !errors.Is(err, errdefs.ErrExists) {
		t.Errorf("into what has data: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fill(ctx, "testdata/offen.tar.gz", ".", t.TempDir(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

// TestKilled goes on with what a kill left, whenever it came.
func TestKilled(t *testing.T) {
	testenv.Require(t, testenv.Root)
	file := packed(t, tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o750}, reg("a"), reg("b/c"))
	want := "drwxr-x--- . 0:0\n-rw-r--r-- a 0:0 1 \"a\"\ndrwxr-xr-x b 0:0\n-rw-r--r-- b/c 0:0 1 \"b/c\"\n"
	for name, left := range map[string]map[string]string{
		"at once":          {"lost+found/": ""},
		"while it writes":  {writing + "/a": "hal", writing + "/x": "", "lost+found/": ""},
		"before it rises":  {written + "/a": "a", written + "/b/c": "b/c"},
		"while it rises":   {written + "/b/c": "b/c", "a": "a"},
		"when it is risen": {written + "/": "", "a": "a", "b/c": "b/c"},
	} {
		dir := t.TempDir()
		for p, text := range left {
			err := os.MkdirAll(filepath.Dir(dir+"/"+p), 0o755)
			if err == nil && !strings.HasSuffix(p, "/") {
				err = os.WriteFile(dir+"/"+p, []byte(text), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = os.Chmod(dir+"/"+written, 0o750)
		}
		if s, err := Look(dir); err != nil || s == Full {
			t.Errorf("%s: state %v, %v", name, s, err)
		}
		if _, err := Fill(t.Context(), file, ".", dir, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = os.Remove(dir + "/lost+found")
		same(t, told(t, dir), want)
		if s, err := Look(dir); s != Full || err != nil {
			t.Errorf("%s: afterwards %v, %v", name, s, err)
		}
	}
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/"+writing, 0o700), os.WriteFile(dir+"/new", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if s, err := Look(dir); s != Full || err != nil {
		t.Errorf("a container wrote into what was not finished: %v, %v", s, err)
	}
}

// TestKilledAnywhere kills unpackings at any moment, and each goes on where the last one was.
func TestKilledAnywhere(t *testing.T) {
	testenv.Require(t, testenv.Root)
	if dir := os.Getenv("REMORA_TEST_UNPACK"); dir != "" {
		_, err := Fill(t.Context(), dir+"/a.tar.gz", "backup", dir+"/v", nil)
		if err != nil && !errors.Is(err, errdefs.ErrExists) {
			t.Fatal(err)
		}
		return
	}
	dir, want := t.TempDir(), t.TempDir()
	data := mustRead(t, "testdata/offen.tar.gz")
	err := errors.Join(os.WriteFile(dir+"/a.tar.gz", data, 0o600), os.Mkdir(dir+"/v", 0o755))
	if err == nil {
		_, err = Fill(t.Context(), "testdata/offen.tar.gz", "backup", want, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	seen := map[State]int{}
	for i := range 40 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAnywhere$")
		cmd.Env = append(os.Environ(), "REMORA_TEST_UNPACK="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i%20) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s, err := Look(dir + "/v")
		if err != nil {
			t.Fatal(err)
		}
		if seen[s]++; s != Full {
			continue
		}
		same(t, told(t, dir+"/v"), told(t, want)) // it was whole at once, and is emptied for the next
		if err := errors.Join(os.RemoveAll(dir+"/v"), os.Mkdir(dir+"/v", 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("states: %v", seen)
	if _, err := Fill(t.Context(), dir+"/a.tar.gz", "backup", dir+"/v", nil); err != nil {
		t.Fatal(err)
	}
	same(t, told(t, dir+"/v"), told(t, want))
}

func TestOneAtATime(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	var inner error
	_, err := Fill(t.Context(), "testdata/offen.tar.gz", ".", dir, func(int64, int64) {
		if inner == nil {
			_, inner = Fill(t.Context(), "testdata/offen.tar.gz", ".", dir, nil)
		}
	})
	if err != nil || !errors.Is(inner, errdefs.ErrInUse) {
		t.Errorf("%v, and beside it %v", err, inner)
	}
}

func FuzzFill(f *testing.F) {
	for _, name := range []string{"offen.tar.gz", "offen.tar.zst", "convoy.tar.gz"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(mustRead(f, packed(f, reg("a"), sym("l", "/etc"), reg("l/x"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := t.TempDir()
		dir := outer + "/v"
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // a bomb is no finding
		defer cancel()
		_, err := Fill(ctx, put(t, data), ".", dir, nil)
		if names, rerr := os.ReadDir(outer); rerr != nil || len(names) != 1 {
			t.Errorf("outside: %v, %v", names, rerr)
		}
		if s, lerr := Look(dir); err != nil && (s != Empty || lerr != nil) {
			t.Errorf("%v left state %v, %v", err, s, lerr)
		}
	})
}

func mustRead(f testing.TB, file string) []byte {
	data, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	return data
}
