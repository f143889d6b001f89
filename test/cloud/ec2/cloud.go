// Package ec2 is a fake of Amazon EC2, as far as volumes, snapshots and the machines that
// use them go: the Query API in XML over HTTP, with signatures checked, and the metadata
// service of each instance. It is for tests of what talks to EC2, and is made to be as
// awkward as the real one: calls that answer before they have happened, lists that lag
// behind, limits of rate, devices whose names say nothing. Volumes are sparse files, and an
// instance has a [machine.Machine] on which they become block devices.
//
// The README of test/cloud says what it does, and what it does not know.
package ec2

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/test/cloud/fake"
)

// Config is what a cloud is made with. The zero value of each field but Dir and Users is
// usable.
type Config struct {
	// Dir is where files of volumes and trees of machines lie.
	Dir string
	// Users may call the API.
	Users []User
	// Account is the number of the account; 123456789012 if empty.
	Account string
	// Regions are those there are; us-east-1 and eu-west-1 if empty. Each has the zones
	// a, b and c.
	Regions []string
	// KmsKeys are the keys that may encrypt, by ARN or id. An unknown key is noticed after the
	// call has succeeded, as at AWS: the volume then disappears.
	KmsKeys []string
	// Clock is real time if nil.
	Clock fake.Clock
	// Seed is that of ids, names of devices, and jitter.
	Seed   uint64
	Delays Delays
	Lag    Lag
	Limits Limits
}

// User is one pair of keys.
type User struct {
	AccessKey, SecretKey string
	// Deny are actions that are refused as UnauthorizedOperation.
	Deny []string

	token   string // of a role
	expires time.Time
}

// Delays are how long things take. Those that are zero happen at once.
type Delays struct {
	Create    time.Duration // creating → available
	Delete    time.Duration // deleting → gone
	Attach    time.Duration // attaching → attached
	Device    time.Duration // attached → the machine has the device
	Detach    time.Duration // detaching → gone, if not mounted
	Busy      time.Duration // between two looks whether a busy volume is free; 1 s if zero
	Modify    time.Duration // modifying → optimizing
	Optimize  time.Duration // optimizing → completed
	Snapshot  time.Duration // pending → completed
	Copy      time.Duration // the same for a copy
	Terminate time.Duration // shutting-down → terminated, stopping → stopped, pending → running
	Release   time.Duration // terminated → its volumes are free
}

// Lag is how far behind the answers of Describe calls are. It is one for each way of asking,
// as at AWS, where each is served by a cache of its own.
type Lag struct {
	ID          time.Duration // asked for by id; also until any other call knows a new id
	List        time.Duration // asked for without an id
	Tags        time.Duration // the tags in an answer
	TagFilter   time.Duration // filters by tag, and DescribeTags
	StateFilter time.Duration // filters by status and attachment

	// Jitter draws the lag of each call between zero and its value, so that a later
	// answer may be an older one.
	Jitter bool
}

// Cloud is one account. It is an http.Handler for the Query API of all regions: which one is
// meant is said by the signature.
type Cloud struct {
	conf  Config
	clock fake.Clock

	mu      sync.Mutex
	closed  bool
	done    chan struct{}
	rand    *rand.Rand
	users   []User
	regions map[string]*region
	buckets map[string]*bucket
	faults  []*Fault
	counts  map[string]Count
	errs    []error
}

// region is what a region has. Nothing is shared between two.
type region struct {
	name      string
	volumes   map[string]*history[volume]
	snapshots map[string]*history[snapshot]
	instances map[string]*Instance
	tokens    map[string]token
}

// New makes a cloud in which there is nothing.
func New(conf Config) (*Cloud, error) {
	if conf.Dir == "" {
		return nil, errors.New("ec2: no folder for the files of volumes")
	}
	if conf.Account == "" {
		conf.Account = "123456789012"
	}
	if len(conf.Regions) == 0 {
		conf.Regions = []string{"us-east-1", "eu-west-1"}
	}
	if conf.Clock == nil {
		conf.Clock = fake.System{}
	}
	if conf.Delays.Busy == 0 {
		conf.Delays.Busy = time.Second
	}
	conf.Limits.fill()
	c := &Cloud{
		conf: conf, clock: conf.Clock, done: make(chan struct{}),
		rand: rand.New(rand.NewPCG(conf.Seed, 1)), users: slices.Clone(conf.Users),
		regions: map[string]*region{}, buckets: map[string]*bucket{}, counts: map[string]Count{},
	}
	for _, name := range conf.Regions {
		c.regions[name] = &region{
			name: name, volumes: map[string]*history[volume]{}, snapshots: map[string]*history[snapshot]{},
			instances: map[string]*Instance{}, tokens: map[string]token{},
		}
		for _, dir := range []string{"volumes", "snapshots"} {
			if err := os.MkdirAll(filepath.Join(conf.Dir, name, dir), 0o700); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// Close takes all devices off the machines, and ends what is under way. It returns what went
// wrong in the background, such as a disk that could not be plugged in.
func (c *Cloud) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	close(c.done)
	errs := c.errs
	for _, r := range c.regions {
		for _, i := range r.instances {
			errs = append(errs, i.machine.Close())
		}
	}
	return errors.Join(errs...)
}

// later does something after d, holding the lock, unless the cloud was closed. It is called
// with the lock held.
func (c *Cloud) later(d time.Duration, f func()) {
	if d <= 0 {
		f()
		return
	}
	c.clock.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed {
			f()
		}
	})
}

// failed keeps an error that no caller waits for.
func (c *Cloud) failed(err error) {
	if err != nil {
		c.errs = append(c.errs, err)
	}
}

// newID is an id as those since 2016 are.
func (c *Cloud) newID(kind string) string { return fmt.Sprintf("%s-0%016x", kind, c.rand.Uint64()) }

func (c *Cloud) zones(region string) []string {
	return []string{region + "a", region + "b", region + "c"}
}

func (c *Cloud) file(r *region, id string) string {
	dir := "volumes"
	if kind(id) == "snapshot" {
		dir = "snapshots"
	}
	return filepath.Join(c.conf.Dir, r.name, dir, id)
}
