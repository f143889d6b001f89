package block

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Config is the keys that the pools of all providers have. A provider embeds it in its own.
type Config struct {
	Namespace string        `opt:"namespace" default:"remora" help:"which volumes of the account are this pool's: hosts with the same namespace share their volumes"`
	Size      catalog.Bytes `opt:"size" default:"16g" help:"size of a volume that is made without one"`
	FS        string        `opt:"fs" enum:"ext4,xfs,btrfs" default:"ext4" help:"file system of a volume that is made without one"`
	Mount     []string      `opt:"mount_options" help:"mount options of every volume, such as noatime; those that its file system does not know are left out"`
	Detach    time.Duration `opt:"detach_after" default:"10s" help:"how long a disk stays attached after its last unmount, in case it is mounted again"`
	Wait      time.Duration `opt:"wait" default:"20s" help:"how long a mount waits for another host to let go of the disk before it is refused"`
	Preempt   string        `opt:"preempt" enum:"never,dead,always" default:"never" help:"whether a mount takes a disk from another host: never, from one that the cloud says is stopped or gone, or always, which loses what that host has not written"`
	Refresh   time.Duration `opt:"cloud_refresh" default:"5m" help:"how often the volumes of the account are listed to see what other hosts made and removed"`
	Rate      int           `opt:"rate" default:"10" help:"requests a second at the most to the account, of all pools that use it; bursts may be five times as many"`
	Dev       string        `opt:"dev" default:"/dev" help:"where the host's devices are, for a daemon in a container"`
	Sys       string        `opt:"sys" default:"/sys" help:"where the host's sysfs is, for a daemon in a container"`
}

var namespaceForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// check refuses what tags cannot say.
func (c Config) check(t Traits) error {
	if !namespaceForm.MatchString(c.Namespace) {
		return errdefs.Errorf(errdefs.ErrInvalid, "namespace %q: want up to 63 letters, digits, dots, dashes and underscores", c.Namespace)
	}
	for key, d := range map[string]time.Duration{"detach_after": c.Detach, "wait": c.Wait} {
		if d < 0 {
			return errdefs.Errorf(errdefs.ErrInvalid, "%s: %s is below nothing", key, d)
		}
	}
	if c.Refresh < time.Second {
		return errdefs.Errorf(errdefs.ErrInvalid, "cloud_refresh: %s is less than a second", c.Refresh)
	}
	if c.Rate < 1 {
		return errdefs.Errorf(errdefs.ErrInvalid, "rate: %d is less than one request a second", c.Rate)
	}
	for key, dir := range map[string]string{"dev": c.Dev, "sys": c.Sys} {
		if !filepath.IsAbs(dir) {
			return errdefs.Errorf(errdefs.ErrInvalid, "%s: %q is not an absolute path", key, dir)
		}
	}
	for _, option := range c.Mount {
		if !slices.ContainsFunc([]string{"ext4", "xfs", "btrfs"}, func(k string) bool { return kinds[k].Takes(option) }) {
			return errdefs.Errorf(errdefs.ErrInvalid, "mount_options: %q is not allowed for any file system", option)
		}
	}
	_, err := t.round(int64(c.Size))
	return err
}

// options is what "-o" may say of a volume of any provider.
type options struct {
	Size  *catalog.Bytes `opt:"size" help:"size of the disk, made larger by a resize and never smaller; a number alone is GiB"`
	FS    *string        `opt:"fs" enum:"ext4,xfs,btrfs" help:"file system that is made when the volume is first mounted"`
	Mount []string       `opt:"mount_options" help:"mount options, after those of the pool"`
	catalog.Owner
	Type       *string `opt:"type" help:"type of the disk, as the cloud calls it"`
	IOPS       *int64  `opt:"iops" help:"operations a second that are paid for"`
	Throughput *int64  `opt:"throughput" help:"MiB a second that are paid for"`
	Zone       *string `opt:"zone" help:"zone of the disk; without it that of the host"`
	Encrypted  *bool   `opt:"encrypted" help:"whether the cloud encrypts the disk"`
	KMSKey     *string `opt:"kms_key" help:"key with which the cloud encrypts the disk"`
	Snapshot   *string `opt:"snapshot" help:"snapshot of the cloud, by its ID, with whose data the volume begins"`
}

// common are the options that need nothing of a provider.
var common = []string{"size", "fs", "mount_options", "uid", "gid", "mode"}

// aliases are how REX-Ray, Convoy and Portworx spell options, in lower case.
var aliases = map[string]string{
	"volumetype": "type", "availabilityzone": "zone", "fstype": "fs", "snapshotid": "snapshot",
	"encryptionkey": "kms_key", "kmskeyid": "kms_key", "kmskey": "kms_key", "filesystem": "fs",
	"mountoptions": "mount_options", "mountopts": "mount_options", "filemode": "mode", "multiattach": "multi_attach", "multiattachenabled": "multi_attach",
}

// Options describes the options of a provider for [catalog.Volume.WithOptions]: what all have,
// those of names, and its own. Keys are read in any case, and in the spelling of REX-Ray too.
func Options(t Traits) []catalog.Key {
	var keys []catalog.Key
	for _, k := range catalog.Describe[options]() {
		if slices.Contains(common, k.Name) || slices.Contains(t.Options, k.Name) {
			keys = append(keys, k)
		}
	}
	return append(keys, t.Extra...)
}

// asked is what the options of a volume come to.
type asked struct {
	options
	extra map[string]string
	// plain is as they were given, by their own names.
	plain map[string]string
}

// decode reads the options of a volume.
func (t Traits) decode(opts map[string]string) (asked, error) {
	a := asked{extra: map[string]string{}, plain: map[string]string{}}
	keys := Options(t)
	rest := map[string]string{}
	for given, value := range opts {
		key := strings.ToLower(given)
		if to, ok := aliases[key]; ok {
			key = to
		}
		i := slices.IndexFunc(keys, func(k catalog.Key) bool { return k.Name == key })
		if i < 0 {
			names := make([]string, len(keys))
			for i, k := range keys {
				names[i] = k.Name
			}
			return a, t.unknown(given, key, names)
		}
		if was, twice := a.plain[key]; twice && was != value {
			return a, errdefs.Errorf(errdefs.ErrInvalid, "option %q is given twice, in two spellings", key)
		}
		if len(value) > 255 {
			return a, errdefs.Errorf(errdefs.ErrInvalid, "option %q: more than 255 bytes", key)
		}
		a.plain[key] = value
		if i >= len(keys)-len(t.Extra) {
			a.extra[key] = value
		} else {
			rest[key] = value
		}
	}
	if size, ok := rest["size"]; ok && size != "" && strings.Trim(size, "0123456789") == "" {
		rest["size"] = size + "g" // as REX-Ray, whose users have it in their compose files
	}
	o, err := catalog.DecodeOptions[options](rest)
	a.options = o
	return a, err
}

// unknown says whether the option is one that other providers have.
func (t Traits) unknown(given, key string, names []string) error {
	for _, k := range catalog.Describe[options]() {
		if k.Name == key {
			err := errdefs.Errorf(errdefs.ErrInvalid, "option %q: %s has nothing of the kind", given, t.Kind)
			return errdefs.Hint(err, "leave it out; there are: "+strings.Join(slices.Sorted(slices.Values(names)), ", "))
		}
	}
	if near := catalog.Nearest(key, slices.Collect(maps.Keys(aliases))); near != "" && slices.Contains(names, aliases[near]) && catalog.Nearest(key, names) == "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "unknown option %q, did you mean %q? (there are: %s)", given, aliases[near], strings.Join(slices.Sorted(slices.Values(names)), ", "))
	}
	return catalog.Unknown("option", given, names)
}

// round makes a size one that a disk can have.
func (t Traits) round(size int64) (int64, error) {
	unit := max(t.Unit, 4096)
	size = (size + unit - 1) / unit * unit
	if size < t.MinSize {
		return 0, errdefs.Errorf(errdefs.ErrInvalid, "size %s: the smallest disk of %s has %s", catalog.Bytes(size), t.Kind, catalog.Bytes(t.MinSize))
	}
	if t.MaxSize > 0 && size > t.MaxSize {
		return 0, errdefs.Errorf(errdefs.ErrInvalid, "size %s: the largest disk of %s has %s", catalog.Bytes(size), t.Kind, catalog.Bytes(t.MaxSize))
	}
	return size, nil
}
