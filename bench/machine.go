package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is the class of the machine: what somebody else needs to find one like it,
// and nothing that tells which one it was.
type Machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	MemoryGiB  int    `json:"memory_gib"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"`
	// Run is the file system of what stands for /run, where Remora's ledger of mounts lies.
	Run string `json:"run_file_system"`
	// FlushMicros is the median time to make a directory with a small file and to flush
	// first the file and then the directory's name, with nobody else at work.
	FlushMicros float64 `json:"flush_us"`
	Go          string  `json:"go"`
	Engine      string  `json:"engine,omitempty"`
	Commit      string  `json:"commit"`
	Date        string  `json:"date"`
	Helpers     string  `json:"helpers"`
}

// loopMajor is the major number of loop devices (Linux, Documentation/admin-guide/devices.txt).
const loopMajor = 7

const withoutJournal = "ext4 without a journal"

// fileSystems names those that a pool is likely to lie on (statfs(2)).
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs",
}

func lookAtMachine(scratch, run string) (Machine, error) {
	m := Machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version(), Date: time.Now().UTC().Format(time.DateOnly)}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				m.CPU = strings.TrimSpace(v)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	var uts unix.Utsname
	if err := errors.Join(unix.Sysinfo(&info), unix.Uname(&uts), os.MkdirAll(run, 0o700)); err != nil {
		return m, err
	}
	m.MemoryGiB = int((uint64(info.Totalram)*uint64(info.Unit) + 1<<29) >> 30)
	// Major, minor and patch; what follows is the name of somebody's build.
	m.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(uts.Release[:]), "-")
	var err1, err2 error
	m.FileSystem, err1 = fileSystemOf(scratch)
	m.Run, err2 = fileSystemOf(run)
	if err := errors.Join(err1, err2); err != nil {
		return m, err
	}
	m.Commit = said("git", "-C", "..", "describe", "--always", "--dirty", "--exclude=*")
	m.Helpers = said("go", "list", "-m", "-f", "{{.Version}}", "github.com/docker/go-plugins-helpers")
	var err error
	m.FlushMicros, err = flushTime(filepath.Join(scratch, "flush"))
	return m, err
}

func fileSystemOf(dir string) (string, error) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Statfs(dir, &fs), unix.Stat(dir, &st)); err != nil {
		return "", err
	}
	name := fileSystems[int64(fs.Type)]
	switch name {
	case "":
		return fmt.Sprintf("%#x", fs.Type), nil
	case "ext4":
		// One that has a journal has a thread for it, which shows itself here.
		device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
		journals, gerr := filepath.Glob("/proc/fs/jbd2/" + filepath.Base(device) + "-*")
		if err == nil && gerr == nil && len(journals) == 0 {
			name = withoutJournal
		} else if unix.Major(st.Dev) == loopMajor {
			name = "ext4 in a loop device"
		}
	}
	return name, nil
}

// said returns what a command prints, empty where it fails.
func said(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// flushTime is what the disk alone takes for what has to be on it when a volume exists.
func flushTime(dir string) (float64, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	parent, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer parent.Close()
	var took []time.Duration
	for i := range 200 {
		begin := time.Now()
		sub := fmt.Sprintf("%s/%d", dir, i)
		if err := os.Mkdir(sub, 0o755); err != nil {
			return 0, err
		}
		f, err := os.Create(sub + "/facts")
		if err != nil {
			return 0, err
		}
		_, err = f.Write(slices.Repeat([]byte{'x'}, 160))
		if err = errors.Join(err, f.Sync(), f.Close(), parent.Sync()); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin))
	}
	return quantile(micros(took), 0.5), nil
}
