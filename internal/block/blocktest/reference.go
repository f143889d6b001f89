package blocktest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

// Reference is a small cloud within the process, whose disks are files that are plugged into
// simulated machines. It does what it is told at once, unless Delay or Lag say otherwise.
type Reference struct {
	// Delay is how long a disk takes to be made, attached and detached.
	Delay time.Duration
	// Lag is how far lists are behind.
	Lag time.Duration
	// Rollbacks: the cloud can bring a disk back in its place.
	Rollbacks bool
	// Page is how many disks come with one request for all; 0 is however many there are.
	Page int
	// In are the zones, of which hosts are in the first one unless they are put elsewhere;
	// without any the cloud has none.
	In []string

	region string
	others map[string]*Reference // the regions of the account, with this one
	dir    string
	client *block.Client

	mu    sync.Mutex
	disks map[string]*refDisk
	snaps map[string]*refSnapshot
	spent map[string]bool // UUIDs of disks that are gone
	hosts map[string]*Host
	gone  map[string]bool
	zones map[string]string // of hosts
	next  int
}

type refDisk struct {
	block.Disk
	file    string
	history []version
	foreign string // its name, of a disk that is not ours
}

// version is a disk as it was from a time on.
type version struct {
	at   time.Time
	disk block.Disk
	gone bool
}

// NewReference makes an empty one, until the end of the test.
func NewReference(t testing.TB) *Reference {
	dir := t.TempDir()
	c := &Reference{
		region: "here", dir: dir, client: block.NewClient("reference "+dir, 10000), disks: map[string]*refDisk{}, snaps: map[string]*refSnapshot{},
		spent: map[string]bool{}, hosts: map[string]*Host{}, gone: map[string]bool{}, zones: map[string]string{},
	}
	c.others = map[string]*Reference{c.region: c}
	return c
}

// Host adds a machine.
func (c *Reference) Host(t testing.TB) *Host {
	t.Helper()
	zone := ""
	if len(c.In) > 0 {
		zone = c.In[0]
	}
	return c.HostIn(t, zone)
}

// HostIn adds a machine in a zone.
func (c *Reference) HostIn(t testing.TB, zone string) *Host {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	id := fmt.Sprintf("i-%d", c.next)
	m, err := machine.NewSeed(filepath.Join(c.dir, id), uint64(c.next))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Somebody who looked at the mounts of the machine, or copied them, lets go soon.
		for end := time.Now().Add(5 * time.Second); slices.ContainsFunc(m.Names(), m.Busy) && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &Host{ID: id, Machine: m, Provider: func(testing.TB) block.Provider { return c.provider(id) }}
	h.Terminate = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.gone[id] = true
	}
	c.hosts[id], c.zones[id] = h, zone
	return h
}

func (c *Reference) provider(host string) block.Provider {
	p := &refProvider{c, host}
	if c.Rollbacks {
		return &refRollbacker{p}
	}
	return p
}

// File returns the file with the bytes of a disk.
func (c *Reference) File(t testing.TB, id string) string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.disks[id].file
}

// Foreign makes a disk as a person does, which has none of our tags.
func (c *Reference) Foreign(t testing.TB, name string, size int64) (id string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.create(block.Spec{Size: size, Tags: block.Tags{"Name": name}}, "")
	if err != nil {
		t.Fatal(err)
	}
	d.foreign = name
	if len(c.In) > 0 {
		d.Zone = c.In[0]
	}
	d.State = block.Ready
	c.changed(d)
	return d.ID
}

// Fill makes a volume that nobody has used, without a host.
func (c *Reference) Fill(t testing.TB, namespace, name string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.create(block.Spec{Size: refUnit, Tags: block.Tags{block.TagUUID: "filled-" + name, block.TagNamespace: namespace, block.TagName: name}}, "")
	if err != nil {
		t.Fatal(err)
	}
	d.State = block.Ready
	c.changed(d)
}

// create makes a disk with a file. The caller has the lock.
func (c *Reference) create(s block.Spec, from string) (*refDisk, error) {
	c.next++
	id := fmt.Sprintf("vol-%06d", c.next)
	d := &refDisk{file: filepath.Join(c.dir, id+".disk"), Disk: block.Disk{
		ID: id, Tags: maps.Clone(s.Tags), Size: s.Size, State: block.Creating, Created: time.Now(), Type: s.Type, Zone: s.Zone,
	}}
	if from != "" {
		if err := machine.Copy(d.file, from); err != nil {
			return nil, err
		}
	} else if err := os.WriteFile(d.file, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(d.file, s.Size); err != nil {
		return nil, err
	}
	c.disks[id] = d
	return d, nil
}

// changed takes a version of the disk for lists that are behind. The caller has the lock.
func (c *Reference) changed(d *refDisk) {
	v := d.Disk
	v.Tags, v.Holders = maps.Clone(v.Tags), slices.Clone(v.Holders)
	_, there := c.disks[d.ID]
	d.history = append(d.history, version{time.Now(), v, !there})
}

// later does what takes Delay, at once if that is nothing. The caller has the lock.
func (c *Reference) later(do func()) {
	if c.Delay == 0 {
		do()
		return
	}
	time.AfterFunc(c.Delay, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		do()
	})
}

// Client returns the account's.
func (c *Reference) Client() *block.Client { return c.client }
