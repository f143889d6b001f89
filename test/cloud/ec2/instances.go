package ec2

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/test/cloud/machine"
)

// Instance is one machine of the cloud.
type Instance struct {
	InstanceSpec
	ID string

	cloud    *Cloud
	region   *region
	machine  *machine.Machine
	state    string // pending running stopping stopped shutting-down terminated
	reason   string
	impaired bool
	launched time.Time
	ended    time.Time
	tokens   map[string]time.Time // of the metadata service
	secret   User                 // of the role
}

// InstanceSpec is what an instance is made with.
type InstanceSpec struct {
	Region string // the first if empty
	Zone   string // the first of the region if empty
	// Type decides how disks look: those of the older generations, such as t2, c4 and m4,
	// are Xen, all others have NVMe. t3.micro if empty.
	Type string
	Tags map[string]string
	// Role gives the instance credentials by its metadata service, if not empty.
	Role string
	// RoleTTL is how long those are good; 6 h if zero.
	RoleTTL time.Duration
	// RoleDeny are actions that the role may not call.
	RoleDeny []string
	// MetadataV1 lets the metadata service be asked without a token.
	MetadataV1 bool
}

// AddInstance starts a machine. It runs at once.
func (c *Cloud) AddInstance(spec InstanceSpec) (*Instance, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if spec.Region == "" {
		spec.Region = c.conf.Regions[0]
	}
	r := c.regions[spec.Region]
	if r == nil {
		return nil, fmt.Errorf("ec2: no region %q", spec.Region)
	}
	if spec.Zone == "" {
		spec.Zone = c.zones(r.name)[0]
	}
	if !slices.Contains(c.zones(r.name), spec.Zone) {
		return nil, fmt.Errorf("ec2: no zone %q in %s", spec.Zone, r.name)
	}
	if spec.Type == "" {
		spec.Type = "t3.micro"
	}
	if spec.RoleTTL == 0 {
		spec.RoleTTL = 6 * time.Hour
	}
	i := &Instance{
		InstanceSpec: spec, ID: c.newID("i"), cloud: c, region: r, state: "running",
		launched: c.clock.Now(), tokens: map[string]time.Time{},
	}
	i.Tags = maps.Clone(spec.Tags)
	dir := filepath.Join(c.conf.Dir, r.name, "instances", i.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if i.machine, err = machine.NewSeed(dir, c.rand.Uint64()); err != nil {
		return nil, err
	}
	r.instances[i.ID] = i
	return i, nil
}

// Machine is what the instance's kernel shows.
func (i *Instance) Machine() *machine.Machine { return i.machine }

// Impair makes the status checks of the instance fail, or pass again. Its state is running
// all the same.
func (i *Instance) Impair(impaired bool) {
	i.cloud.mu.Lock()
	defer i.cloud.mu.Unlock()
	i.impaired = impaired
}

// State is what DescribeInstances says.
func (i *Instance) State() string {
	i.cloud.mu.Lock()
	defer i.cloud.mu.Unlock()
	return i.state
}

// xen tells whether the instance is of the older generations.
func (i *Instance) xen() bool {
	family, _, _ := strings.Cut(i.Type, ".")
	return slices.Contains([]string{"t1", "t2", "m1", "m2", "m3", "m4", "c1", "c3", "c4", "r3", "r4", "i2", "d2"}, family)
}

// remembered is how long a terminated instance is still listed.
const remembered = time.Hour

// instance returns one that a call is about.
func (r *request) instance(id string) (*Instance, error) {
	if !idPattern.MatchString(id) || kind(id) != "instance" {
		return nil, fail("InvalidInstanceID.Malformed", "Invalid id: \"%s\"", id)
	}
	i := r.region.instances[id]
	if i == nil || i.forgotten(r.now()) {
		return nil, fail("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
	}
	return i, nil
}

func (i *Instance) forgotten(now time.Time) bool {
	return i.state == "terminated" && now.Sub(i.ended) > remembered
}

// change is what the three calls that change a state have in common.
func (r *request) change(do func(*Instance) error) (any, error) {
	var out changesXML
	var list []*Instance
	for _, id := range r.list("InstanceId") {
		i, err := r.instance(id)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	if len(list) == 0 {
		return nil, missing("InstanceId")
	}
	for _, i := range list {
		before := i.state
		if err := do(i); err != nil {
			return nil, err
		}
		out.Changes = append(out.Changes, changeXML{i.ID, stateXML(i.state), stateXML(before)})
	}
	return out, nil
}

func terminateInstances(r *request) (any, error) {
	return r.change(func(i *Instance) error {
		c := r.cloud
		if i.state == "shutting-down" || i.state == "terminated" {
			return nil
		}
		i.state, i.reason = "shutting-down", "User initiated"
		c.later(c.conf.Delays.Terminate, func() {
			i.state, i.ended = "terminated", c.clock.Now()
			c.off(i)
			c.later(c.conf.Delays.Release, func() { c.release(i) })
		})
		return nil
	})
}

// off takes the disks off a machine that does not run any longer.
func (c *Cloud) off(i *Instance) {
	for _, a := range i.region.on(i.ID) {
		c.failed(c.unplug(i.region, i.region.volumes[a.Volume].last(), i, true))
	}
}

// release frees the volumes of an instance that is gone.
func (c *Cloud) release(i *Instance) {
	for _, a := range i.region.on(i.ID) {
		c.become(i.region.volumes[a.Volume], i.ID, "")
	}
}

func stopInstances(r *request) (any, error) {
	return r.change(func(i *Instance) error {
		switch i.state {
		case "stopping", "stopped":
			return nil
		case "running":
		default:
			return fail("IncorrectInstanceState", "This instance '%s' is not in a state from which it can be stopped.", i.ID)
		}
		i.state, i.reason = "stopping", "User initiated"
		r.cloud.later(r.cloud.conf.Delays.Terminate, func() {
			if i.state == "stopping" {
				i.state = "stopped"
				r.cloud.off(i)
			}
		})
		return nil
	})
}

func startInstances(r *request) (any, error) {
	return r.change(func(i *Instance) error {
		switch i.state {
		case "pending", "running":
			return nil
		case "stopped":
		default:
			return fail("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be started.", i.ID)
		}
		i.state, i.reason = "pending", ""
		r.cloud.later(r.cloud.conf.Delays.Terminate, func() {
			if i.state != "pending" {
				return
			}
			i.state = "running"
			for _, a := range i.region.on(i.ID) {
				if a.State != "attaching" {
					r.cloud.failed(r.cloud.plug(i.region, i.region.volumes[a.Volume].last(), i))
				}
			}
		})
		return nil
	})
}

func instanceField(i *Instance, name string) ([]string, bool) {
	if i == nil {
		i = &Instance{}
	}
	if out, ok := tagField(i.Tags, name); ok {
		return out, true
	}
	one, ok := map[string]string{
		"instance-id": i.ID, "instance-state-name": i.state, "instance-type": i.Type, "availability-zone": i.Zone,
	}[name]
	return []string{one}, ok
}

// instances returns those that a call asks for.
func (r *request) instances() (ids []string, next string, err error) {
	if err := idsAndPages(r, "InstanceId"); err != nil {
		return nil, "", err
	}
	filters := r.filters()
	if err := checkFilters(filters, instanceField); err != nil {
		return nil, "", err
	}
	asked := r.list("InstanceId")
	for _, id := range asked {
		if _, err := r.instance(id); err != nil {
			return nil, "", err
		}
	}
	for id, i := range r.region.instances {
		fits := func(f filter) bool { have, _ := instanceField(i, f.name); return f.match(have) }
		if i.forgotten(r.now()) || len(asked) > 0 && !slices.Contains(asked, id) ||
			slices.ContainsFunc(filters, func(f filter) bool { return !fits(f) }) {
			continue
		}
		ids = append(ids, id)
	}
	return page(r, ids)
}

func describeInstances(r *request) (any, error) {
	ids, next, err := r.instances()
	if err != nil {
		return nil, err
	}
	out := instancesXML{NextToken: next}
	for _, id := range ids {
		out.Reservations = append(out.Reservations, r.region.instances[id].xml())
	}
	return out, nil
}

func describeInstanceStatus(r *request) (any, error) {
	ids, next, err := r.instances()
	if err != nil {
		return nil, err
	}
	all, err := r.yes("IncludeAllInstances")
	if err != nil {
		return nil, err
	}
	out := statusesXML{NextToken: next}
	for _, id := range ids {
		if i := r.region.instances[id]; all || i.state == "running" {
			out.Statuses = append(out.Statuses, i.statusXML())
		}
	}
	return out, nil
}
