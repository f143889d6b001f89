package blocktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Figure is how many requests one thing that an engine does comes to, as the account's client counts
// them: each page of a list, and each try.
type Figure struct {
	What string
	// Remora and Listing are as measured, the latter for a plugin in the manner of REX-Ray.
	Remora, Listing float64
	// Least is what nobody can do without who keeps no memory of the disk.
	Least float64
}

// Requests plays the life of a volume, rounds times over, in an account with n others: with Remora,
// and with a plugin that lists the account for each call of the engine and after each change, and
// asks for a disk until it is as it should be, which is how REX-Ray goes about it. Both are asked as
// an engine asks: a Get before each create, mount, unmount and remove.
func Requests(t *testing.T, c Config, n, rounds int) []Figure {
	s := newStage(t, c)
	s.poll = 0
	h := s.host(func(c *block.Config) { c.Detach = 0 })
	s.fill(h, n)
	h.again()
	s.eventually("all are listed", func() bool { return len(s.names(h)) == n })
	h.settle()
	p := h.Provider(s)
	l := &listing{s: s, p: p}
	self, err := p.Self(s.Context())
	must(s, err)
	l.self = self
	get := func() error { _, err := h.driver.(volume.Inspector).Inspect(s.Context(), "data"); return err }
	away := func() error {
		if err := h.unmount("data"); err != nil {
			return err
		}
		h.detached()
		h.settle()
		return nil
	}
	mounted := func() error { _, err := h.mount("data"); return err }
	list := func() error { s.names(h); return nil }
	all := []struct {
		what   string
		least  float64
		remora func() error
		other  func() error
	}{
		// Look for the name, make it, see that it is made.
		{"create", 3, func() error { return h.create("data") }, l.create},
		// Look who has it, attach it, and write down that it is formatted.
		{"first mount", 4, inTurn(get, mounted), l.mount},
		{"unmount", 1, inTurn(get, away), l.unmount},
		{"mount", 2, inTurn(get, mounted), l.mount},
		{"unmount again", 1, inTurn(get, away), l.unmount},
		{"docker volume ls", 0, list, l.list},
		{"docker volume inspect", 0, get, l.list},
		// Look for its snapshots, which other hosts may have made, and delete it.
		{"remove", 2, inTurn(get, func() error { return h.driver.Remove(s.Context(), "data") }), l.remove},
	}
	figures := make([]Figure, len(all))
	client := p.Traits().Client
	for _, other := range []bool{false, true} {
		for range rounds {
			for i, one := range all {
				do := one.remora
				if other {
					do = one.other
				}
				before := asked(client)
				if err := do(); err != nil {
					s.Fatalf("%s: %v", one.what, err)
				}
				f := &figures[i]
				f.What, f.Least = one.what, one.least
				if did := float64(asked(client)-before) / float64(rounds); other {
					f.Listing += did
				} else {
					f.Remora += did
				}
			}
		}
	}
	for _, f := range figures {
		s.Logf("%6d volumes: %-22s Remora %5.1f, least %3.0f, listing %6.1f", n, f.What, f.Remora, f.Least, f.Listing)
	}
	return figures
}

func inTurn(a, b func() error) func() error {
	return func() error { return errors.Join(a(), b()) }
}

func asked(c *block.Client) (n int) {
	for _, count := range c.Counts() {
		n += count.N
	}
	return n
}

// listing is what a plugin asks that lists the account for each call.
type listing struct {
	s    *stage
	p    block.Provider
	self block.Host
	made int
}

// all lists the account, and finds the volume in it, as REX-Ray does for whatever it is asked.
func (l *listing) all() (block.Disk, error) {
	list, err := l.p.List(l.s.Context(), block.Query{Namespace: "test"})
	if err != nil {
		return block.Disk{}, err
	}
	i := slices.IndexFunc(list, func(d block.Disk) bool { return d.Tags[block.TagName] == "listed" && d.State != block.Deleting })
	if i < 0 {
		return block.Disk{}, errdefs.Errorf(errdefs.ErrNotFound, "no such volume")
	}
	return list[i], nil
}

func (l *listing) list() error { _, err := l.all(); return err }

// until asks for a disk until it is as is wants it.
func (l *listing) until(d block.Disk, is func(block.Disk) bool) error {
	ctx, cancel := context.WithTimeout(l.s.Context(), l.s.Slow)
	defer cancel()
	for {
		list, err := l.p.List(ctx, block.Query{Namespace: "test", IDs: []string{d.ID}})
		if err != nil {
			return err
		}
		if len(list) == 0 && is(block.Disk{State: block.Deleting}) || len(list) == 1 && is(list[0]) {
			return nil
		}
		time.Sleep(l.s.Slow / 50)
	}
}

func (l *listing) create() error {
	if err := l.list(); !errors.Is(err, errdefs.ErrNotFound) { // Get
		return fmt.Errorf("there is one: %w", err)
	}
	_ = l.list() // whether the name is free
	l.made++
	id := fmt.Sprintf("00000000-0000-8000-8001-%012x", l.made)
	d, err := l.p.Create(l.s.Context(), block.Spec{UUID: id, Size: l.s.Size, Tags: block.Tags{block.TagUUID: id, block.TagNamespace: "test", block.TagName: "listed"}})
	if err != nil {
		return err
	}
	if err := l.until(d, func(d block.Disk) bool { return d.State == block.Ready }); err != nil {
		return err
	}
	return l.list()
}

func (l *listing) mount() error {
	if err := l.list(); err != nil { // Get
		return err
	}
	d, err := l.all()
	if err != nil {
		return err
	}
	if err := l.p.Attach(l.s.Context(), d, l.self); err != nil {
		return err
	}
	err = l.until(d, func(d block.Disk) bool { return len(d.Holders) == 1 && d.Holders[0].State == block.Attached })
	return errors.Join(err, l.list())
}

func (l *listing) unmount() error {
	if err := l.list(); err != nil { // Get
		return err
	}
	d, err := l.all()
	if err != nil {
		return err
	}
	if err := l.p.Detach(l.s.Context(), d, l.self.ID, false); err != nil {
		return err
	}
	err = l.until(d, func(d block.Disk) bool { return len(d.Holders) == 0 })
	return errors.Join(err, l.list())
}

func (l *listing) remove() error {
	if err := l.list(); err != nil { // Get
		return err
	}
	d, err := l.all()
	if err != nil {
		return err
	}
	if err := l.p.Delete(l.s.Context(), d); err != nil {
		return err
	}
	return l.until(d, func(d block.Disk) bool { return d.State == block.Deleting })
}

// Mounts measures mounts of a disk that is formatted: how long one takes beyond what the cloud takes
// for its calls, and delay, in which it attaches a disk after its answer.
func Mounts(b *testing.B, c Config, delay time.Duration) {
	s := &stage{TB: b, Config: c.defaults(), cloud: c.New(b)}
	h := s.host(func(c *block.Config) { c.Detach = 0 })
	h.mustCreate("data")
	h.mustMount("data")
	h.mustUnmount("data")
	h.detached()
	var beyond, whole []time.Duration
	for b.Loop() {
		h.settle()
		h.faults.spent()
		began := time.Now()
		h.mustMount("data")
		took := time.Since(began)
		whole, beyond = append(whole, took), append(beyond, took-h.faults.spent()-delay)
		h.mustUnmount("data")
		h.detached()
	}
	slices.Sort(whole)
	slices.Sort(beyond)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(whole[len(whole)/2].Microseconds())/1000, "ms/mount")
	b.ReportMetric(float64(beyond[len(beyond)/2].Microseconds())/1000, "p50-ms-beyond-API")
	b.ReportMetric(float64(beyond[len(beyond)*99/100].Microseconds())/1000, "p99-ms-beyond-API")
}
