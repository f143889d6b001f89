package volume

import (
	"bytes"
	"os"
	"path"
	"strconv"
	"strings"
)

// mountEntry is one line of a mount table (proc_pid_mountinfo(5)).
type mountEntry struct {
	device string // major:minor
	root   string // the directory of the file system that is the root of this mount
	point  string // where it is mounted
}

// readMountinfo reads the mount table of a process; "self" is this one's.
func readMountinfo(process string) ([]mountEntry, error) {
	b, err := os.ReadFile("/proc/" + process + "/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountinfo(b), nil
}

// parseMountinfo returns the entries in the order of the table. Lines that have not the
// fields of a mount are passed over.
func parseMountinfo(table []byte) []mountEntry {
	entries := make([]mountEntry, 0, bytes.Count(table, []byte{'\n'}))
	for line := range strings.Lines(string(table)) {
		// 36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw
		f := strings.SplitN(line, " ", 6)
		if len(f) == 6 {
			entries = append(entries, mountEntry{f[2], unescape(f[3]), unescape(f[4])})
		}
	}
	return entries
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash
// (fs/proc_namespace.c: mangle).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// isMount tells whether something is mounted at p, whether it answers or not.
func isMount(p string) (bool, error) {
	entries, err := readMountinfo("self")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.point == p {
			return true, nil
		}
	}
	return false, nil
}

// locate finds the mount in which p lies, the last one where several are stacked, and
// p's directory within that file system.
func locate(entries []mountEntry, p string) (device, root string, ok bool) {
	best := -1
	for i, e := range entries {
		if within(p, e.point) && (best < 0 || len(e.point) >= len(entries[best].point)) {
			best = i
		}
	}
	if best < 0 {
		return "", "", false
	}
	e := entries[best]
	return e.device, path.Join(e.root, strings.TrimPrefix(p, e.point)), true
}

// within tells whether p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}
