package gcepd

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type config struct {
	block.Config
	Project          string         `opt:"project" help:"project of the disks; without it that of the key file, or of the instance"`
	Zone             string         `opt:"zone" help:"zone of a volume that is made without one, such as us-central1-a; without it that of the instance"`
	Zones            []string       `opt:"zones" help:"zones whose disks are looked at; without it all of the project"`
	Instance         string         `opt:"instance" help:"name of the instance that the daemon runs on, where the metadata server cannot be reached; it is in zone then"`
	Keyfile          string         `opt:"keyfile" help:"key file of a service account, which only its owner can read; without it GOOGLE_APPLICATION_CREDENTIALS, or the account of the instance"`
	Key              catalog.Secret `opt:"key" help:"what stands in the key file, where there cannot be one; better in keyfile"`
	Endpoint         string         `opt:"endpoint" help:"URL of the API up to compute/v1/, where it is not Google's public one"`
	Type             string         `opt:"type" enum:"pd-balanced,pd-standard,pd-ssd,pd-extreme,hyperdisk-balanced,hyperdisk-extreme,hyperdisk-throughput" default:"pd-balanced" help:"type of a volume that is made without one"`
	IOPS             int64          `opt:"iops" help:"operations a second of a volume of the pool's type that is made without them"`
	Throughput       int64          `opt:"throughput" help:"MiB a second of a volume of the pool's type that is made without them"`
	KMSKey           string         `opt:"kms_key" help:"key of Cloud KMS that encrypts the volumes which name none, as projects/P/locations/L/keyRings/R/cryptoKeys/K"`
	Labels           []string       `opt:"labels" help:"labels of each disk and snapshot that is made, as KEY=VALUE, such as those by which costs are told apart"`
	SnapshotLocation string         `opt:"snapshot_location" help:"region or multi-region that keeps the snapshots; without it as the project has it"`
	DefaultDiskType  string         `opt:"defaultDiskType" help:"REX-Ray's word for type"`
	Tag              string         `opt:"tag" help:"REX-Ray's word for namespace"`
	Underscores      bool           `opt:"convertUnderscores" help:"REX-Ray's; does nothing, as names are kept as they are"`
}

// variable is one of REX-Ray's, which fills in what the pool leaves open.
type variable struct {
	name string
	used string // the key that it stands for
	set  func(c *config, value string)
	open func(c config) bool
}

// variables are those of REX-Ray's plugin for Google that mean something here. They are the only
// way to set up a managed plugin, whose users have them in their scripts.
func variables() []variable {
	return []variable{
		{"GCEPD_KEYFILE", "keyfile", func(c *config, v string) { c.Keyfile = v }, func(c config) bool { return c.Keyfile == "" && c.Key.Reveal() == "" }},
		{"GCEPD_ZONE", "zone", func(c *config, v string) { c.Zone = v }, func(c config) bool { return c.Zone == "" }},
		{"GCEPD_DEFAULTDISKTYPE", "type", func(c *config, v string) { c.Type = v }, func(c config) bool { return c.Type == standardType && c.DefaultDiskType == "" }},
		{"GCEPD_TAG", "namespace", func(c *config, v string) { c.Namespace = v }, func(c config) bool { return c.Namespace == standardNamespace && c.Tag == "" }},
	}
}

// described are the variables that a pool reads.
func described() []catalog.Variable {
	var all []catalog.Variable
	for _, v := range variables() {
		all = append(all, catalog.Variable{Name: v.name, Help: "stands for the key " + v.used + ", as with REX-Ray"})
	}
	return append(all,
		catalog.Variable{Name: "GOOGLE_APPLICATION_CREDENTIALS", Help: "file with credentials, as every tool of Google reads it"},
		catalog.Variable{Name: "GCE_METADATA_HOST", Help: "host and port of the instance's metadata, if not 169.254.169.254"})
}

// What a pool has that says nothing else.
const (
	standardType      = "pd-balanced"
	standardNamespace = "remora"
)

// fromREXRay fills in what REX-Ray's keys and variables say, and returns which variables were used.
func (c *config) fromREXRay(lookup func(string) string) (used []string, err error) {
	for _, v := range variables() {
		if value := lookup(v.name); value != "" && v.open(*c) {
			v.set(c, value)
			used = append(used, v.name+" as "+v.used)
		}
	}
	for _, a := range []struct{ key, old, value, standard, is string }{
		{"type", "defaultDiskType", c.DefaultDiskType, standardType, c.Type},
		{"namespace", "tag", c.Tag, standardNamespace, c.Namespace},
	} {
		if a.value != "" && a.is != a.standard && a.is != a.value {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "key %q is the same as %q, which says %q and not %q; leave out one of them", a.old, a.key, a.is, a.value)
		}
	}
	if c.DefaultDiskType != "" {
		c.Type = c.DefaultDiskType
	}
	if c.Tag != "" {
		c.Namespace = c.Tag
	}
	return used, nil
}

var (
	zoneForm     = regexp.MustCompile(`^[a-z]+(-[a-z]+)+[0-9]+-[a-z]$`)
	projectForm  = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$`)
	resourceForm = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)
	kmsForm      = regexp.MustCompile(`^projects/[^/ ]+/locations/[^/ ]+/keyRings/[^/ ]+/cryptoKeys/[^/ ]+(/cryptoKeyVersions/[0-9]+)?$`)
)

// isLabel reports whether a label may have such a key or value, as far as both are alike.
func isLabel(s string) bool {
	return utf8.RuneCountInString(s) <= 63 && !strings.ContainsFunc(s, func(r rune) bool { return !isLower(r) && !unicode.IsNumber(r) && r != '_' && r != '-' })
}

// isLower reports whether a label's key may begin with a letter: lower-case ones, and those of scripts that have no case.
func isLower(r rune) bool { return unicode.In(r, unicode.Ll, unicode.Lo) }

// check refuses what is wrong in the pool's table, and makes one form of what may be given in
// several.
func (c *config) check() error {
	if c.Zone != "" && !zoneForm.MatchString(c.Zone) {
		return errdefs.Errorf(errdefs.ErrInvalid, `key "zone": %q is not the name of a zone, such as us-central1-a`, c.Zone)
	}
	for _, z := range c.Zones {
		if !zoneForm.MatchString(z) {
			return errdefs.Errorf(errdefs.ErrInvalid, `key "zones": %q is not the name of a zone, such as us-central1-a`, z)
		}
	}
	switch k, known := kinds[c.Type]; {
	case c.Project != "" && !projectForm.MatchString(c.Project):
		return errdefs.Errorf(errdefs.ErrInvalid, `key "project": %q is not the ID of a project, such as my-project-123`, c.Project)
	case c.Instance != "" && !resourceForm.MatchString(c.Instance):
		return errdefs.Errorf(errdefs.ErrInvalid, `key "instance": %q is not the name of an instance`, c.Instance)
	case c.Instance != "" && c.Zone == "":
		return errdefs.Errorf(errdefs.ErrInvalid, `key "instance" needs "zone"`)
	case c.Zone != "" && len(c.Zones) > 0 && !slices.Contains(c.Zones, c.Zone):
		return errdefs.Errorf(errdefs.ErrInvalid, `key "zone": %s is not one of zones`, c.Zone)
	case c.Keyfile != "" && c.Key.Reveal() != "":
		return errdefs.Errorf(errdefs.ErrInvalid, `key "key": there is a keyfile too; leave out one of them`)
	case !known:
		return errdefs.Errorf(errdefs.ErrInvalid, `key "type": Google has no %q (there are: %s)`, c.Type, strings.Join(typeNames(), ", "))
	case int64(c.Size) < k.min*gib:
		return errdefs.Errorf(errdefs.ErrInvalid, `key "size": %s, and the smallest disk of type %s has %dg`, c.Size, c.Type, k.min)
	case c.IOPS < 0, c.Throughput < 0, c.IOPS != 0 && !k.iops, c.Throughput != 0 && !k.throughput:
		return errdefs.Errorf(errdefs.ErrInvalid, `key "type": %s has not the iops or throughput that the pool says`, c.Type)
	case c.KMSKey != "" && !kmsForm.MatchString(c.KMSKey):
		return errdefs.Errorf(errdefs.ErrInvalid, `key "kms_key": %q is not projects/P/locations/L/keyRings/R/cryptoKeys/K`, c.KMSKey)
	}
	for _, l := range c.Labels {
		key, value, ok := strings.Cut(l, "=")
		if first, _ := utf8.DecodeRuneInString(key); !ok || !isLabel(key) || !isLabel(value) || !isLower(first) {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `key "labels": %q is not KEY=VALUE as Google wants it`, l), "up to 63 lower-case letters, digits, dashes and underscores each")
		}
		if strings.HasPrefix(key, prefix) {
			return errdefs.Errorf(errdefs.ErrInvalid, `key "labels": %q is not for others to set`, key)
		}
	}
	if c.Endpoint != "" {
		if !strings.Contains(c.Endpoint, "://") {
			c.Endpoint = "https://" + c.Endpoint
		}
		c.Endpoint = strings.TrimSuffix(c.Endpoint, "/") + "/"
	}
	return nil
}

// kind is what a type of disk can have. How much of it there may be for each GiB and each machine
// changes from year to year and is left to Google.
type kind struct {
	min              int64 // GiB
	iops, throughput bool
}

var kinds = map[string]kind{
	"pd-standard": {min: 10}, "pd-balanced": {min: 10}, "pd-ssd": {min: 10}, "pd-extreme": {min: 500, iops: true},
	"hyperdisk-balanced": {min: 4, iops: true, throughput: true}, "hyperdisk-extreme": {min: 64, iops: true},
	"hyperdisk-throughput": {min: 2048, throughput: true},
}

func typeNames() []string { return slices.Sorted(maps.Keys(kinds)) }

// multiWriter is the option that is there to be refused.
const multiWriter = "multi_writer"

// checkSpec refuses what Compute Engine would. What the pool says is filled in when the disk is
// made: what a clone has is only known after this.
func (c config) checkSpec(s *block.Spec) error {
	name := cmp.Or(s.Type, c.Type)
	k, ok := kinds[name]
	switch {
	case !ok:
		return errdefs.Errorf(errdefs.ErrInvalid, `option "type": %q is none that Remora can use (there are: %s)`, name, strings.Join(typeNames(), ", "))
	case s.IOPS < 0 || s.Throughput < 0:
		return errdefs.Errorf(errdefs.ErrInvalid, `options "iops" and "throughput": below nothing`)
	case s.IOPS != 0 && !k.iops:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `option "iops": those of type %s go by its size and cannot be chosen`, name), "take type hyperdisk-balanced, hyperdisk-extreme or pd-extreme, or leave iops out")
	case s.Throughput != 0 && !k.throughput:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `option "throughput": that of type %s goes by its size and cannot be chosen`, name), "take type hyperdisk-balanced or hyperdisk-throughput, or leave throughput out")
	case s.Size != 0 && s.Size < k.min*gib: // without one it is the size of the snapshot
		return errdefs.Errorf(errdefs.ErrInvalid, "size %s: the smallest disk of type %s has %dg", catalog.Bytes(s.Size), name, k.min)
	case s.Zone != "" && !zoneForm.MatchString(s.Zone):
		return errdefs.Errorf(errdefs.ErrInvalid, `option "zone": %q is not the name of a zone, such as us-central1-a`, s.Zone)
	case s.Zone != "" && len(c.Zones) > 0 && !slices.Contains(c.Zones, s.Zone):
		return errdefs.Errorf(errdefs.ErrInvalid, `option "zone": %s is not one of the pool's zones (%s)`, s.Zone, strings.Join(c.Zones, ", "))
	case s.Encrypted != nil && !*s.Encrypted:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `option "encrypted": Google encrypts every disk`), "leave it out; kms_key chooses the key")
	case s.KMSKey != "" && !kmsForm.MatchString(s.KMSKey):
		return errdefs.Errorf(errdefs.ErrInvalid, `option "kms_key": %q is not projects/P/locations/L/keyRings/R/cryptoKeys/K`, s.KMSKey)
	case s.Snapshot != nil && !snapshotForm.MatchString(s.Snapshot.ID):
		return errdefs.Errorf(errdefs.ErrInvalid, `option "snapshot": %q is not the name of a snapshot, nor projects/P/global/snapshots/NAME`, s.Snapshot.ID)
	}
	switch strings.ToLower(s.Extra[multiWriter]) {
	case "", "false", "0":
		return nil
	}
	return errMulti()
}

var snapshotForm = regexp.MustCompile(`^(projects/[a-z0-9.:-]+/global/snapshots/)?[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

func errMulti() error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "option %q: a file system that two hosts have mounted is destroyed, whatever Google allows", multiWriter),
		"for files that several hosts share, use a pool of the driver mount (NFS, such as Filestore)")
}

// own returns the labels that the pool adds. check has seen that they can be read.
func (c config) own() map[string]string {
	all := make(map[string]string, len(c.Labels))
	for _, l := range c.Labels {
		k, v, _ := strings.Cut(l, "=")
		all[k] = v
	}
	return all
}

// credentials returns what stands in the key file, and where it was; nothing where there is none.
func (c config) credentials() (key []byte, from string, err error) {
	if secret := c.Key.Reveal(); secret != "" {
		return []byte(secret), `key "key"`, nil
	}
	file, from := c.Keyfile, `key "keyfile"`
	if file == "" {
		file, from = os.Getenv("GOOGLE_APPLICATION_CREDENTIALS"), "GOOGLE_APPLICATION_CREDENTIALS"
	}
	if file == "" {
		return nil, "", nil
	}
	info, err := os.Stat(file)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%s: others can read %s", from, file), "chmod 600 "+file)
	}
	if err == nil {
		key, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, "", errdefs.Errorf(errdefs.ErrInvalid, "%s: %w", from, err)
	}
	return key, fmt.Sprintf("%s: %s", from, file), nil
}
