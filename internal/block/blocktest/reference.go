package blocktest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
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

type refSnapshot struct {
	block.Snapshot
	file string
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

// refProvider is the cloud as one host sees it.
type refProvider struct {
	c    *Reference
	host string
}

type refRollbacker struct{ *refProvider }

const refUnit = 1 << 20

func (p *refProvider) Traits() block.Traits {
	return block.Traits{
		Kind: "reference", Scope: "region " + p.c.region, Region: p.c.region, Client: p.c.client, Options: []string{"type", "snapshot", "zone"},
		Unit: refUnit, MinSize: 16 << 20, MaxSize: 1 << 40, Outlive: true, Zonal: len(p.c.In) > 0,
	}
}

// ask is one request.
func ask[T any](ctx context.Context, p *refProvider, op string, f func() (T, error)) (v T, err error) {
	err = p.c.client.Do(ctx, op, func(ctx context.Context) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		v, err = f()
		return err
	})
	return v, err
}

func (p *refProvider) Self(context.Context) (block.Host, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return block.Host{ID: p.host, Zone: p.c.zones[p.host]}, nil
}

func (p *refProvider) List(ctx context.Context, q block.Query) ([]block.Disk, error) {
	if p.c.Page > 0 && q.All() {
		p.c.mu.Lock()
		more := (len(p.c.disks) - 1) / p.c.Page
		p.c.mu.Unlock()
		for range more {
			if _, err := ask(ctx, p, "List", func() (struct{}, error) { return struct{}{}, nil }); err != nil {
				return nil, err
			}
		}
	}
	return ask(ctx, p, "List", func() ([]block.Disk, error) {
		var all []block.Disk
		now := time.Now().Add(-p.c.Lag)
		for _, d := range p.c.disks {
			for _, v := range slices.Backward(d.history) {
				if v.at.After(now) {
					continue
				}
				if v.disk.Tags[block.TagNamespace] == q.Namespace && q.Takes(d.ID, v.disk.Tags[block.TagName]) {
					v.disk.Tags, v.disk.Holders = maps.Clone(v.disk.Tags), slices.Clone(v.disk.Holders)
					all = append(all, v.disk)
				}
				break
			}
		}
		return all, nil
	})
}

func (p *refProvider) Create(ctx context.Context, s block.Spec) (block.Disk, error) {
	return ask(ctx, p, "Create", func() (block.Disk, error) {
		for _, d := range p.c.disks {
			if d.Tags[block.TagUUID] == s.UUID {
				return d.Disk, nil
			}
		}
		if p.c.spent[s.UUID] {
			return block.Disk{}, errdefs.Errorf(errdefs.ErrExists, "the token was used for a disk that is deleted")
		}
		if s.Zone == "" {
			s.Zone = p.c.zones[p.host]
		}
		if len(p.c.In) > 0 && !slices.Contains(p.c.In, s.Zone) {
			return block.Disk{}, errdefs.Errorf(errdefs.ErrInvalid, "zone %q: %s has %s", s.Zone, p.c.region, strings.Join(p.c.In, ", "))
		}
		from := ""
		if s.Snapshot != nil {
			sn, ok := p.c.snaps[s.Snapshot.ID]
			if !ok {
				return block.Disk{}, errdefs.Errorf(errdefs.ErrInvalid, "snapshot %s: there is none", s.Snapshot.ID)
			}
			if s.Size == 0 {
				s.Size = sn.Size
			}
			if s.Size < sn.Size {
				return block.Disk{}, errdefs.Errorf(errdefs.ErrInvalid, "the disk is smaller than the snapshot")
			}
			from = sn.file
		}
		d, err := p.c.create(s, from)
		if err != nil {
			return block.Disk{}, err
		}
		p.c.changed(d)
		p.c.later(func() {
			d.State = block.Ready
			p.c.changed(d)
		})
		return d.Disk, nil
	})
}

func (p *refProvider) disk(id string) (*refDisk, error) {
	d, ok := p.c.disks[id]
	if !ok {
		return nil, errdefs.Errorf(errdefs.ErrNotFound, "disk %s: there is none", id)
	}
	return d, nil
}

func (p *refProvider) Delete(ctx context.Context, disk block.Disk) error {
	_, err := ask(ctx, p, "Delete", func() (struct{}, error) {
		d, err := p.disk(disk.ID)
		if errors.Is(err, errdefs.ErrNotFound) {
			return struct{}{}, nil
		}
		if len(d.Holders) > 0 {
			return struct{}{}, errdefs.Errorf(errdefs.ErrInUse, "disk %s is attached", d.ID)
		}
		delete(p.c.disks, d.ID)
		p.c.spent[d.Tags[block.TagUUID]] = true
		return struct{}{}, os.Remove(d.file)
	})
	return err
}

func (p *refProvider) Attach(ctx context.Context, disk block.Disk, self block.Host) error {
	_, err := ask(ctx, p, "Attach", func() (struct{}, error) {
		var none struct{}
		d, err := p.disk(disk.ID)
		if err != nil {
			return none, err
		}
		if p.c.hosts[self.ID] == nil {
			return none, errdefs.Errorf(errdefs.ErrNotFound, "host %s: there is none", self.ID)
		}
		if zone := p.c.zones[self.ID]; d.Zone != zone {
			return none, errdefs.Errorf(errdefs.ErrInvalid, "disk %s is in %s, %s in %s", d.ID, d.Zone, self.ID, zone)
		}
		if len(d.Holders) > 0 {
			h := d.Holders[0]
			if h.Host == self.ID && h.State != block.Detaching {
				return none, nil
			}
			return none, errdefs.Errorf(errdefs.ErrInUse, "disk %s is %s to %s", d.ID, h.State, h.Host)
		}
		if d.State != block.Ready {
			return none, errdefs.Errorf(errdefs.ErrInUse, "disk %s is %s", d.ID, d.State)
		}
		d.Holders = []block.Holder{{Host: self.ID, State: block.Attaching, Since: time.Now()}}
		p.c.changed(d)
		p.c.later(func() {
			if err = p.c.plug(d, self.ID); err == nil {
				d.Holders[0].State = block.Attached
			} else {
				d.Holders = nil
			}
			p.c.changed(d)
		})
		return none, err
	})
	return err
}

func (c *Reference) plug(d *refDisk, host string) error {
	serial := d.ID
	_, err := c.hosts[host].Machine.Plug(machine.Disk{
		File: d.file, Bus: machine.SCSI, Serial: serial, Vendor: "REMORA", Model: "Reference", Links: []string{"scsi-0Reference_" + serial},
	})
	return err
}

func (p *refProvider) Detach(ctx context.Context, disk block.Disk, host string, force bool) error {
	_, err := ask(ctx, p, "Detach", func() (struct{}, error) {
		var none struct{}
		d, err := p.disk(disk.ID)
		if err != nil {
			return none, err
		}
		if len(d.Holders) == 0 || d.Holders[0].Host != host || d.Holders[0].State == block.Detaching && !force {
			return none, nil
		}
		m := p.c.hosts[host].Machine
		name, shown := m.Named(d.file)
		if shown && !force && m.Busy(name) {
			return none, errdefs.Errorf(errdefs.ErrInUse, "disk %s is busy on %s", d.ID, host)
		}
		d.Holders[0].State = block.Detaching
		p.c.changed(d)
		p.c.later(func() {
			if name, shown := m.Named(d.file); shown {
				err = m.Unplug(name)
				if errors.Is(err, unix.EBUSY) && force {
					err = m.Yank(name)
				}
			}
			if err == nil {
				d.Holders = nil
			} else {
				d.Holders[0].State = block.Attached
			}
			p.c.changed(d)
		})
		return none, err
	})
	return err
}

func (p *refProvider) SetTags(ctx context.Context, disk block.Disk, tags block.Tags) error {
	_, err := ask(ctx, p, "SetTags", func() (struct{}, error) {
		d, err := p.disk(disk.ID)
		if err != nil {
			return struct{}{}, err
		}
		d.Tags = maps.Clone(d.Tags)
		for k, v := range tags {
			if d.Tags[k] = v; v == "" {
				delete(d.Tags, k)
			}
		}
		p.c.changed(d)
		return struct{}{}, nil
	})
	return err
}

func (p *refProvider) Match(d block.Disk, v block.Device) bool { return v.Serial == d.ID }

func (p *refProvider) Online() bool { return true }

func (p *refProvider) Resize(ctx context.Context, disk block.Disk, size int64) error {
	_, err := ask(ctx, p, "Resize", func() (struct{}, error) {
		d, err := p.disk(disk.ID)
		if err != nil || d.Size >= size {
			return struct{}{}, err
		}
		if err := os.Truncate(d.file, size); err != nil {
			return struct{}{}, err
		}
		d.Size = size
		p.c.changed(d)
		if len(d.Holders) > 0 {
			m := p.c.hosts[d.Holders[0].Host].Machine
			if name, ok := m.Named(d.file); ok {
				return struct{}{}, m.Grow(name)
			}
		}
		return struct{}{}, nil
	})
	return err
}

func (p *refProvider) Gone(ctx context.Context, host string) (bool, error) {
	return ask(ctx, p, "Gone", func() (bool, error) { return p.c.gone[host], nil })
}

func (p *refProvider) Snapshots(ctx context.Context, q block.Query) ([]block.Snapshot, error) {
	return ask(ctx, p, "Snapshots", func() ([]block.Snapshot, error) {
		var all []block.Snapshot
		for _, s := range p.c.snaps {
			if s.Tags[block.TagNamespace] == q.Namespace && q.Takes(s.ID, s.Tags[block.TagName]) {
				all = append(all, s.Snapshot)
			}
		}
		return all, nil
	})
}

func (p *refProvider) CreateSnapshot(ctx context.Context, disk block.Disk, tags block.Tags) (block.Snapshot, error) {
	return ask(ctx, p, "CreateSnapshot", func() (block.Snapshot, error) {
		for _, s := range p.c.snaps {
			if s.Tags[block.TagUUID] == tags[block.TagUUID] {
				return s.Snapshot, nil
			}
		}
		d, err := p.disk(disk.ID)
		if err != nil {
			return block.Snapshot{}, err
		}
		p.c.next++
		s := &refSnapshot{Snapshot: block.Snapshot{
			ID: fmt.Sprintf("snap-%06d", p.c.next), Tags: maps.Clone(tags), Size: d.Size, State: block.Creating, Created: time.Now(),
		}}
		s.file = filepath.Join(p.c.dir, s.ID+".snap")
		if err := machine.Copy(s.file, d.file); err != nil {
			return block.Snapshot{}, err
		}
		p.c.snaps[s.ID] = s
		p.c.later(func() { s.State = block.Ready })
		return s.Snapshot, nil
	})
}

func (p *refProvider) DeleteSnapshot(ctx context.Context, sn block.Snapshot) error {
	_, err := ask(ctx, p, "DeleteSnapshot", func() (struct{}, error) {
		s, ok := p.c.snaps[sn.ID]
		if !ok {
			return struct{}{}, nil
		}
		delete(p.c.snaps, sn.ID)
		return struct{}{}, os.Remove(s.file)
	})
	return err
}

func (p *refRollbacker) Rollback(ctx context.Context, disk block.Disk, sn block.Snapshot) error {
	_, err := ask(ctx, p.refProvider, "Rollback", func() (struct{}, error) {
		d, err := p.disk(disk.ID)
		if err != nil {
			return struct{}{}, err
		}
		s, ok := p.c.snaps[sn.ID]
		if !ok || len(d.Holders) > 0 {
			return struct{}{}, errdefs.Errorf(errdefs.ErrInUse, "disk %s is attached", d.ID)
		}
		temp := d.file + ".new"
		if err := machine.Copy(temp, s.file); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, errors.Join(os.Truncate(temp, d.Size), os.Rename(temp, d.file))
	})
	return err
}

func (p *refProvider) Find(ctx context.Context, ref string) ([]block.Foreign, error) {
	return ask(ctx, p, "Find", func() ([]block.Foreign, error) {
		var all []block.Foreign
		for _, d := range p.c.disks {
			if d.foreign != "" && d.Tags[block.TagUUID] == "" && (ref == "" || ref == d.ID || ref == d.foreign) {
				all = append(all, block.Foreign{Disk: d.Disk, Name: d.foreign})
			}
		}
		return all, nil
	})
}

func (p *refProvider) Adopt(ctx context.Context, f block.Foreign, tags block.Tags) error {
	return p.SetTags(ctx, f.Disk, tags)
}

// Client returns the account's.
func (c *Reference) Client() *block.Client { return c.client }
