package blocktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// zoned returns two zones, or skips.
func zoned(s *stage) (one, two string) {
	s.Helper()
	z, ok := s.cloud.(Zoned)
	if !ok || len(z.Zones()) < 2 {
		s.Skip("deviates: the cloud has no zones here")
	}
	return z.Zones()[0], z.Zones()[1]
}

func (h *host) move(name string, to volume.Place) error {
	ctx, cancel := context.WithTimeout(h.s.Context(), time.Minute+h.s.Slow)
	defer cancel()
	return h.driver.(volume.Mover).Move(ctx, name, to)
}

func (h *host) mustMove(name string, to volume.Place) {
	h.s.Helper()
	if err := h.move(name, to); err != nil {
		h.s.Fatalf("move %s to %+v: %v", name, to, err)
	}
}

// tidied wants as many live disks of a name, one old one in the trash for each move, and no snapshot
// that was made for one.
func (h *host) tidied(name string, live, trashed, snapshots int) {
	h.s.Helper()
	var state string
	is := func() bool {
		n, gone := 0, 0
		for _, d := range h.s.disks(h, name) {
			switch {
			case d.Tags["trashed"] != "":
				gone++
			case d.State != block.Deleting:
				n++
			}
			if d.Tags["moving"] != "" || d.Tags["temp"] != "" {
				n += 100
			}
		}
		all, err := h.Provider(h.s).(block.Snapshotter).Snapshots(h.s.Context(), block.Query{Namespace: "test", Names: []string{name}})
		state = fmt.Sprintf("%d disks, %d in the trash, %d snapshots, %v", n, gone, len(all), err)
		return n == live && gone == trashed && len(all) == snapshots && err == nil
	}
	for end := time.Now().Add(h.s.Slow); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			h.s.Fatalf("%s on %s: want %d, %d, %d, and it is: %s", name, h.ID, live, trashed, snapshots, state)
		}
	}
}

// zones: a disk in another zone is refused with both zones, and what to do.
func zones(s *stage) {
	one, two := zoned(s)
	a, b := s.hostIn(one), s.hostIn(two)
	a.mustCreate("data")
	_, err := b.mount("data")
	s.wantErr(err, errdefs.ErrInvalid, one, two, "remora volume move data --zone "+two)
	at := a.mustMount("data")
	s.write(at, "f", "x")
	// A host that cannot have the disk takes it from nobody.
	s.wantErr(b.driver.(volume.Attacher).Attach(s.Context(), "data", true), errdefs.ErrInvalid, one, two)
	must(s, a.driver.(volume.Looker).Look(s.Context(), "data", at))
	s.write(at, "f", "y")
	a.mustUnmount("data")
	b.mustCreate("other", "zone="+two)
	b.mustMount("other")
	b.mustUnmount("other")
}

// moveZone: a volume is moved to another zone with its data and its snapshots; the old disk is in the
// trash, and for every host the name is one disk.
func moveZone(s *stage) {
	one, two := zoned(s)
	a, b := s.hostIn(one), s.hostIn(two)
	need[volume.Mover](b)
	a.mustCreate("data", "mode=0750")
	s.write(a.mustMount("data"), "f", "first")
	must(s, a.driver.(volume.Snapshotter).CreateSnapshot(s.Context(), "data", "s1", nil))
	s.write(a.target("data"), "f", "last")
	s.wantErr(a.move("data", volume.Place{Zone: two}), errdefs.ErrInUse)
	s.wantErr(b.move("data", volume.Place{Zone: two}), errdefs.ErrInUse, a.ID)
	a.mustUnmount("data")
	a.detached()
	s.wantErr(b.move("nosuch", volume.Place{Zone: two}), errdefs.ErrNotFound)
	if err := b.move("data", volume.Place{Zone: "nosuch"}); err == nil {
		s.Error("moved to a zone that there is not")
	}
	b.tidied("data", 1, 0, 1)
	old := a.disk("data")

	s.eventually("the move", func() bool { // a list may still show the first host
		err := b.move("data", volume.Place{Zone: two})
		return err == nil || !errors.Is(err, errdefs.ErrInUse) && fail(s, err)
	})
	b.tidied("data", 1, 1, 1)
	s.mustRead(b.mustMount("data"), "f", "last")
	b.mustUnmount("data")
	b.detached()
	disk := b.disk("data")
	if disk == old {
		s.Error("it is the old disk")
	}
	b.mustMove("data", volume.Place{Zone: two}) // again
	b.tidied("data", 1, 1, 1)
	if got := b.inspect("data").Options["mode"]; got != "0750" {
		s.Errorf("option mode is %q", got)
	}
	_, err := a.mount("data")
	s.wantErr(err, errdefs.ErrInvalid, one, two)
	if got := a.disk("data"); got != disk {
		s.Errorf("the first host has disk %s, the second %s", got, disk)
	}

	tr := b.driver.(volume.Trasher)
	in, err := tr.Trashed(s.Context())
	if err != nil || len(in) != 1 {
		s.Fatalf("in the trash: %v, %v", in, err)
	}
	if outlives := a.Provider(s).Traits().Outlive; outlives {
		must(s, tr.Purge(s.Context(), in[0].ID))
		if got := snapshotNames(s, b, "data"); len(got) != 1 {
			s.Errorf("snapshots after the old disk is gone: %q", got)
		}
		must(s, b.driver.(volume.Cloner).Clone(s.Context(), "copy", "data", "s1", map[string]string{}))
		s.mustRead(b.mustMount("copy"), "f", "first")
		b.mustUnmount("copy")
	}
}

func fail(s *stage, err error) bool {
	s.Helper()
	s.Fatal(err)
	return false
}

// moveGivenUp: while a volume is moved nobody mounts it, and any host may end the move.
func moveGivenUp(s *stage) {
	one, two := zoned(s)
	a, b := s.hostIn(one), s.hostIn(two)
	need[volume.Mover](b)
	a.mustCreate("data")
	s.write(a.mustMount("data"), "f", "x")
	a.mustUnmount("data")
	a.detached()
	time.Sleep(s.Lag)
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.faults.Set(func(op string) error {
		if op == "Create" {
			once.Do(func() { close(reached) })
			<-release
		}
		return nil
	}, nil)
	done := make(chan error, 1)
	go func() { done <- b.move("data", volume.Place{Zone: two}) }()
	select {
	case <-reached:
	case err := <-done:
		s.Fatal(err)
	}
	time.Sleep(s.Lag)
	_, err := a.mount("data")
	s.wantErr(err, errdefs.ErrInUse, "being moved to zone "+two, "remora volume move data --zone "+one)
	s.wantErr(a.driver.Remove(s.Context(), "data"), errdefs.ErrInUse, "being moved")
	a.mustMove("data", volume.Place{Zone: one})
	close(release)
	if err := <-done; err == nil {
		s.Error("the move that was given up has come to its end")
	}
	time.Sleep(s.Lag)
	s.mustRead(a.mustMount("data"), "f", "x")
	a.mustUnmount("data")
	a.detached()
}

// far opens a second pool of the daemon, in the other region.
func (h *host) far(at *Host) *host {
	h.s.Helper()
	return h.s.daemon(&host{Host: at, dir: h.dir, pool: "far"})
}

// moveRegion: a volume is moved to a pool in another region.
func moveRegion(s *stage) {
	r, ok := s.cloud.(Regioned)
	if !ok {
		s.Skip("deviates: the cloud has no other region here")
	}
	other := r.Elsewhere(s)
	a := s.host()
	need[volume.Mover](a)
	zone := ""
	if z, ok := other.(Zoned); ok && len(z.Zones()) > 0 {
		zone = z.Zones()[0]
	}
	region := other.(Regioned).Region()
	s.wantErr(a.move("data", volume.Place{Region: region}), errdefs.ErrNotFound, region)
	s.wantErr(a.move("data", volume.Place{Pool: "nosuch"}), errdefs.ErrUnsupported, "nosuch", "remora backup")
	b := a.far(other.Host(s))
	s.wantErr(a.move("data", volume.Place{Region: region, Zone: zone}), errdefs.ErrNotFound)
	a.mustCreate("data")
	s.write(a.mustMount("data"), "f", "x")
	a.mustUnmount("data")
	a.detached()
	time.Sleep(s.Lag)
	if zone != "" {
		s.wantErr(a.move("data", volume.Place{Region: region}), errdefs.ErrInvalid, "--zone")
	}
	s.wantErr(a.move("data", volume.Place{Pool: "pool"}), errdefs.ErrInvalid)
	b.mustCreate("data")
	s.wantErr(a.move("data", volume.Place{Pool: "far", Zone: zone}), errdefs.ErrExists, "far")
	b.mustRemove("data")
	a.mustMove("data", volume.Place{Region: region, Zone: zone})
	time.Sleep(s.Lag)
	s.mustRead(b.mustMount("data"), "f", "x")
	b.mustUnmount("data")
	b.tidied("data", 1, 0, 0)
	a.tidied("data", 0, 1, 0)
	_, err := a.mount("data")
	s.wantErr(err, errdefs.ErrNotFound)
}

// moveCrashes: the daemon ends at each call of a move, before it has its effect and after. The next
// one finishes, with the data in one disk.
func moveCrashes(s *stage) {
	one, two := zoned(s)
	if s.Slow > 20*time.Second {
		s.Skip("deviates: it takes too long with a cloud that takes its time")
	}
	step := 1
	if testing.Short() {
		step = 4
	}
	for _, after := range []bool{false, true} {
		s.atEach(step, func(at int) bool { return s.moveCrash(at, after, one, two) })
	}
	r, ok := s.cloud.(Regioned)
	if !ok {
		return
	}
	other := r.Elsewhere(s)
	for _, after := range []bool{false, true} {
		s.atEach(step, func(at int) bool { return s.farCrash(at, after, other) })
	}
}

// dieAt has hosts' daemon die at a call, and tells what became of a move in which it may.
func (s *stage) dieAt(at int, after bool, do func() error, hosts ...*host) (crashed bool) {
	s.Helper()
	died := make(chan struct{})
	var mu sync.Mutex
	n := 0
	count := func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == at {
			for _, h := range hosts {
				h.faults.die()
			}
			close(died)
		}
		return nil
	}
	for _, h := range hosts {
		if after {
			h.faults.Set(nil, count)
		} else {
			h.faults.Set(count, nil)
		}
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		if err != nil {
			s.Fatalf("crash %d, after=%v: %v", at, after, err)
		}
		for _, h := range hosts {
			h.faults.Set(nil, nil)
		}
		return false
	case <-died:
	}
	for _, h := range hosts {
		h.crash()
	}
	for _, h := range hosts {
		h.open()
	}
	<-done
	return true
}

func (s *stage) moveCrash(at int, after bool, one, two string) bool {
	s.Helper()
	a, b := s.hostIn(one), s.hostIn(two)
	name, text := fmt.Sprintf("data-%d-%v", at, after), fmt.Sprint(at, after)
	a.mustCreate(name)
	s.write(a.mustMount(name), "f", text)
	a.mustUnmount(name)
	a.detached()
	a.settle()
	move := func() error { return b.move(name, volume.Place{Zone: two}) }
	crashed := s.dieAt(at, after, move, b)
	if err := move(); err != nil {
		s.Fatalf("crash %d, after=%v: %v", at, after, err)
	}
	b.settle()
	b.tidied(name, 1, 1, 0)
	s.mustRead(b.mustMount(name), "f", text)
	b.mustUnmount(name)
	b.detached()
	a.close()
	b.close()
	return crashed
}

func (s *stage) farCrash(at int, after bool, other Cloud) bool {
	s.Helper()
	zone := ""
	if z, ok := other.(Zoned); ok && len(z.Zones()) > 0 {
		zone = z.Zones()[0]
	}
	a := s.host()
	b := a.far(other.Host(s))
	name, text := fmt.Sprintf("far-%d-%v", at, after), fmt.Sprint(at, after)
	a.mustCreate(name)
	s.write(a.mustMount(name), "f", text)
	a.mustUnmount(name)
	a.detached()
	a.settle()
	move := func() error {
		err := a.move(name, volume.Place{Pool: "far", Zone: zone})
		if errors.Is(err, errdefs.ErrNotFound) && strings.Contains(err.Error(), "no such volume") {
			return nil // it was done
		}
		return err
	}
	crashed := s.dieAt(at, after, move, a, b)
	if err := move(); err != nil {
		s.Fatalf("far crash %d, after=%v: %v", at, after, err)
	}
	a.settle()
	a.tidied(name, 0, 1, 0)
	b.tidied(name, 1, 0, 0)
	s.mustRead(b.mustMount(name), "f", text)
	b.mustUnmount(name)
	b.detached()
	b.close()
	a.close()
	return crashed
}
