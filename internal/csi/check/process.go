package check

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// process is one that listens at a socket, as /proc shows it.
type process int

func (p process) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(int(p)), name)
}

// name is what the process is called, "" if that cannot be told.
func (p process) name() string {
	text, err := os.ReadFile(p.path("comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// ownRoot reports whether the process has another root directory than this one.
func (p process) ownRoot() bool {
	theirs, err := os.Stat(p.path("root"))
	if err != nil {
		return false
	}
	ours, err := os.Stat("/")
	return err == nil && !os.SameFile(ours, theirs)
}

// defaultPath is what a process without PATH searches.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// finds reports whether the process finds a program.
func (p process) finds(program string) bool {
	search := defaultPath
	if env, err := os.ReadFile(p.path("environ")); err == nil {
		for pair := range bytes.SplitSeq(env, []byte{0}) {
			if value, ok := bytes.CutPrefix(pair, []byte("PATH=")); ok {
				search = string(value)
			}
		}
	}
	root, err := os.OpenRoot(p.path("root"))
	if err != nil {
		return false
	}
	defer func() { _ = root.Close() }()
	for _, dir := range filepath.SplitList(search) {
		// A link is not followed: in another root it may lead out of what can be opened here.
		info, err := root.Lstat(strings.TrimPrefix(filepath.Join("/", dir, program), "/"))
		if err == nil && (info.Mode()&os.ModeSymlink != 0 || info.Mode().IsRegular() && info.Mode()&0o111 != 0) {
			return true
		}
	}
	return false
}

// peers returns the peer group of the mount that a path is on as the process sees it, "" if it is in none
// (mount_namespaces(7)). It is the same number in every mount namespace of the kernel.
func (p process) peers(path string) (string, error) {
	f, err := os.Open(p.path("mountinfo"))
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	mounts, err := mountinfo.GetMountsFromReader(f, mountinfo.ParentsFilter(path))
	if err != nil {
		return "", err
	}
	at, group := "", ""
	for _, m := range mounts {
		if len(m.Mountpoint) < len(at) {
			continue
		}
		at, group = m.Mountpoint, ""
		for field := range strings.FieldsSeq(m.Optional) {
			if strings.HasPrefix(field, "shared:") {
				group = field
			}
		}
	}
	return group, nil
}

// sameMounts reports whether the process has the mount namespace that this one has.
func (p process) sameMounts() (bool, error) {
	theirs, err := os.Readlink(p.path("ns/mnt"))
	if err != nil {
		return false, err
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	return ours == theirs, err
}
