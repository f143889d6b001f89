package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// sample makes a tree with everything that a copy must keep.
func sample(t *testing.T) string {
	t.Helper()
	src := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(src+"/sub/empty", 0o700))
	write(t, src+"/file", "hello")
	must(os.Chmod(src+"/file", 0o640))
	must(os.Chown(src+"/file", 1234, 4321))
	must(unix.Setxattr(src+"/file", "user.note", []byte("kept"), 0))
	must(unix.Setxattr(src+"/file", "user.empty", nil, 0))
	must(unix.Setxattr(src+"/sub", "user.note", []byte("dir"), 0))
	must(os.Link(src+"/file", src+"/sub/hard"))
	must(os.Symlink("../file", src+"/sub/soft"))
	must(os.Symlink("/nowhere", src+"/dangling"))
	must(os.Lchown(src+"/dangling", 77, 88))
	write(t, src+"/suid", "x")
	must(os.Chown(src+"/suid", 5, 5))
	must(os.Chmod(src+"/suid", 0o755|os.ModeSetuid))
	must(unix.Mkfifo(src+"/pipe", 0o620))
	must(unix.Mknod(src+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(os.WriteFile(src+"/bi\nnary", slices.Repeat([]byte{0, 1, 2, 3}, 300<<10), 0o600))
	f, err := os.Create(src + "/sparse")
	must(err)
	_, err = f.WriteAt([]byte("middle"), 8<<20)
	must(err)
	must(f.Truncate(64 << 20))
	must(f.Close())
	must(os.Chmod(src+"/sub", 0o751|os.ModeSetgid))
	must(os.Chmod(src, 0o711))
	old := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	for _, path := range []string{"file", "suid", "sub/empty", "sub", "pipe", "sparse", ""} {
		must(os.Chtimes(filepath.Join(src, path), old, old))
	}
	return src
}

// describe returns one line for each file below dir.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	inodes := map[uint64]string{}
	var lines []string
	for _, path := range append([]string{"."}, tree(t, dir)...) {
		full := filepath.Join(dir, path)
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); err != nil {
			t.Fatal(err)
		}
		if inodes[st.Ino] == "" {
			inodes[st.Ino] = path
		}
		line := fmt.Sprintf("%q mode %o owner %d:%d links %d dev %x first %q", path, st.Mode, st.Uid, st.Gid, st.Nlink, st.Rdev, inodes[st.Ino])
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			line += fmt.Sprintf(" size %d sum %x sparse %v", st.Size, hash(read(t, full)), st.Blocks*512 < st.Size/2)
		case unix.S_IFLNK:
			to, err := os.Readlink(full)
			line += fmt.Sprintf(" to %s, %v", to, err)
		}
		if path != "." {
			line += fmt.Sprintf(" mtime %d.%d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			buf, val := make([]byte, 1000), make([]byte, 100)
			n, err := unix.Listxattr(full, buf)
			if err != nil {
				t.Fatal(err)
			}
			names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
			slices.Sort(names)
			for _, name := range names {
				n, err := unix.Getxattr(full, name, val)
				line += fmt.Sprintf(" %s=%q %v", name, val[:max(n, 0)], err)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func hash(s string) (h uint64) {
	for _, b := range []byte(s) {
		h = h*1099511628211 + uint64(b) + 1
	}
	return h
}

func TestCopyKeepsEverything(t *testing.T) {
	testenv.Require(t, testenv.Root)
	src := sample(t)
	want := describe(t, src)
	for name, pool := range map[string]string{"same file system": t.TempDir(), "another": tmpfs(t, "")} {
		t.Run(name, func(t *testing.T) {
			d := openPool(t, pool)
			err := d.Create(t.Context(), "data", opts("from="+src))
			if errors.Is(err, unix.ENOTSUP) {
				t.Skipf("deviates: this kernel keeps no user attributes there: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			got := describe(t, data(t, d, "data"))
			for i := range max(len(want), len(got)) {
				if i >= len(got) || i >= len(want) || got[i] != want[i] {
					t.Fatalf("copied\n%s\nas\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
				}
			}
			create(t, d, "owned", "from="+src, "uid=9", "mode=0700")
			var st unix.Stat_t
			if err := unix.Stat(data(t, d, "owned"), &st); err != nil || st.Uid != 9 || st.Mode&0o7777 != 0o700 {
				t.Errorf("options give mode %o, owner %d, %v", st.Mode&0o7777, st.Uid, err)
			}
		})
	}
}

func TestCopyWithoutKernelHelp(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/src", strings.Repeat("0123456789", 300<<10))
	src, err := os.Open(dir + "/src")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(dir+"/dst", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600) // copy_file_range(2) refuses O_APPEND
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if err := copyRange(t.Context(), int(src.Fd()), int(dst.Fd()), 0, 3000<<10); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir+"/dst"); got != read(t, dir+"/src") {
		t.Errorf("copied %d bytes, not the same", len(got))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyRange(ctx, int(src.Fd()), int(dst.Fd()), 0, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("copied after the caller gave up: %v", err)
	}
}

func TestCopyThatIsTooDeep(t *testing.T) {
	src, pool := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(src+strings.Repeat("/d", maxCopyDepth+1), 0o700); err != nil {
		t.Fatal(err)
	}
	d := openPool(t, pool)
	err := d.Create(t.Context(), "data", opts("from="+src))
	wantErr(t, err, errdefs.ErrInvalid, "more than 512 directories deep")
	if got := tree(t, pool); !slices.Equal(got, []string{pooldir.MarkerName}) {
		t.Errorf("left behind: %v", got)
	}
}
