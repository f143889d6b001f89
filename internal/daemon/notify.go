package daemon

import (
	"fmt"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notify tells systemd (sd_notify(3)). Without systemd, and where it cannot be told,
// the daemon works as well.
func notify(state string) {
	_, _ = systemd.SdNotify(false, state)
}

// monotonic is the time stamp that goes with RELOADING=1 (sd_notify(3)).
func monotonic() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return ""
	}
	return fmt.Sprintf("MONOTONIC_USEC=%d", ts.Nano()/1000)
}
