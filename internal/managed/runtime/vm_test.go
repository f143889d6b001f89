package runtime

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
)

// TestVMUnified runs plugins on a host with control groups of the second version alone, and with a kernel that does not
// keep the exit status of a process for others than its parent.
func TestVMUnified(t *testing.T) {
	testenv.Require(t, testenv.VM)
	if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	t.Run("exit status", func(t *testing.T) {
		l := newLab(t)
		r := l.open(t)
		p := l.plugin(t, "exit:latest")
		noErr(t, r.Start(t.Context(), p))
		for code := range 5 {
			_, _ = l.caller("exit").call(t.Context(), fmt.Sprintf("exit?code=%d", code))
			until(t, "a restart", func() bool { s := r.State(p.ID); return s.Restarts == code+1 && s.Status == Running })
			t.Log(r.State(p.ID).Last)
		}
	})
	for _, tt := range []struct {
		name string
		test func(*testing.T)
	}{
		{"start and stop", TestStartAndStop},
		{"busy", TestStopBusy},
		{"stubborn", TestStubborn},
		{"exec and top", TestExecAndTop},
		{"adopt", TestAdopt},
		{"held", TestHeld},
		{"output", TestOutputBounded},
		{"killed", TestKilled},
	} {
		t.Run(tt.name, tt.test)
	}
}
