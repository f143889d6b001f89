package mount

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// probeTime bounds the question whether there is a server at all. A mount that the kernel
// tries would take minutes to find out.
const probeTime = 3 * time.Second

// servers returns the addresses at which one of the servers must take a connection (TCP),
// none if that cannot be known.
func (t fsType) servers(j job) []string {
	switch t.family {
	case "rclone":
		return rcloneServers(j.f.Device, j.opts)
	case "s3fs":
		servers, _ := parseURL(j.opts["url"])
		return servers
	}
	servers, err := t.parse(j.f.Device)
	_, udp := j.opts["udp"]
	_, rdma := j.opts["rdma"]
	if err != nil || udp || rdma || slices.Contains([]string{"udp", "udp6", "rdma", "rdma6"}, j.opts["proto"]) {
		return nil
	}
	if host, ok := j.opts["ip"]; ok && t.family == "cifs" {
		servers = []string{net.JoinHostPort(host, "445")}
	}
	if port := j.opts["port"]; port != "" && port != "0" {
		for i, server := range servers {
			host, _, _ := net.SplitHostPort(server)
			servers[i] = net.JoinHostPort(host, port)
		}
	}
	for backup := range strings.SplitSeq(j.opts["backup-volfile-servers"], ":") {
		if backup != "" {
			servers = append(servers, net.JoinHostPort(backup, "24007"))
		}
	}
	return servers
}

// probe connects to all addresses at once. One that takes the connection is enough.
func probe(ctx context.Context, servers []string) error {
	if len(servers) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, probeTime, errdefs.Errorf(errdefs.ErrUnavailable, "no answer within %s", probeTime))
	defer cancel()
	answers := make(chan error, len(servers))
	for _, server := range servers {
		go func() {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", server)
			if err == nil {
				_ = c.Close()
			}
			answers <- err
		}()
	}
	var last error
	for range servers {
		select {
		case err := <-answers:
			if err == nil {
				return nil
			}
			last = err
		case <-ctx.Done():
			return errdefs.Errorf(errdefs.ErrUnavailable, "%s: %w", strings.Join(servers, ", "), context.Cause(ctx))
		}
	}
	cause := last
	hint := "look whether the server is up, and a firewall in between"
	if e, ok := errors.AsType[*net.DNSError](last); ok {
		cause, hint = errors.New("the name is not known to DNS"), "look for a slip in the name: getent hosts "+e.Name
	} else if e, ok := errors.AsType[syscall.Errno](last); ok {
		cause = e
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s: %w", strings.Join(servers, ", "), cause), hint)
}

// reasons are what programs say, by what it means.
var reasons = []struct {
	class error
	what  string
	texts []string
}{
	{errdefs.ErrUnsupported, "this kernel or host cannot mount it", []string{"unknown filesystem type", "No such device", "helper program", "fuse: device not found", "not configured in this kernel"}},
	{errdefs.ErrDenied, "the server denies it", []string{"ermission denied", "ccess denied", "access denied", "Unauthorized", "Forbidden", "authenticat", "LOGON_FAILURE", "error(13)", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"}},
	{errdefs.ErrInvalid, "there is no such directory", []string{"No such file or directory", "error(2)", "directory not found", "404 Not Found", "NoSuchBucket", "bucket not found", "No such bucket"}},
	{errdefs.ErrUnavailable, "the server cannot be reached", []string{"onnection refused", "timed out", "o route to host", "unreachable", "Host is down", "error(112)", "error(111)", "error(113)", "i/o timeout", "no such host", "could not resolve", "Could not resolve"}},
	{errdefs.ErrInvalid, "wrong options or not that type of file system", []string{"nvalid argument", "bad option", "wrong fs type", "nvalid option", "nknown option", "nrecognized", "unknown flag", "invalid value"}},
}

// failed makes one line with a class of what a program told before it gave up.
func (t fsType) failed(f facts, told string, err error) error {
	if !remote.Failed(err) {
		return err
	}
	class, what, said := errdefs.ErrUnavailable, "", remote.LastLine(told)
	for line := range strings.Lines(told) {
		if what != "" {
			break
		}
		for _, r := range reasons {
			if slices.ContainsFunc(r.texts, func(text string) bool { return strings.Contains(line, text) }) {
				class, what, said = r.class, r.what+": ", strings.TrimSpace(line)
				break
			}
		}
	}
	if len(said) > 300 {
		said = strings.ToValidUTF8(said[:300], "") + "…"
	}
	out := errdefs.Errorf(class, "%s: %s%s", f.Device, what, said)
	if errors.Is(class, errdefs.ErrUnsupported) {
		out = errdefs.Hint(out, "look whether the kernel knows it (/proc/filesystems, modprobe) and the package is installed: apt install "+t.pkg)
	}
	return toldError{out}
}

// toldError is an error that is errTold too.
type toldError struct{ error }

func (e toldError) Unwrap() error        { return e.error }
func (e toldError) Is(target error) bool { return target == errTold }

// settle waits for the process that served a mountpoint before to be through: davfs2 sends
// what is left when it is unmounted already. A file that one left that was killed, and that
// would keep it from mounting there ever again, is removed.
func settle(ctx context.Context, t fsType, target string) error {
	if t.family != "davfs" {
		return nil
	}
	path := filepath.Join("/run/mount.davfs", strings.ReplaceAll(strings.Trim(target, "/"), "/", "-")+".pid")
	late := time.NewTimer(mountLimit)
	defer late.Stop()
	for {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.Contains(string(line), "mount.davfs") || !strings.Contains(string(line), target) {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return errdefs.As(errdefs.ErrUnavailable, err)
			}
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-late.C:
			return errdefs.Errorf(errdefs.ErrUnavailable, "mount.davfs (process %d) still sends what was written", pid)
		case <-ctx.Done():
			return errdefs.Errorf(errdefs.ErrUnavailable, "mount.davfs (process %d) still sends what was written: %w", pid, context.Cause(ctx))
		}
	}
}
