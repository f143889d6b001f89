package conn

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestServedBy(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, path := range []string{socket, "unix://" + socket} {
		if pid, err := ServedBy(t.Context(), path); pid != os.Getpid() || err != nil {
			t.Errorf("%s is served by %d, %v", path, pid, err)
		}
	}
	if _, err := ServedBy(t.Context(), socket+"x"); err == nil {
		t.Error("nobody serves what is not there")
	}
	if has, known := Capable(os.Getpid(), unix.CAP_SYS_ADMIN); !has || !known {
		t.Errorf("CAP_SYS_ADMIN: %v, %v", has, known)
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, known := Capable(cmd.Process.Pid, unix.CAP_SYS_ADMIN); known {
		t.Error("what a process has that is not there is known")
	}
}
