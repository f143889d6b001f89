package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// fuseText is what is in the one file of the FUSE file system.
const fuseText = "of the FUSE daemon"

// startFUSE starts a daemon that serves a file system at a directory, as drivers do, unless one does.
func startFUSE(at string) {
	if data, err := os.ReadFile(at + "/file"); err == nil && string(data) == fuseText {
		return
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stdout, cmd.Stderr = []string{"REMORA_TEST_FUSE=" + at}, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
	for range 1000 {
		if data, err := os.ReadFile(at + "/file"); err == nil && string(data) == fuseText {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "the FUSE file system does not come")
	os.Exit(4)
}

// serveFUSE serves a directory with one file, until it is unmounted (fuse(4), linux/fuse.h).
func serveFUSE(at string) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Mount("test", at, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuse:", err)
		os.Exit(4)
	}
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return // unmounted
		}
		answer(fd, buf[:n])
	}
}

func answer(fd int, in []byte) {
	le := binary.NativeEndian
	op, unique, node := le.Uint32(in[4:]), le.Uint64(in[8:]), le.Uint64(in[16:])
	arg := in[40:]
	var out []byte
	var errno unix.Errno
	switch op {
	case 2, 36, 42: // FORGET, INTERRUPT, BATCH_FORGET: no answer
		return
	case 1: // LOOKUP
		if string(arg) == "file\x00" {
			out = append(make([]byte, 40), attr(2)...)
			le.PutUint64(out, 2)
		} else {
			errno = unix.ENOENT
		}
	case 3: // GETATTR
		out = append(make([]byte, 16), attr(node)...)
	case 14: // OPEN, past the cache
		out = make([]byte, 16)
		le.PutUint32(out[8:], 1)
	case 15: // READ
		from := min(int(le.Uint64(arg[8:])), len(fuseText))
		out = []byte(fuseText)[from:min(from+int(le.Uint32(arg[16:])), len(fuseText))]
	case 17: // STATFS
		out = make([]byte, 80)
	case 26: // INIT
		out = make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[20:], 64<<10)
	case 27: // OPENDIR
		out = make([]byte, 16)
	case 18, 25, 28, 29, 34, 38: // RELEASE, FLUSH, READDIR, RELEASEDIR, ACCESS, DESTROY
	default:
		errno = unix.ENOSYS
	}
	head := make([]byte, 16)
	le.PutUint32(head, uint32(16+len(out)))
	le.PutUint32(head[4:], uint32(-int32(errno)))
	le.PutUint64(head[8:], unique)
	_, _ = unix.Write(fd, append(head, out...))
}

func attr(node uint64) []byte {
	le := binary.NativeEndian
	out := make([]byte, 88)
	le.PutUint64(out, node)
	mode, size := uint32(unix.S_IFDIR|0o755), uint64(0)
	if node == 2 {
		mode, size = unix.S_IFREG|0o644, uint64(len(fuseText))
	}
	le.PutUint64(out[8:], size)
	le.PutUint32(out[60:], mode)
	le.PutUint32(out[64:], 1)
	return out
}
