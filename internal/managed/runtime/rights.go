package runtime

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// capabilityNames are in the order of their numbers (linux/capability.h).
var capabilityNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// maxNamed is how many capabilities an error names.
const maxNamed = 3

// checkRights refuses what would fail in runc by a system call that nobody understands: a plugin is given rights, and
// a service that is kept from them cannot give them. status is the text of proc_pid_status(5).
func checkRights(s *specs.Spec, status string) error {
	_, after, ok := strings.Cut(status, "\nCapPrm:")
	fields := strings.Fields(after)
	if !ok || len(fields) == 0 {
		return nil
	}
	have, err := strconv.ParseUint(fields[0], 16, 64)
	if err != nil {
		return nil //nolint:nilerr // runc will tell
	}
	want := slices.Clone(s.Process.Capabilities.Bounding)
	if slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace }) {
		want = append(want, "CAP_NET_ADMIN") // for its loopback interface
	}
	var missing []string
	for number, name := range capabilityNames {
		if have&(1<<number) == 0 && slices.Contains(want, "CAP_"+name) {
			missing = append(missing, "CAP_"+name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	named := strings.Join(missing[:min(len(missing), maxNamed)], ", ")
	if more := len(missing) - maxNamed; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "the daemon lacks %s, which it would have to give to the plugin", named),
		"The service of the daemon keeps them from it: see \"With managed plugins\" in docs/guide/install.md.")
}

// ownStatus is what the kernel says of this process.
func ownStatus() string {
	data, _ := os.ReadFile("/proc/self/status")
	return string(data)
}
