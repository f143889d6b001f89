package sshfs

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type config struct {
	Base         string   `opt:"base" help:"user@host:/path of a directory that exists, below which each volume without sshcmd has one of its own, made at its first mount"`
	Port         int64    `opt:"port" default:"22" help:"port of the server of base"`
	IdentityFile string   `opt:"identity_file" help:"private key for base; an absolute path, or a name below secrets"`
	PasswordFile string   `opt:"password_file" help:"file with the password for base; an absolute path, or a name below secrets"`
	PasswordEnv  string   `opt:"password_env" help:"variable of the daemon's environment with the password for base"`
	KnownHosts   string   `opt:"known_hosts" help:"absolute path of the file of host keys that are trusted; without it known_hosts in the pool's own directory"`
	Secrets      string   `opt:"secrets" help:"directory of keys and passwords that volumes may name; without it secrets in the pool's own directory"`
	Options      []string `opt:"options" help:"sshfs and ssh options for all volumes, as key or key=value, where a volume has none of its own"`
	Allow        []string `opt:"allow" help:"options that volumes may have although they can run commands or weaken the host"`
}

type options struct {
	SSHCmd       string         `opt:"sshcmd" help:"user@host:/path of the directory; required in a pool without base"`
	Port         *int64         `opt:"port" help:"port of the server, 22 if not given"`
	Password     catalog.Secret `opt:"password" help:"the password; kept in a file of its own, but engines show it to whoever inspects the volume"`
	PasswordFile string         `opt:"password_file" help:"file with the password; an absolute path, or a name below the pool's secrets"`
	PasswordEnv  string         `opt:"password_env" help:"variable of the daemon's environment with the password"`
	IdentityFile string         `opt:"identity_file" help:"private key without passphrase; an absolute path, or a name below the pool's secrets"`
	KnownHosts   string         `opt:"known_hosts" help:"file of host keys that are trusted instead of the pool's; an absolute path, or a name below the pool's secrets"`
	HostKey      string         `opt:"host_key" help:"the one host key that is trusted, such as ssh-ed25519 AAAA…"`
}

// request is what the options of a volume ask for.
type request struct {
	options
	source source
	mount  map[string]string // options of sshfs and ssh
	given  map[string]string // all options as they were given, but for the password
}

// maxPassword is what sshfs reads of a password, in bytes (sshfs.c: MAX_PASSWORD).
const maxPassword = 1023

// decode reads the options of a volume and checks all that can be checked without the
// server.
func (d *driver) decode(name string, opts map[string]string) (request, error) {
	var r request
	own, rest := map[string]string{}, map[string]string{}
	for key, value := range opts {
		if isOwn(key) {
			own[key] = value
		} else {
			rest[key] = value
		}
	}
	var err error
	if r.mount, err = check(rest, d.allow); err != nil {
		return r, err
	}
	if r.options, err = catalog.DecodeOptions[options](own); err != nil {
		return r, err
	}
	r.given = maps.Clone(opts)
	delete(r.given, "password")
	for key, value := range own {
		if key != "password" && strings.ContainsFunc(value, isControl) {
			return r, errdefs.Errorf(errdefs.ErrInvalid, "option %q: %q has a control character in it", key, value)
		}
	}
	if err := d.checkTarget(&r, name); err != nil {
		return r, err
	}
	return r, d.checkCredentials(r)
}

func isOwn(key string) bool {
	return slices.ContainsFunc(catalog.Describe[options](), func(k catalog.Key) bool { return k.Name == key })
}

// checkTarget finds out where the volume lies. The pool's base is the administrator's: a
// volume below it has that server, and the trust in it, as the pool has them.
func (d *driver) checkTarget(r *request, name string) (err error) {
	if r.SSHCmd != "" {
		if r.source, err = parseSource(r.SSHCmd); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "option \"sshcmd\": %w", err)
		}
		r.source.port = 22
		if r.Port != nil {
			r.source.port = *r.Port
		}
		return checkPort("option", r.source.port)
	}
	if d.base == nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"sshcmd\" is missing: user@host:/path of the directory")
	}
	for _, key := range []string{"port", "known_hosts", "host_key", "UserKnownHostsFile", "GlobalKnownHostsFile", "StrictHostKeyChecking", "VerifyHostKeyDNS", "HostKeyAlias"} {
		_, other := r.mount[key]
		if _, own := r.given[key]; own || other {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: the server is that of the pool's base, and so is this; it goes with \"sshcmd\" alone", key)
		}
	}
	r.source = *d.base
	r.source.path = strings.TrimSuffix(r.source.path, "/") + "/" + name
	return nil
}

func checkPort(noun string, port int64) error {
	if port < 1 || port > 65535 {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s \"port\": %q is not a number from 1 to 65535", noun, strconv.FormatInt(port, 10))
	}
	return nil
}

// checkCredentials refuses what is given twice, and what can never work.
func (d *driver) checkCredentials(r request) error {
	both := func(a, b string) error {
		return errdefs.Errorf(errdefs.ErrInvalid, "options %q and %q say the same thing twice: leave one out", a, b)
	}
	var passwords []string
	for _, key := range []string{"password_file", "password_env"} {
		if r.given[key] != "" {
			passwords = append(passwords, key)
		}
	}
	if p := r.Password.Reveal(); p != "" {
		passwords = append([]string{"password"}, passwords...)
		if err := checkPassword([]byte(p)); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "option \"password\": %w", err)
		}
	}
	_, connections := r.mount["max_conns"]
	_, identity := r.mount["IdentityFile"]
	_, hosts := r.mount["UserKnownHostsFile"]
	switch {
	case len(passwords) > 1:
		return both(passwords[0], passwords[1])
	case len(passwords) > 0 && connections:
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"max_conns\": sshfs can have more connections than one only without a password")
	case identity && r.IdentityFile != "":
		return both("identity_file", "IdentityFile")
	case hosts && r.KnownHosts != "":
		return both("known_hosts", "UserKnownHostsFile")
	case r.HostKey != "" && (hosts || r.KnownHosts != ""):
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"host_key\": there are files of host keys among the options too: leave one out")
	case r.HostKey != "":
		if _, err := knownHost(r.source, r.HostKey); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "option \"host_key\": %w", err)
		}
	}
	for _, key := range []string{"password_file", "identity_file", "known_hosts"} {
		if _, err := remote.SecretPath(d.secrets, r.given[key]); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: %w", key, err)
		}
	}
	return nil
}

// checkPassword refuses what sshfs would cut off.
func checkPassword(p []byte) error {
	switch {
	case len(p) == 0:
		return errdefs.Errorf(errdefs.ErrInvalid, "it is empty")
	case len(p) > maxPassword:
		return errdefs.Errorf(errdefs.ErrInvalid, "it has more than %d bytes, which sshfs does not take", maxPassword)
	case strings.ContainsAny(string(p), "\n\r\x00"):
		return errdefs.Errorf(errdefs.ErrInvalid, "it has more lines than one")
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
