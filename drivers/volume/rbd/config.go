package rbd

import (
	"cmp"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type config struct {
	block.Config
	Pool       string         `opt:"pool" help:"pool of images; without it rbd"`
	RadosNS    string         `opt:"rados_namespace" help:"namespace within the pool, which exists; rbd-fuse knows none"`
	DataPool   string         `opt:"data_pool" help:"pool in which the data of new images lies, such as one that is erasure coded; without it that of the images"`
	Conf       string         `opt:"conf" help:"configuration of the cluster; without it /etc/ceph/ceph.conf, or that of CEPH_CONF"`
	Monitors   []string       `opt:"mon_host" help:"addresses of the monitors, where conf does not say them"`
	User       string         `opt:"user" help:"client of Ceph that the daemon is, without its client.; without it admin, or that of CEPH_ARGS"`
	Keyring    string         `opt:"keyring" help:"file with the key of user, which only its owner can read; without it where conf says, /etc/ceph/ceph.client.USER.keyring by default"`
	Map        string         `opt:"map" enum:"auto,krbd,nbd,fuse" default:"auto" help:"how an image becomes a device: by the kernel, by rbd-nbd, by rbd-fuse and a loop device, or by the first of these that the host has"`
	MapOptions []string       `opt:"map_options" help:"options of rbd map, such as queue_depth=128 or ms_mode=secure"`
	Host       string         `opt:"host" help:"name of this host in locks, which no other host has; without it the host's name and a part of its machine-id"`
	ObjectSize *catalog.Bytes `opt:"object_size" help:"size of the objects of new images, a power of two; without it 4m"`
	Flatten    bool           `opt:"flatten" help:"whether clones are made independent of what they were made of, which copies all of it in the background"`
	Timeout    time.Duration  `opt:"timeout" default:"10s" help:"how long a command may take to be answered by the cluster"`
	IOTimeout  time.Duration  `opt:"io_timeout" help:"after which time without the cluster reads and writes fail; without it they wait until it is back, as those of a local disk do"`
}

// variable is one of REX-Ray's, which fills in what the pool leaves open.
type variable struct {
	name string
	set  func(c *config, value string) error
}

func variables() []variable {
	return []variable{
		{"RBD_DEFAULTPOOL", func(c *config, v string) error { fill(&c.Pool, v); return nil }},
		{"RBD_CEPHARGS", (*config).cephArgs},
	}
}

// described are the variables that a pool reads.
func described() []catalog.Variable {
	var all []catalog.Variable
	for _, v := range variables() {
		all = append(all, catalog.Variable{Name: v.name, Help: "as with REX-Ray"})
	}
	return all
}

func fill(to *string, value string) {
	if *to == "" {
		*to = value
	}
}

// fromREXRay fills in what REX-Ray's variables say.
func (c *config) fromREXRay(lookup func(string) string) error {
	for _, v := range variables() {
		if value := lookup(v.name); value != "" {
			if err := v.set(c, value); err != nil {
				return err
			}
		}
	}
	fill(&c.Pool, "rbd")
	return nil
}

// cephArgs takes over the arguments that REX-Ray gives to every program of Ceph. A key among them
// is refused without being quoted: everybody would see it in the list of processes.
func (c *config) cephArgs(text string) error {
	words := strings.Fields(text)
	for i := 0; i < len(words); i++ {
		flag, value, joined := strings.Cut(words[i], "=")
		if !joined && i+1 < len(words) {
			i++
			value = words[i]
		}
		switch flag {
		case "--id", "--user":
			fill(&c.User, value)
		case "-n", "--name":
			fill(&c.User, strings.TrimPrefix(value, "client."))
		case "-c", "--conf":
			fill(&c.Conf, value)
		case "--cluster":
			fill(&c.Conf, "/etc/ceph/"+value+".conf")
		case "-k", "--keyring":
			fill(&c.Keyring, value)
		case "-m", "--mon-host", "--mon_host":
			if len(c.Monitors) == 0 {
				c.Monitors = strings.Split(value, ",")
			}
		case "--key", "--keyfile":
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "RBD_CEPHARGS: %s is not taken, as all would see the key", flag),
				"put the key into a keyring: ceph auth get client.USER -o FILE, and say keyring = \"FILE\"")
		default:
			return errdefs.Errorf(errdefs.ErrInvalid, "RBD_CEPHARGS: %q is not known; there are --id, --name, --conf, --cluster, --keyring and -m", flag)
		}
	}
	return nil
}

var (
	// What a shell, a list of options or a spec of an image would read otherwise is no name.
	nameForm   = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,95}$`)
	optionForm = regexp.MustCompile(`^[a-z_0-9]+(=[a-zA-Z0-9_./:-]+)?$`)
)

// Check implements [catalog.Checker].
func (c *config) Check() error {
	for key, value := range map[string]string{"pool": c.Pool, "rados_namespace": c.RadosNS, "data_pool": c.DataPool, "user": c.User, "host": c.Host} {
		if value != "" && !nameForm.MatchString(value) {
			return errdefs.Errorf(errdefs.ErrInvalid, "key %q: %q is no name of letters, digits, dots, dashes and underscores", key, value)
		}
	}
	for _, o := range c.MapOptions {
		name, _, _ := strings.Cut(o, "=")
		switch {
		case !optionForm.MatchString(o):
			return errdefs.Errorf(errdefs.ErrInvalid, `key "map_options": %q is not of the form NAME or NAME=VALUE`, o)
		case slices.Contains([]string{"secret", "key", "name", "fsid", "share", "noshare", "udev", "noudev", "force"}, name):
			return errdefs.Errorf(errdefs.ErrInvalid, `key "map_options": %q is set by the driver itself, of the pool's other keys or always`, name)
		}
	}
	if c.RadosNS != "" && c.Map == "fuse" {
		return errdefs.Errorf(errdefs.ErrInvalid, `key "rados_namespace": rbd-fuse knows no namespaces; use map = "krbd" or "nbd"`)
	}
	if c.Preempt == "dead" {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `key "preempt": no cluster can prove that a host is dead, as one that does not answer may write when it does again`),
			`remora volume attach --force, or preempt = "always", put its client on the blocklist first, which is safe whether it lives or not`)
	}
	if c.Timeout < time.Second {
		return errdefs.Errorf(errdefs.ErrInvalid, `key "timeout": %s is less than a second`, c.Timeout)
	}
	if c.IOTimeout != 0 && c.IOTimeout < time.Second {
		return errdefs.Errorf(errdefs.ErrInvalid, `key "io_timeout": %s is less than a second`, c.IOTimeout)
	}
	if c.ObjectSize != nil {
		return checkObjectSize(int64(*c.ObjectSize))
	}
	return nil
}

// check refuses what is wrong in the pool's table, and in the files that it names.
func (c *config) check() error {
	if err := c.Check(); err != nil {
		return err
	}
	if c.Conf != "" {
		if _, err := os.Stat(c.Conf); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, `key "conf": %w`, err)
		}
	}
	if c.Keyring == "" {
		return nil
	}
	info, err := os.Stat(c.Keyring)
	switch {
	case err != nil:
		return errdefs.Errorf(errdefs.ErrInvalid, `key "keyring": %w`, err)
	case info.Mode().Perm()&0o077 != 0:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `key "keyring": others can read %s`, c.Keyring), "chmod 600 "+c.Keyring)
	}
	return nil
}

func checkObjectSize(n int64) error {
	if n < 4<<10 || n > 32<<20 || n&(n-1) != 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "object_size: %s is no power of two from 4k to 32m", catalog.Bytes(n))
	}
	return nil
}

// extra are the options of a volume that only rbd has.
type extra struct {
	ObjectSize  *catalog.Bytes `opt:"object_size" help:"size of the image's objects, a power of two from 4k to 32m"`
	StripeUnit  *catalog.Bytes `opt:"stripe_unit" help:"how much is written to an object before the next one; needs stripe_count"`
	StripeCount *int64         `opt:"stripe_count" help:"over how many objects the image is striped; needs stripe_unit"`
	DataPool    *string        `opt:"data_pool" help:"pool in which the image's data lies"`
	Features    []string       `opt:"features" help:"features of the image: layering, deep-flatten"`
	Flatten     *bool          `opt:"flatten" help:"whether a clone is made independent of what it was made of"`
}

// features are those that an image may have, and why not the others.
var features = map[string]string{
	"layering": "", "deep-flatten": "",
	"exclusive-lock": "it lets writes of no host through while the image is locked, and its own lock goes to whoever writes next",
	"object-map":     "it needs exclusive-lock", "fast-diff": "it needs exclusive-lock", "journaling": "it needs exclusive-lock",
	"striping": "use stripe_unit and stripe_count", "data-pool": "use data_pool",
}

func (c *config) checkSpec(s *block.Spec) error {
	e, err := catalog.DecodeOptions[extra](s.Extra)
	if err != nil {
		return err
	}
	for _, f := range e.Features {
		switch why, ok := features[f]; {
		case !ok:
			return errdefs.Errorf(errdefs.ErrInvalid, `option "features": %q is none; there are layering and deep-flatten`, f)
		case why != "":
			return errdefs.Errorf(errdefs.ErrInvalid, `option "features": %s cannot be had: %s`, f, why)
		}
	}
	if e.DataPool != nil && !nameForm.MatchString(*e.DataPool) {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "data_pool": %q is not the name of a pool`, *e.DataPool)
	}
	object := int64(4 << 20)
	if c.ObjectSize != nil {
		object = int64(*c.ObjectSize)
	}
	if e.ObjectSize != nil {
		object = int64(*e.ObjectSize)
		if err := checkObjectSize(object); err != nil {
			return err
		}
	}
	if (e.StripeUnit == nil) != (e.StripeCount == nil) {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "stripe_unit" and "stripe_count" need each other`)
	}
	if e.StripeUnit != nil {
		if n := int64(*e.StripeUnit); n < 512 || n > object || object%n != 0 {
			return errdefs.Errorf(errdefs.ErrInvalid, `option "stripe_unit": %s does not divide the objects of %s`, *e.StripeUnit, catalog.Bytes(object))
		}
		if *e.StripeCount < 1 || *e.StripeCount > 1024 {
			return errdefs.Errorf(errdefs.ErrInvalid, `option "stripe_count": %d is not from 1 to 1024`, *e.StripeCount)
		}
	}
	return nil
}

// layout is the flags with which an image is made.
func (c *config) layout(s block.Spec) ([]string, extra, error) {
	e, err := catalog.DecodeOptions[extra](s.Extra)
	if err != nil {
		return nil, e, err
	}
	names := []string{"layering"}
	for _, f := range e.Features {
		if !slices.Contains(names, f) {
			names = append(names, f)
		}
	}
	args := []string{"--image-feature", strings.Join(names, ",")}
	bytes := func(flag string, own, pool *catalog.Bytes) {
		if own == nil {
			own = pool
		}
		if own != nil {
			args = append(args, flag, strconv.FormatInt(int64(*own), 10)+"B")
		}
	}
	bytes("--object-size", e.ObjectSize, c.ObjectSize)
	if object := cmp.Or(e.ObjectSize, c.ObjectSize); s.Snapshot != nil && object != nil && e.StripeUnit == nil {
		one := int64(1) // else a clone is striped as its source, whose objects may be larger
		e.StripeUnit, e.StripeCount = object, &one
	}
	bytes("--stripe-unit", e.StripeUnit, nil)
	if e.StripeCount != nil {
		args = append(args, "--stripe-count", strconv.FormatInt(*e.StripeCount, 10))
	}
	data := c.DataPool
	if e.DataPool != nil {
		data = *e.DataPool
	}
	if data != "" {
		args = append(args, "--data-pool", data)
	}
	if e.Flatten == nil {
		e.Flatten = &c.Flatten
	}
	return args, e, nil
}
