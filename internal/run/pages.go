package run

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ForgetStart gives back the pages of this program's file that are mapped, most of which nothing but its start has used. They stay in
// the page cache, and what is used again is mapped again, at the cost of a fault.
func ForgetStart() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return err
	}
	for _, r := range unchanged(maps, exe) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.from, r.to-r.from, unix.MADV_DONTNEED); errno != 0 {
			return os.NewSyscallError("madvise", errno)
		}
	}
	return nil
}

type pages struct{ from, to uintptr }

// unchanged finds in the text of /proc/PID/smaps what a process has mapped of a file, cannot write, and has no page of its own in, as
// a debugger or the dynamic linker would make.
func unchanged(smaps []byte, file string) (list []pages) {
	var at pages
	candidate := false
	for sc := bufio.NewScanner(bytes.NewReader(smaps)); sc.Scan(); {
		line := sc.Text()
		var one pages
		var perms string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &one.from, &one.to, &perms); n == 3 {
			at = one
			candidate = strings.HasPrefix(perms, "r-") && strings.HasSuffix(perms, "p") && strings.HasSuffix(line, " "+file)
			continue
		}
		switch f := strings.Fields(line); {
		case !candidate || len(f) < 2:
		case f[0] == "Anonymous:":
			if candidate = false; f[1] == "0" {
				list = append(list, at)
			}
		}
	}
	return list
}
