package mount

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// rcloneType is what the kernel's table of mounts has for rclone.
const rcloneType = "fuse.rclone"

// rcloneEnds waits for the rclone that served a mountpoint: unmounted already it writes down yet what its cache has.
func rcloneEnds(ctx context.Context, target string) error {
	pid := serving("rclone", target)
	for pid != 0 && serves(pid, "rclone", target) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return errdefs.Errorf(errdefs.ErrUnavailable, "rclone (process %d) has not ended: %w", pid, context.Cause(ctx))
		}
	}
	return nil
}

// serving returns the process of a program with a mountpoint among its arguments, 0 if there is none.
func serving(program, target string) int {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is a good one
	for _, path := range lines {
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && serves(pid, program, target) {
			return pid
		}
	}
	return 0
}

// serves looks only at what sees the mounts that this process sees: elsewhere the same path is another place.
func serves(pid int, program, target string) bool {
	dir := fmt.Sprintf("/proc/%d", pid)
	line, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return false
	}
	name, args, _ := strings.Cut(string(line), "\x00")
	if filepath.Base(name) != program || !strings.HasSuffix(args, "\x00"+target+"\x00") {
		return false
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	its, err := os.Readlink(dir + "/ns/mnt")
	return err == nil && its == own
}
