package sshfs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// errNoDirectory marks the answer of a server that has not the directory.
var errNoDirectory = errors.New("no such directory on the server")

// reason makes one line with a class of what ssh and sshfs told before they gave up.
func (d *driver) reason(f facts, s source, told string) error {
	has := func(texts ...string) bool {
		for _, text := range texts {
			if strings.Contains(told, text) {
				return true
			}
		}
		return false
	}
	server := s.server()
	fail := func(class error, format string, args ...any) error {
		return errdefs.Errorf(class, "%s: "+format, append([]any{server}, args...)...)
	}
	// What sshfs says of the directory, after all went well with ssh.
	ofPath := func(cause string) bool { return has(s.String() + ": " + cause) }
	switch {
	case has("REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key for "+s.lookup()+" has changed", "REVOKED HOST KEY"):
		err := fail(errdefs.ErrDenied, "its host key is not the one that is trusted: somebody may be in between")
		if f.Options["host_key"] != "" {
			return errdefs.Hint(err, "if the server was set up anew, remove the volume, which leaves the data, and create it with the new host_key")
		}
		return errdefs.Hint(err, fmt.Sprintf("if the server was set up anew, take the old key out and the new one in: ssh-keygen -R '%s' -f %s", s.lookup(), d.hostsFile(f)))
	case has("Host key verification failed", "host key is known for"):
		return errdefs.Hint(fail(errdefs.ErrDenied, "its host key is not known"),
			fmt.Sprintf("compare it with the server's own, and add it: %s >> %s", s.keyscan(), d.hostsFile(f)))
	case has("UNPROTECTED PRIVATE KEY FILE", "bad permissions"):
		return errdefs.Hint(fail(errdefs.ErrInvalid, "the identity file can be read by others, so ssh does not use it"), "chmod 600 on the file")
	case has("Permission denied ("):
		return errdefs.Hint(fail(errdefs.ErrDenied, "permission denied: the server does not take the %s", credential(d, f)),
			"try it by hand: "+byHand(s))
	case has("Too many authentication failures"):
		return errdefs.Hint(fail(errdefs.ErrDenied, "too many keys were refused"), "name the right one by identity_file")
	case ofPath("No such file or directory"):
		return fail(errdefs.As(errdefs.ErrInvalid, errNoDirectory), "no such directory: %s", s.path)
	case ofPath("Not a directory"):
		return fail(errdefs.ErrInvalid, "not a directory: %s", s.path)
	case ofPath("Permission denied"):
		return fail(errdefs.ErrDenied, "the user may not see the directory %s", s.path)
	case has("subsystem request failed", "Connection closed by remote host\nsubsystem"):
		return errdefs.Hint(fail(errdefs.ErrInvalid, "the server has no sftp"), "turn it on there (Subsystem sftp internal-sftp), or name the program by sftp_server")
	case has("Could not resolve hostname"):
		return errdefs.Hint(fail(errdefs.ErrUnavailable, "the name is not known to DNS"), "look for a slip in the name: getent hosts "+s.host)
	case has("Connection refused"):
		return errdefs.Hint(fail(errdefs.ErrUnavailable, "connection refused"), "start the SSH server there, or give the right port")
	case has("timed out"):
		return errdefs.Hint(fail(errdefs.ErrUnavailable, "no answer in time (connection timed out)"), "look whether the server is up, and a firewall in between")
	case has("No route to host", "Network is unreachable"):
		return fail(errdefs.ErrUnavailable, "there is no way to it: %s", line(told, "No route to host", "Network is unreachable"))
	case has("unknown option(s)"):
		return errdefs.Errorf(errdefs.ErrInvalid, "sshfs: %s", line(told, "unknown option(s)"))
	case has("command-line line 0:", "Bad configuration option", "keyword "):
		return errdefs.Errorf(errdefs.ErrInvalid, "ssh: %s", strings.TrimPrefix(line(told, "command-line", "Bad configuration option", "keyword "), "command-line line 0: "))
	case has("/dev/fuse", "fuse: device not found"):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "sshfs: %s", line(told, "fuse")), "load the kernel's module: modprobe fuse")
	}
	return fail(errdefs.ErrUnavailable, "%s", line(told, "ssh", "onnection", ": "))
}

// refused is about what the server did not do with a directory that is mounted.
func (d *driver) refused(f facts, what string, err error) error {
	class := errdefs.ErrUnavailable
	if errors.Is(err, os.ErrPermission) {
		class = errdefs.ErrDenied
	}
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err
	}
	return errdefs.Errorf(class, "%s: %s: %w", f.source().server(), what, err)
}

// line returns the first line that has one of the texts in it, else the last line that
// says anything.
func line(told string, texts ...string) string {
	for _, text := range texts {
		for l := range strings.Lines(told) {
			if l = strings.TrimSpace(l); strings.Contains(l, text) && l != "read: Connection reset by peer" {
				return l
			}
		}
	}
	return remote.LastLine(told)
}

// hostsFile is the file into which the volume's host key belongs.
func (d *driver) hostsFile(f facts) string {
	if path, err := remote.SecretPath(d.secrets, f.Options["known_hosts"]); err == nil && path != "" {
		return path
	}
	for key, val := range f.Options {
		if name, _ := canonical(key); name == "UserKnownHostsFile" {
			return strings.Trim(strings.Fields(val + " ?")[0], `"`)
		}
	}
	return d.knownHosts
}

// credential says what the server was shown.
func credential(d *driver, f facts) string {
	key, password := f.Options["identity_file"] != "", f.Password || f.Options["password_file"] != "" || f.Options["password_env"] != ""
	if f.Options["sshcmd"] == "" && !key && !password {
		key, password = d.config.IdentityFile != "", d.config.PasswordFile != "" || d.config.PasswordEnv != ""
	}
	switch {
	case key && password:
		return "key or the password"
	case password:
		return "password"
	case key:
		return "key"
	}
	return "keys of root, and none was named"
}

// byHand is the command with which a person can see what ssh says.
func byHand(s source) string {
	user := ""
	if s.user != "" {
		user = s.user + "@"
	}
	return fmt.Sprintf("ssh -p %d %s%s", s.port, user, s.host)
}
