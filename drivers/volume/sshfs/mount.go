package sshfs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// mark stands between what is mounted and the ID of the volume in the kernel's table of
// mounts.
const mark = "#remora:"

// idOf returns the ID of the volume that a mount is of.
func idOf(m mount.Info) (id string, ok bool) {
	if m.FSType != "fuse.sshfs" {
		return "", false
	}
	i := strings.LastIndex(m.Source, mark)
	if i < 0 {
		return "", false
	}
	return m.Source[i+len(mark):], true
}

// Mount has sshfs mount the directory at target, unless it is mounted there and answers.
// A mount whose sshfs has gone is replaced; one whose server does not answer is not, as
// sshfs comes back to it by itself.
func (d *driver) Mount(ctx context.Context, name, target string) (string, error) {
	f, err := d.facts(name)
	if err != nil {
		return "", err
	}
	if target == "" {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "sshfs has to mount, and there is no mountpoint")
	}
	for {
		m, ok, err := remote.At(target)
		if err != nil {
			return "", err
		}
		if !ok {
			break
		}
		if id, ours := idOf(m); !ours || id != f.ID {
			return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "something else is mounted at %s: %s", target, m.Source), "unmount it: umount "+target)
		}
		err = d.looks.At(ctx, target)
		if err == nil {
			return target, nil
		}
		if !errors.Is(err, remote.ErrDead) {
			return "", errdefs.Hint(fmt.Errorf("%s: %w", f.source().server(), err), "sshfs connects again by itself when the server is back")
		}
		d.log.WarnContext(ctx, "sshfs has ended, mounting again", "volume", name)
		if err := remote.Detach(target); err != nil {
			return "", err
		}
	}
	if err := d.attach(ctx, f, target); err != nil {
		return "", err
	}
	return target, nil
}

// attach mounts. A directory below the pool's base is made at its first mount.
func (d *driver) attach(ctx context.Context, f facts, target string) error {
	cmd, err := d.command(f)
	if err != nil {
		return err
	}
	err = d.sshfs(ctx, f, cmd, f.source(), target, f.ID)
	if !errors.Is(err, errNoDirectory) || f.Options["sshcmd"] != "" {
		return err
	}
	if err := d.makeDirectory(ctx, f, cmd); err != nil {
		return err
	}
	return d.sshfs(ctx, f, cmd, f.source(), target, f.ID)
}

// command makes all of the command but what is mounted where.
func (d *driver) command(f facts) (remote.Command, error) {
	own, rest := map[string]string{}, map[string]string{}
	for key, val := range f.Options {
		if isOwn(key) {
			own[key] = val
		} else {
			rest[key] = val
		}
	}
	o, err := catalog.DecodeOptions[options](own)
	if err != nil {
		return remote.Command{}, err
	}
	given, err := check(rest, d.allow)
	if err != nil {
		return remote.Command{}, err
	}
	opts := maps.Clone(defaults)
	maps.Copy(opts, d.options)
	maps.Copy(opts, given)
	password, err := d.password(f, o)
	if err != nil {
		return remote.Command{}, err
	}
	identity := o.IdentityFile
	if f.Options["sshcmd"] == "" && identity == "" && o.PasswordFile == "" && o.PasswordEnv == "" && !f.Password {
		identity = d.config.IdentityFile
	}
	if identity, err = remote.SecretPath(d.secrets, identity); err != nil {
		return remote.Command{}, err
	}
	if identity != "" {
		if _, err := os.Stat(identity); err != nil {
			return remote.Command{}, errdefs.Errorf(errdefs.ErrInvalid, "identity file: %w", err)
		}
		opts["IdentityFile"], opts["IdentitiesOnly"] = quote(identity), "yes"
	}
	if err := d.trust(f, o, opts); err != nil {
		return remote.Command{}, err
	}
	if password == nil {
		opts["BatchMode"] = "yes" // asks nobody for anything
	} else {
		opts["password_stdin"], opts["NumberOfPasswordPrompts"] = "", "1"
		if _, ok := opts["PubkeyAuthentication"]; !ok && opts["IdentityFile"] == "" {
			opts["PubkeyAuthentication"] = "no"
		}
	}
	// No file of options of some user's has a say; -v is for the errors of ssh, which sshfs
	// hides otherwise.
	cmd := remote.Command{Name: "sshfs", Args: []string{"-v", "-F", "none", "-p", strconv.FormatInt(f.Port, 10)}, Stdin: password, Limit: mountLimit}
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		if k := known[key]; k == flag && opts[key] == "false" {
			continue
		}
		cmd.Args = append(cmd.Args, "-o", option(key, opts[key]))
	}
	return cmd, nil
}

// defaults hold where neither the pool nor the volume says something else: a server that
// is gone is an error in seconds, and comes back by itself. Containers have users other
// than root.
var defaults = map[string]string{
	"reconnect": "", "allow_other": "", "ConnectTimeout": "10", "ServerAliveInterval": "5", "ServerAliveCountMax": "2",
	"TCPKeepAlive": "yes", "UpdateHostKeys": "no", "StrictHostKeyChecking": "yes",
}

// mountLimit bounds sshfs, with room for a second try below the engine's two minutes.
const mountLimit = 40 * time.Second

// option writes an option as libfuse reads it, for which a comma ends one.
func option(key, val string) string {
	if val == "" {
		return key
	}
	return key + "=" + strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(val)
}

// quote writes a path as ssh reads it in a file of options (ssh_config(5)): a space would
// begin the next, and a percent sign has a meaning.
func quote(path string) string {
	return `"` + strings.NewReplacer(`%`, `%%`, `\`, `\\`, `"`, `\"`).Replace(path) + `"`
}

// trust says which host keys are trusted.
func (d *driver) trust(f facts, o options, opts map[string]string) error {
	_, given := opts["UserKnownHostsFile"]
	switch hosts, err := remote.SecretPath(d.secrets, o.KnownHosts); {
	case err != nil:
		return err
	case o.HostKey != "":
		opts["UserKnownHostsFile"] = quote(d.store.Path(f.Name, hostsName))
		opts["GlobalKnownHostsFile"] = "none"
	case hosts != "":
		opts["UserKnownHostsFile"] = quote(hosts)
	case given:
	case opts["StrictHostKeyChecking"] == "no": // or a key that has changed would be refused all the same
		opts["UserKnownHostsFile"], opts["GlobalKnownHostsFile"] = "/dev/null", "none"
	default:
		opts["UserKnownHostsFile"] = quote(d.knownHosts)
	}
	return nil
}

// password returns the password, nil if there is none.
func (d *driver) password(f facts, o options) ([]byte, error) {
	file, env := o.PasswordFile, o.PasswordEnv
	if f.Options["sshcmd"] == "" && file == "" && env == "" && !f.Password && o.IdentityFile == "" {
		file, env = d.config.PasswordFile, d.config.PasswordEnv
	}
	var p []byte
	var err error
	what := "password"
	switch {
	case f.Password:
		p, err = d.store.ReadFile(f.Name, passwordName)
	case file != "":
		if file, err = remote.SecretPath(d.secrets, file); err == nil {
			p, err = remote.ReadSecret(file)
		}
		p = []byte(strings.TrimRight(string(p), "\r\n"))
		what = "password file"
	case env != "":
		val, ok := os.LookupEnv(env)
		if !ok {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "password: the daemon's environment has no %q", env)
		}
		p = []byte(val)
	default:
		return nil, nil
	}
	if err == nil {
		err = checkPassword(p)
	}
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s: %w", what, err)
	}
	return append(p, '\n'), nil
}

// sshfs runs it, and makes sure that what it mounted is there and answers.
func (d *driver) sshfs(ctx context.Context, f facts, cmd remote.Command, s source, target, id string) error {
	cmd.Args = append(slices.Clone(cmd.Args), "-o", option("fsname", s.String()+mark+id), "--", s.String(), target)
	told, err := cmd.Run(ctx)
	if err == nil {
		err = d.looks.At(ctx, target)
		if m, ok, merr := remote.At(target); err == nil && merr == nil {
			if got, _ := idOf(m); !ok || got != id {
				err = errdefs.Errorf(errdefs.ErrUnavailable, "sshfs has mounted nothing at %s", target)
			}
		}
		if err == nil {
			return nil
		}
	} else if remote.Failed(err) {
		err = d.reason(f, s, told)
	}
	// A killed sshfs may have mounted already.
	if m, ok, merr := remote.At(target); merr == nil && ok {
		if got, ours := idOf(m); ours && got == id {
			err = errors.Join(err, remote.Detach(target))
		}
	}
	return err
}

// makeDirectory makes the directory of a volume below the base, which is mounted for that
// moment at a place of its own.
func (d *driver) makeDirectory(ctx context.Context, f facts, cmd remote.Command) (err error) {
	done, err := d.store.Working()
	if err != nil {
		return state.Classify(err)
	}
	defer done()
	place, err := os.MkdirTemp(d.run, "base-")
	if err != nil {
		return state.Classify(err)
	}
	defer func() {
		if e := d.looks.Unmount(context.WithoutCancel(ctx), place); e != nil {
			_ = remote.Detach(place)
		}
		_ = os.Remove(place)
	}()
	base, name := f.source(), ""
	base.path, name = filepath.Split(base.path)
	if err := d.sshfs(ctx, f, cmd, base, place, filepath.Base(place)); err != nil {
		return err
	}
	made := make(chan error, 1)
	go func() { made <- os.Mkdir(filepath.Join(place, name), 0o755) }()
	select {
	case err = <-made:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	return d.refused(f, fmt.Sprintf("directory %s cannot be made", f.Path), err)
}

// sweepMounts takes away what a crash left of these moments.
func (d *driver) sweepMounts() error {
	entries, err := os.ReadDir(d.run)
	for _, e := range entries {
		place := filepath.Join(d.run, e.Name())
		if e := remote.Detach(place); e != nil {
			err = errors.Join(err, e)
			continue
		}
		if e := os.Remove(place); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Unmount takes away what is mounted at mountpoint, whether it answers or not.
func (d *driver) Unmount(ctx context.Context, _, mountpoint string) error {
	return d.looks.Unmount(ctx, mountpoint)
}
