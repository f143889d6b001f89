package mount

import (
	"maps"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type config struct {
	Type         string   `opt:"type" help:"type of the volumes that have none of their own"`
	Device       string   `opt:"device" help:"what is there already, and below which each volume without device has a directory of its own, made at its first mount"`
	Options      []string `opt:"options" help:"options of that type for all its volumes, as key or key=value, where a volume has none of its own"`
	Username     string   `opt:"username" help:"user at the server of device"`
	PasswordFile string   `opt:"password_file" help:"file with the password for device; an absolute path, or a name below secrets"`
	PasswordEnv  string   `opt:"password_env" help:"variable of the daemon's environment with the password for device"`
	Config       string   `opt:"config" help:"for rclone: its file with the remote of device; an absolute path, or a name below secrets"`
	Secrets      string   `opt:"secrets" help:"directory of passwords and files that volumes may name; without it secrets in the pool's own directory"`
	Allow        []string `opt:"allow" help:"options that volumes may have although they can run commands, read any file, or weaken the host"`
	AllowDevices bool     `opt:"allow_devices" default:"false" help:"volumes may be the block devices of this host"`
}

type options struct {
	Type         string         `opt:"type" help:"what mounts it: nfs, nfs4, cifs, smb3, glusterfs, ceph, ceph-fuse, davfs, s3fs, rclone, tmpfs, ext4 or xfs"`
	Device       string         `opt:"device" help:"what is mounted, as the type writes it: server:/path, //server/share, a URL, a bucket, remote:path"`
	O            string         `opt:"o" help:"options with commas between them, as key or key=value"`
	Username     string         `opt:"username" help:"user at the server, or the access key of a bucket"`
	Password     catalog.Secret `opt:"password" help:"password or secret key; kept in a file of its own, but engines show it to whoever inspects the volume"`
	PasswordFile string         `opt:"password_file" help:"file with the password; an absolute path, or a name below the pool's secrets"`
	PasswordEnv  string         `opt:"password_env" help:"variable of the daemon's environment with the password"`
	Config       string         `opt:"config" help:"for rclone: its file with the remote; a name below the pool's secrets, or with the pool's leave an absolute path"`
}

// request is what the options of a volume ask for.
type request struct {
	facts
	password string
}

// split reads the text of option "o" as Docker's driver local does, and takes the password
// out of it. hushed are the words that may be the rest of a password with a comma in it.
func split(o string) (opts map[string]string, password string, hushed map[string]bool, err error) {
	opts, hushed = map[string]string{}, map[string]bool{}
	secret := false
	for item := range strings.SplitSeq(o, ",") {
		key, val, hasVal := strings.Cut(strings.TrimSpace(item), "=")
		if key == "" && !hasVal {
			continue
		}
		if isSecret(key) {
			if password != "" {
				return nil, "", nil, errdefs.Errorf(errdefs.ErrInvalid, "option \"o\": there are two passwords in it")
			}
			password, secret = val, true
			continue
		}
		if secret {
			hushed[key] = true
		}
		if _, twice := opts[key]; twice {
			return nil, "", nil, errdefs.Errorf(errdefs.ErrInvalid, "option \"o\": %s is given twice", shown(key, hushed))
		}
		opts[key] = val
	}
	return opts, password, hushed, nil
}

// isSecret tells whether what stands behind a key must not be seen.
func isSecret(key string) bool {
	return slices.Contains([]string{"password", "pass", "passwd", "secret", "password2"}, strings.ToLower(key))
}

func shown(key string, hushed map[string]bool) string {
	if hushed[key] {
		return "what follows the password (one with a comma in it goes into the option \"password\")"
	}
	if len(key) > 80 {
		key = key[:80] + "…"
	}
	return `"` + strings.Trim(strings.ToValidUTF8(strings.Map(printable, key), "?"), `"`) + `"`
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '?'
	}
	return r
}

// decode reads the options of a volume and checks all that can be checked without the
// server.
func (d *driver) decode(name string, opts map[string]string) (request, error) {
	var r request
	own, rest := map[string]string{}, map[string]string{}
	for key, val := range opts {
		if isOwn(key) {
			own[key] = val
		} else {
			rest[key] = val
		}
	}
	o, err := catalog.DecodeOptions[options](own)
	if err != nil {
		return r, err
	}
	for key, val := range own {
		if key != "password" && hasControl(val) {
			return r, errdefs.Errorf(errdefs.ErrInvalid, "option %q has a control character in it", key)
		}
	}
	inO, password, hushed, err := split(o.O)
	if err != nil {
		return r, err
	}
	for key, val := range rest {
		if isSecret(key) {
			return r, errdefs.Errorf(errdefs.ErrInvalid, "unknown option %q, did you mean \"password\"?", key)
		}
		if _, twice := inO[key]; twice {
			return r, errdefs.Errorf(errdefs.ErrInvalid, "option %q is given twice, by itself and within \"o\"", key)
		}
		inO[key] = val
	}
	r.facts = facts{
		Name: name, Type: o.Type, Device: o.Device, Username: o.Username,
		PasswordFile: o.PasswordFile, PasswordEnv: o.PasswordEnv, Config: o.Config, Given: maps.Clone(opts),
	}
	delete(r.Given, "password")
	if r.password = o.Password.Reveal(); r.password != "" && password != "" {
		return r, errTwice("password", "o")
	}
	if password != "" {
		r.password, r.Given["o"] = password, without(o.O)
	}
	r.HasPassword = r.password != ""
	return r, d.complete(&r, inO, hushed)
}

// without returns the text of option "o" with no password in it.
func without(o string) string {
	var kept []string
	for item := range strings.SplitSeq(o, ",") {
		if key, _, _ := strings.Cut(strings.TrimSpace(item), "="); !isSecret(key) {
			kept = append(kept, item)
		}
	}
	return strings.Join(kept, ",")
}

func errTwice(a, b string) error {
	return errdefs.Errorf(errdefs.ErrInvalid, "options %q and %q say the same thing twice: leave one out", a, b)
}

func errNoDevices(typ string) error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "type %q mounts block devices of this host, and the pool does not allow it", typ),
		"whoever may change the configuration can allow it to all volumes of the pool: allow_devices = true")
}

func isOwn(key string) bool {
	return slices.ContainsFunc(catalog.Describe[options](), func(k catalog.Key) bool { return k.Name == key })
}

// complete fills in what the pool gives, and checks it all together.
func (d *driver) complete(r *request, opts map[string]string, hushed map[string]bool) error {
	if r.Type == "" {
		r.Type = d.config.Type
	}
	if r.Type == "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"type\" is missing (there are: %s)", strings.Join(typeNames(), ", "))
	}
	t, err := typeOf(r.Type)
	if err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"type\": %w", err)
	}
	if t.block && !d.config.AllowDevices {
		return errNoDevices(r.Type)
	}
	if err := r.fold(t, opts); err != nil {
		return err
	}
	if r.Options, err = t.check(opts, d.config.Allow, hushed); err != nil {
		return err
	}
	switch {
	case r.Device == "" && r.Type == d.config.Type && d.config.Device != "":
		r.Base = d.config.Device
		r.Device = t.join(r.Base, r.Name)
		if key := r.ownCredential(); key != "" {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: the server is that of the pool's device, and so is this; it goes with \"device\" alone", key)
		}
	case r.Device == "" && t.device != "":
		r.Device = t.device
	case r.Device == "":
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"device\" is missing: %s", t.form)
	}
	if addr, ok := r.Options["addr"]; ok && t.family == "nfs" { // Docker's spelling, where the kernel is asked without mount.nfs(8)
		delete(r.Options, "addr")
		if r.Base != "" {
			return errdefs.Errorf(errdefs.ErrInvalid, "option \"addr\": the server is that of the pool's device")
		}
		if r.Device, err = withAddress(r.Device, addr); err != nil {
			return err
		}
	}
	if _, err := t.parse(r.Device); err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"device\": %w", err)
	}
	return d.checkCredentials(t, *r)
}

// fold moves what a type calls by other names to where it is with all types.
func (r *request) fold(t fsType, opts map[string]string) error {
	for _, alias := range t.users {
		user, ok := opts[alias]
		if !ok {
			continue
		}
		delete(opts, alias)
		if r.Username != "" {
			return errTwice("username", alias)
		}
		r.Username = user
	}
	return nil
}

// ownCredential names an option that would have a volume of the pool's device reach another
// server, or as somebody else.
func (r *request) ownCredential() string {
	for key, given := range map[string]bool{
		"username": r.Username != "", "password": r.HasPassword, "password_file": r.PasswordFile != "",
		"password_env": r.PasswordEnv != "", "config": r.Config != "",
	} {
		if given {
			return key
		}
	}
	for _, key := range []string{"ip", "url", "endpoint", "port", "prefixpath", "servern", "mon_addr", "backup-volfile-servers", "mounthost", "mountaddr", "credentials", "cred"} {
		if _, ok := r.Options[key]; ok {
			return key
		}
	}
	for key := range r.Options {
		if name, _, _ := strings.Cut(key, "-"); r.Type == "rclone" && backends[name].options != nil {
			return key
		}
	}
	return ""
}

// checkCredentials refuses what is given twice, what the type does not take, and what can
// never work.
func (d *driver) checkCredentials(t fsType, r request) error {
	var passwords []string
	for _, p := range []struct {
		key   string
		given bool
	}{{"password", r.HasPassword}, {"password_file", r.PasswordFile != ""}, {"password_env", r.PasswordEnv != ""}} {
		if p.given {
			passwords = append(passwords, p.key)
		}
	}
	switch {
	case len(passwords) > 1:
		return errTwice(passwords[0], passwords[1])
	case len(passwords) > 0 && !t.credentials:
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q: type %s takes no password", passwords[0], r.Type)
	case r.Username != "" && !t.credentials:
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"username\": type %s takes no user", r.Type)
	case r.Config != "" && r.Type != "rclone":
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"config\": it is for type rclone alone")
	case hasControl(r.Username): // by another word for it
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"username\" has a control character in it")
	case strings.ContainsAny(r.Username, "\"\\"):
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"username\" has a quotation mark or backslash in it")
	case isAbs(r.Config) && !slices.Contains(d.config.Allow, "config"):
		return errNoLeave("config")
	}
	if r.HasPassword {
		if err := checkPassword(r.password); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "option \"password\": %w", err)
		}
	}
	for key, path := range map[string]string{"password_file": r.PasswordFile, "config": r.Config} {
		if _, err := remote.SecretPath(d.secrets, path); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: %w", key, err)
		}
	}
	if t.verify == nil {
		return nil
	}
	f := d.withPool(r.facts)
	if f.Type == d.config.Type {
		pool, err := d.poolOptions(t)
		if err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "key \"options\": %w", err)
		}
		f.Options = merge(pool, f.Options)
	}
	return t.verify(f)
}

// checkPassword refuses what no file of passwords can have in it.
func checkPassword(p string) error {
	switch {
	case p == "":
		return errdefs.Errorf(errdefs.ErrInvalid, "it is empty")
	case len(p) > 4096:
		return errdefs.Errorf(errdefs.ErrInvalid, "it has more than 4096 bytes")
	case hasControl(p):
		return errdefs.Errorf(errdefs.ErrInvalid, "it has more lines than one, or a control character in it")
	}
	return nil
}

func isAbs(path string) bool { return strings.HasPrefix(path, "/") }
