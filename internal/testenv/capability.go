package testenv

import (
	"testing"

	"golang.org/x/sys/unix"
)

// NoResizeExt4 says why the kernel does not let this process grow an ext4 that is mounted, and
// nothing if it does.
func NoResizeExt4(t testing.TB) string {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	if data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		return ""
	}
	return "the kernel grows an ext4 that is mounted for CAP_SYS_RESOURCE alone, which this process lacks"
}
