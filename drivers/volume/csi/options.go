package csi

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// options is what "-o" may say of a volume.
type options struct {
	Size      *catalog.Bytes `opt:"size" help:"size of the volume; a number alone is GiB"`
	Limit     *catalog.Bytes `opt:"limit" help:"size that it may have at the most, where the storage rounds up; a number alone is GiB"`
	FS        *string        `opt:"fs" help:"file system, such as ext4 or xfs"`
	Access    *string        `opt:"access" enum:"rw-single,ro-single,rw-many,ro-many,one-writer-many-readers,rw-one-container" help:"who may use it: one host or many, to write or to read"`
	ReadOnly  bool           `opt:"readonly" help:"whether it is mounted to be read alone"`
	Mount     []string       `opt:"mount_options" help:"mount options, after those of the pool"`
	GID       *uint32        `opt:"gid" help:"group that may write to it"`
	Subdir    *string        `opt:"subdir" help:"directory of the volume that containers get, made where it is missing, such as data"`
	Snapshot  *string        `opt:"snapshot" help:"snapshot of the storage, by its ID, with whose data the volume begins"`
	Zone      *string        `opt:"zone" help:"zone in which it is made, where the CSI driver has zones"`
	Reclaim   *string        `opt:"reclaim" enum:"delete,retain" help:"whether it is deleted from the storage when it is removed, or only forgotten"`
	Detach    *time.Duration `opt:"detach_after" help:"how long it stays attached, or mounted, after its last unmount"`
	VolumeID  *string        `opt:"volume_id" help:"ID of a volume that the storage has already: it is used, and never deleted"`
	ExactName bool           `opt:"exact_name" help:"tell the storage the name as it is, to find a volume that another program made; it is never deleted"`
}

// prefixes are the options whose keys are the CSI driver's own, by what they begin with.
var prefixes = []catalog.Key{
	{Name: "param.KEY", Type: "text", Help: "parameter KEY of the CSI driver, as its own page has them"},
	{Name: "mutable.KEY", Type: "text", Help: "parameter KEY of those that can be changed later"},
	{Name: "snapparam.KEY", Type: "text", Help: "parameter KEY of the snapshots of the volume"},
	{Name: "topology.KEY", Type: "text", Help: "where it is made, such as topology.topology.kubernetes.io/zone=eu-west-1a"},
	{Name: "context.KEY", Type: "text", Help: "with volume_id: what the CSI driver has to know of that volume"},
}

func describe() []catalog.Key { return append(catalog.Describe[options](), prefixes...) }

// aliases are how REX-Ray, Swarm and the CSI drivers' own pages spell options. Keys are in lower case, with "_" for "-".
var aliases = map[string]string{
	"fstype": "fs", "fs_type": "fs", "filesystem": "fs", "csi.storage.k8s.io/fstype": "fs",
	"mountoptions": "mount_options", "mountopts": "mount_options", "mountflags": "mount_options", "mount_flags": "mount_options",
	"ro": "readonly", "read_only": "readonly", "linger": "detach_after", "volumeid": "volume_id", "exactname": "exact_name",
	"from_snapshot": "snapshot", "snapshotid": "snapshot", "snapshot_id": "snapshot",
	"availabilityzone": "zone", "availability_zone": "zone", "required_bytes": "size", "limit_bytes": "limit",
	"volumetype": "param.type", "type": "param.type", "volumetype/type": "param.type", "iops": "param.iops", "throughput": "param.throughput",
	"encrypted": "param.encrypted", "encryptionkey": "param.kmsKeyId", "kmskeyid": "param.kmsKeyId",
}

// secretPrefix begins what is not to be an option: an engine keeps options in clear and shows them.
const secretPrefix = "secret."

// asked is what the options of a volume come to.
type asked struct {
	options
	parameters, mutable, snapshots, topology, context map[string]string
	// plain is as they were given, by their own names.
	plain map[string]string
}

// decode reads the options of a volume.
func decode(opts map[string]string) (asked, error) {
	a := asked{
		parameters: map[string]string{}, mutable: map[string]string{}, snapshots: map[string]string{},
		topology: map[string]string{}, context: map[string]string{}, plain: map[string]string{},
	}
	tables := map[string]map[string]string{"param": a.parameters, "mutable": a.mutable, "snapparam": a.snapshots, "topology": a.topology, "context": a.context}
	keys := catalog.Describe[options]()
	rest := map[string]string{}
	for _, given := range slices.Sorted(maps.Keys(opts)) {
		value, key := opts[given], plainKey(given)
		if was, twice := a.plain[key]; twice && was != value {
			return a, errdefs.Errorf(errdefs.ErrInvalid, "option %q is given twice, in two spellings", key)
		}
		a.plain[key] = value
		if strings.HasPrefix(key, secretPrefix) {
			return a, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "option %q: a secret is no option, since the engine shows them to everybody", given),
				`put it in the pool: secrets = { `+key[len(secretPrefix):]+` = "file:/PATH" }`)
		}
		if kind, name, ok := strings.Cut(key, "."); ok && tables[kind] != nil {
			if name == "" || strings.ContainsRune(value, 0) {
				return a, errdefs.Errorf(errdefs.ErrInvalid, "option %q: want %s.KEY=VALUE", given, kind)
			}
			tables[kind][name] = value
			continue
		}
		if !slices.ContainsFunc(keys, func(k catalog.Key) bool { return k.Name == key }) {
			return a, unknownOption(given, key, keys)
		}
		rest[key] = value
	}
	for _, key := range []string{"size", "limit"} {
		if v, ok := rest[key]; ok && v != "" && strings.Trim(v, "0123456789") == "" {
			rest[key] = gib(v)
		}
	}
	o, err := catalog.DecodeOptions[options](rest)
	a.options = o
	if err != nil {
		return a, err
	}
	return a, a.check()
}

// gib reads a number alone as REX-Ray did, whose users have it in their compose files. Swarm's required-bytes are
// too many for that.
func gib(number string) string {
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && n < 1<<20 {
		return number + "g"
	}
	return number
}

// plainKey is a key by its own name: in lower case and with "_", unless its name is the CSI driver's.
func plainKey(given string) string {
	if head, tail, ok := strings.Cut(given, "."); ok {
		switch head = strings.ToLower(head); head {
		case "param", "mutable", "snapparam", "topology", "context", "secret":
			return head + "." + tail
		case "parameter", "parameters":
			return "param." + tail
		}
	}
	key := strings.ReplaceAll(strings.ToLower(given), "-", "_")
	if to, ok := aliases[key]; ok {
		return to
	}
	return key
}

func unknownOption(given, key string, keys []catalog.Key) error {
	var names []string
	for _, k := range append(keys, prefixes...) {
		names = append(names, k.Name)
	}
	for _, also := range slices.Sorted(maps.Keys(aliases)) {
		if catalog.Nearest(key, names) == "" && catalog.Nearest(key, []string{also}) != "" {
			return errdefs.Errorf(errdefs.ErrInvalid, "unknown option %q, did you mean %q? (there are: %s)", given, aliases[also], strings.Join(slices.Sorted(slices.Values(names)), ", "))
		}
	}
	return errdefs.Hint(catalog.Unknown("option", given, names), "what the CSI driver itself has for parameters is given as param.KEY")
}

func (a asked) check() error {
	if a.Subdir != nil {
		if d := *a.Subdir; d == "" || d == "." || d == ".." || strings.ContainsAny(d, "/\x00") || len(d) > 255 {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: %q is not the name of one directory", "subdir", d)
		}
	}
	for _, f := range a.Mount {
		if err := checkFlag(f); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: %w", "mount_options", err)
		}
	}
	if a.Size != nil && a.Limit != nil && *a.Limit != 0 && *a.Limit < *a.Size {
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q: %s is below the size %s", "limit", *a.Limit, *a.Size)
	}
	if a.Zone != nil && len(a.topology) > 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "options %q and %q: want one of them", "zone", "topology")
	}
	if a.VolumeID == nil && len(a.context) > 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q: it is that of a volume which is there already, and volume_id does not say which", "context")
	}
	if a.VolumeID == nil {
		return nil
	}
	if *a.VolumeID == "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q is empty", "volume_id")
	}
	for key := range a.plain {
		head, _, _ := strings.Cut(key, ".")
		if slices.Contains([]string{"param", "mutable", "topology", "zone", "snapshot", "exact_name", "limit", "reclaim"}, head) {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: the volume %q is there already", key, *a.VolumeID)
		}
	}
	return nil
}

// shown are the options that everybody may see: mount options may hold a password.
func (a asked) shown() map[string]string {
	shown := maps.Clone(a.plain)
	delete(shown, "mount_options")
	maps.DeleteFunc(shown, func(k, _ string) bool { return strings.HasPrefix(k, "context.") })
	if len(shown) == 0 {
		return nil
	}
	return shown
}
