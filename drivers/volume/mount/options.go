package mount

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// kind says what the value of an option looks like.
type kind int

const (
	flag   kind = iota // stands alone
	value              // has a value
	file               // names a file below the pool's secrets; an absolute path wants the pool's leave
	unsafe             // has a value or not, and wants the pool's leave
)

// general are the options that every type takes (mount(8), FILESYSTEM-INDEPENDENT MOUNT
// OPTIONS). Left out are those by which mount(8) does something else, such as loop, and
// bind.
var general = byName(map[kind]string{
	flag:   `ro rw exec noexec nosuid nodev atime noatime relatime norelatime strictatime diratime nodiratime sync async dirsync`,
	unsafe: `suid dev`,
})

// ignored are words of fstab(5), which say when to mount and not how.
var ignored = []string{"", "defaults", "_netdev", "nofail", "auto", "noauto", "nouser"}

func byName(lists map[kind]string) map[string]kind {
	m := map[string]kind{}
	for k, list := range lists {
		for name := range strings.FieldsSeq(list) {
			m[name] = k
		}
	}
	return m
}

// kindOf returns the kind of an option of the type.
func (t fsType) kindOf(key string) (kind, bool) {
	if k, ok := t.options[key]; ok {
		return k, true
	}
	k, ok := general[key]
	return k, ok
}

// wantsLeave tells whether there is an option of any type that the pool may allow.
func wantsLeave(key string) bool {
	if key == "config" {
		return true
	}
	for _, t := range types {
		if k, ok := t.kindOf(key); ok && (k == unsafe || k == file) {
			return true
		}
	}
	return false
}

func errNoLeave(key string) error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "option %q: can run commands on this host, read its files or weaken it, and the pool does not allow it", key),
		fmt.Sprintf("whoever may change the configuration can allow it to all volumes of the pool: allow = [%q]", key))
}

// check returns options of the type, or says what is wrong with one of them. A flag has the
// value ""; one that is turned off has "false". A key in hushed is not shown.
func (t fsType) check(opts map[string]string, allow []string, hushed map[string]bool) (map[string]string, error) {
	out := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		val := opts[key]
		if slices.Contains(ignored, key) && val == "" {
			continue
		}
		k, ok := t.kindOf(key)
		if !ok {
			return nil, t.unknown(key, hushed)
		}
		invalid := func(format string, args ...any) error {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: "+format, append([]any{key}, args...)...)
		}
		switch {
		case hasControl(val):
			return nil, invalid("%q has a control character in it", val)
		case strings.Contains(val, ",") && !t.commas:
			return nil, invalid("%q has a comma in it, which would begin another", val)
		case strings.Contains(val, `"`) && !t.commas: // to mount(8) what follows would be a part of it, nosuid and nodev too
			return nil, invalid("%q has a quotation mark in it", val)
		case k == unsafe && !slices.Contains(allow, key):
			return nil, errNoLeave(key)
		case k == file && filepath.IsAbs(val) && !slices.Contains(allow, key):
			return nil, errNoLeave(key)
		case k == file && val != "" && !filepath.IsAbs(val) && !filepath.IsLocal(val):
			return nil, invalid("%q leads out of the pool's secrets", val)
		case (k == value || k == file) && val == "":
			return nil, invalid("has no value")
		case key == "errors" && t.block && val != "continue" && val != "remount-ro":
			return nil, invalid("%q is not one of continue, remount-ro", val)
		case k == flag:
			switch strings.ToLower(val) {
			case "", "true", "yes", "1":
				val = ""
			case "false", "no", "0":
				val = "false"
			default:
				return nil, invalid("%q is not true or false", val)
			}
		}
		out[key] = val
	}
	return out, nil
}

// unknown says that an option is none, which one was probably meant, and where it could
// have come from.
func (t fsType) unknown(key string, hushed map[string]bool) error {
	if hushed[key] {
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"o\": type %s does not know %s", t.name, shown(key, hushed))
	}
	names := slices.Concat(slices.Collect(maps.Keys(t.options)), slices.Collect(maps.Keys(general)))
	for _, k := range catalog.Describe[options]() {
		names = append(names, k.Name)
	}
	slices.Sort(names)
	near := catalog.Nearest(key, names)
	if t.name == "rclone" && strings.ContainsAny(key, "-_") && isSecret(key[strings.LastIndexAny(key, "-_")+1:]) {
		near = "password"
	}
	if near != "" {
		near = fmt.Sprintf(", did you mean %q?", near)
	}
	return errdefs.Errorf(errdefs.ErrInvalid, "unknown option %s of type %s%s", shown(key, nil), t.name, near)
}

// poolOptions returns the options that the pool gives to its type. It may give all that its
// volumes may not.
func (d *driver) poolOptions(t fsType) (map[string]string, error) {
	opts := map[string]string{}
	for _, item := range d.config.Options {
		key, val, _ := strings.Cut(item, "=")
		if isSecret(key) {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "a password goes into a file, and its path into \"password_file\"")
		}
		if _, twice := opts[key]; twice {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "%q is given twice", key)
		}
		opts[key] = val
	}
	var all []string
	for name, k := range t.options {
		if k == unsafe || k == file {
			all = append(all, name)
		}
	}
	return t.check(opts, append(all, "suid", "dev"), nil)
}

// opposites are flags of which the later one wins for mount(8), so that a default gives way
// to either.
var opposites = [][]string{
	{"ro", "rw"},
	{"soft", "hard", "softerr"},
	{"suid", "nosuid"},
	{"dev", "nodev"},
	{"exec", "noexec"},
	{"sync", "async"},
	{"vers", "nfsvers"},
}

// merge lays options over others.
func merge(below, above map[string]string) map[string]string {
	out := maps.Clone(below)
	if out == nil {
		out = map[string]string{}
	}
	for key := range above {
		for _, group := range opposites {
			if slices.Contains(group, key) {
				for _, other := range group {
					delete(out, other)
				}
			}
		}
	}
	maps.Copy(out, above)
	return out
}
