package blocktest

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// formattedMeanwhile: a host that waits for a disk while another one formats and uses it finds it as
// that one left it.
func formattedMeanwhile(s *stage) {
	one, two := s.host(), s.host(func(c *block.Config) { c.Wait = s.Slow })
	one.mustCreate("data")
	made, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	tags := 0
	one.faults.Set(func(op string) error {
		mu.Lock()
		last := op == "SetTags" && tags == 1
		if op == "SetTags" {
			tags++
		}
		mu.Unlock()
		if last { // the file system is made, and its record is not written yet
			close(made)
			<-release
		}
		return nil
	}, nil)
	first := make(chan error, 1)
	go func() {
		_, err := one.mount("data")
		first <- err
	}()
	<-made
	time.Sleep(s.Lag)
	second := make(chan error, 1)
	go func() {
		_, err := two.mount("data")
		second <- err
	}()
	s.eventually("the second host waits", func() bool {
		return strings.Contains(fmt.Sprint(two.driver.(volume.Worker).Jobs()), "to let go of the disk")
	})
	close(release)
	must(s, <-first)
	at := one.target("data")
	s.write(at, "f", "of the first")
	must(s, os.Chmod(at, 0o711))
	one.mustUnmount("data")
	must(s, <-second)
	s.mustRead(two.target("data"), "f", "of the first")
	if fi, err := os.Stat(two.target("data")); err != nil || fi.Mode().Perm() != fs.FileMode(0o711) {
		s.Errorf("mode %v, %v: it was set again", fi.Mode(), err)
	}
	two.mustUnmount("data")
}

// usedElsewhere: what another host uses is not brought to the trash, and not back to a snapshot, by
// one who remembers it as free.
func usedElsewhere(s *stage) {
	one := s.host()
	one.mustCreate("data")
	s.write(one.mustMount("data"), "f", "x")
	sn, snaps := one.driver.(volume.Snapshotter)
	if snaps {
		must(s, sn.CreateSnapshot(s.Context(), "data", "s1", nil))
	}
	one.mustUnmount("data")
	one.detached()
	time.Sleep(s.Lag)
	two := s.host()
	s.mustRead(one.mustMount("data"), "f", "x")
	time.Sleep(s.Lag)
	disk := one.disk("data")
	s.wantErr(two.driver.(volume.Trasher).Trash(s.Context(), "data"), errdefs.ErrInUse, one.ID)
	one.mustUnmount("data")
	one.detached()
	time.Sleep(s.Lag)
	two.again()
	s.mustRead(one.mustMount("data"), "f", "x")
	time.Sleep(s.Lag)
	if rb, ok := two.driver.(volume.Rollbacker); ok && snaps {
		err := rb.Rollback(s.Context(), "data", "s1")
		if !unsupported(err) {
			s.wantErr(err, errdefs.ErrInUse)
		}
	}
	if got := s.disks(one, "data"); len(got) != 1 || got[0].ID != disk || got[0].Tags["trashed"] != "" {
		s.Errorf("the disk in use is now %+v", got)
	}
	s.mustRead(one.target("data"), "f", "x")
	one.mustUnmount("data")
}

// copyOfOldMemory: a snapshot and a clone made by a host that remembers the volume from before it was
// formatted are as good as any.
func copyOfOldMemory(s *stage) {
	one := s.host()
	need[volume.Cloner](one)
	one.mustCreate("data")
	time.Sleep(s.Lag)
	two := s.host()
	s.write(one.mustMount("data"), "f", "x")
	time.Sleep(s.Lag)
	must(s, two.driver.(volume.Cloner).Clone(s.Context(), "copy", "data", "", map[string]string{}))
	s.mustRead(two.mustMount("copy"), "f", "x")
	two.mustUnmount("copy")
	three := s.host()
	must(s, three.driver.(volume.Snapshotter).CreateSnapshot(s.Context(), "data", "s1", nil))
	must(s, three.driver.(volume.Cloner).Clone(s.Context(), "second", "data", "s1", map[string]string{}))
	s.mustRead(three.mustMount("second"), "f", "x")
	three.mustUnmount("second")
	one.mustUnmount("data")
}

// snapshotsOfOthers: what is removed leaves no snapshot, of another host neither, and a clone that
// fails none of its own.
func snapshotsOfOthers(s *stage) {
	one, two := s.host(), s.host()
	sn := need[volume.Snapshotter](one)
	one.mustCreate("data")
	s.write(one.mustMount("data"), "f", "x")
	one.mustUnmount("data")
	one.detached()
	time.Sleep(s.Lag)
	must(s, sn.CreateSnapshot(s.Context(), "data", "s1", nil))
	must(s, two.driver.(volume.Snapshotter).CreateSnapshot(s.Context(), "data", "s2", nil))
	one.faults.Set(func(op string) error {
		if op == "Create" {
			return errdefs.Errorf(errdefs.ErrInvalid, "the quota is used up")
		}
		return nil
	}, nil)
	if err := one.driver.(volume.Cloner).Clone(s.Context(), "copy", "data", "", map[string]string{}); err == nil {
		s.Error("a clone without a disk")
	}
	one.faults.Set(nil, nil)
	time.Sleep(s.Lag)
	one.mustRemove("data")
	s.eventually("no snapshot is left", func() bool {
		left, err := one.Provider(s).(block.Snapshotter).Snapshots(s.Context(), block.Query{Namespace: "test"})
		return err == nil && len(left) == 0
	})
}

// removedOnce: a removal whose end was lost, and that goes on after a crash, does not touch what was
// made under the name since.
func removedOnce(s *stage) {
	one := s.host(func(c *block.Config) { c.Refresh = time.Second })
	one.mustCreate("data")
	one.settle()
	done := make(chan struct{})
	var once sync.Once
	died := one.faults.died
	one.faults.Set(nil, func(op string) error {
		if op != "Delete" {
			return nil
		}
		once.Do(func() { close(done) })
		<-died
		return nil
	})
	removed := make(chan error, 1)
	driver := one.driver
	go func() { removed <- driver.Remove(s.Context(), "data") }()
	<-done
	two := s.host()
	time.Sleep(s.Lag)
	two.mustCreate("data")
	s.write(two.mustMount("data"), "f", "new")
	two.mustUnmount("data")
	two.detached()
	disk := two.disk("data")
	s.eventually("the first host hears of the new one", func() bool {
		info, err := one.driver.(volume.Inspector).Inspect(s.Context(), "data")
		return err == nil && fmt.Sprint(info.Status["disk"]) == disk
	})
	one.again()
	<-removed
	one.settle()
	if got := s.disks(two, "data"); len(got) != 1 || got[0].ID != disk {
		s.Fatalf("the volume that was made since is %v", got)
	}
	s.mustRead(two.mustMount("data"), "f", "new")
	two.mustUnmount("data")
}

// attachedUnawares: a disk that was attached to this host behind its back, or by a daemon that died before it
// could remember that, is detached to be removed.
func attachedUnawares(s *stage) {
	h := s.host()
	if h.Machine == nil {
		s.Skip("deviates: nobody else attaches a disk to this machine")
	}
	h.mustCreate("data")
	h.settle()
	time.Sleep(s.Lag)
	p := h.Provider(s)
	self, err := p.Self(s.Context())
	must(s, err)
	must(s, p.Attach(s.Context(), s.disks(h, "data")[0], self))
	s.eventually("it is attached", func() bool { return len(h.attached()) == 1 })
	time.Sleep(s.Lag)
	h.mustRemove("data")
	s.noneLeft(h)
	h.detached()
}

// givenWay: whose disk another host deletes while it is made, as it has one of that name, has that one.
func givenWay(s *stage) {
	h := s.host()
	p := h.Provider(s)
	var once sync.Once
	var other block.Disk
	h.faults.Set(nil, func(op string) error {
		if op != "Create" {
			return nil
		}
		once.Do(func() {
			first := s.listed(h, "data", func(block.Disk) bool { return true })
			id := "00000000-0000-8000-8000-00000000cafe"
			var err error
			other, err = p.Create(s.Context(), block.Spec{UUID: id, Size: s.Size, Tags: block.Tags{block.TagUUID: id, block.TagNamespace: "test", block.TagName: "data", "fs": "ext4"}})
			must(s, err)
			s.listed(h, "data", func(d block.Disk) bool { return d.ID == other.ID && d.State == block.Ready })
			must(s, p.Delete(s.Context(), first))
			s.eventually("the first is deleted", func() bool {
				return !slices.ContainsFunc(s.disks(h, "data"), func(d block.Disk) bool { return d.ID == first.ID && d.State != block.Deleting })
			})
			time.Sleep(s.Lag)
		})
		return nil
	})
	h.mustCreate("data")
	if got := h.disk("data"); got != other.ID {
		s.Errorf("disk %s, and the other host has made %s", got, other.ID)
	}
	s.write(h.mustMount("data"), "f", "x")
	h.mustUnmount("data")
}

// listed returns a disk of a name as soon as the cloud lists one that is as wanted.
func (s *stage) listed(h *host, name string, is func(block.Disk) bool) (found block.Disk) {
	s.Helper()
	s.eventually("the disk is listed", func() bool {
		all := s.disks(h, name)
		i := slices.IndexFunc(all, is)
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}
