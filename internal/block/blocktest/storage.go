package blocktest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// need returns the driver as one that can more, or skips.
func need[T any](h *host) T {
	h.s.Helper()
	d, ok := h.driver.(T)
	if !ok {
		h.s.Skip("deviates: the provider cannot do this")
	}
	return d
}

func room(s *stage, at string) int64 {
	s.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		s.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize
}

// resize: a volume grows with its file system, mounted and not.
func resize(s *stage) {
	h := s.host()
	need[volume.Resizer](h)
	h.mustCreate("data")
	at := h.mustMount("data")
	s.write(at, "f", "x")
	before := room(s, at)
	err := h.driver.(volume.Resizer).Resize(s.Context(), "data", s.Bigger)
	online := !isDenied(err)
	if err != nil && online {
		s.Fatal(err)
	}
	if !online { // the kernel wants a capability; then the next mount does it
		h.mustUnmount("data")
		at = h.mustMount("data")
	}
	if after := room(s, at); after <= before {
		s.Errorf("%d bytes before, %d after", before, after)
	}
	s.mustRead(at, "f", "x")
	h.mustUnmount("data")
	h.detached()
	if err := h.driver.(volume.Resizer).Resize(s.Context(), "data", s.Bigger); err != nil {
		s.Errorf("to the size that it has: %v", err)
	}
	s.wantErr(h.driver.(volume.Resizer).Resize(s.Context(), "data", s.Size), errdefs.ErrInvalid, "smaller")
	bigger := s.Bigger + s.Bigger - s.Size
	if err := h.driver.(volume.Resizer).Resize(s.Context(), "data", bigger); err != nil {
		s.Fatalf("not mounted: %v", err)
	}
	between := s.Bigger
	at = h.mustMount("data")
	if after := room(s, at); after <= between*9/10 {
		s.Errorf("%d bytes of a disk of %d", after, bigger)
	}
	s.mustRead(at, "f", "x")
	h.mustUnmount("data")
}

func isDenied(err error) bool { return err != nil && strings.Contains(err.Error(), "not permitted") }

func snapshotNames(s *stage, h *host, name string) (names []string) {
	s.Helper()
	all, err := h.driver.(volume.Snapshotter).Snapshots(s.Context(), name)
	if err != nil {
		s.Fatal(err)
	}
	for _, sn := range all {
		names = append(names, sn.Name)
	}
	return names
}

// snapshotsAndClones: a snapshot is the volume as it was, and a clone is one more volume.
func snapshotsAndClones(s *stage) {
	h, other := s.host(), s.host()
	sn := need[volume.Snapshotter](h)
	h.mustCreate("data", "uid=7")
	at := h.mustMount("data")
	s.write(at, "f", "then")
	labels := map[string]string{"remora.schedule": "daily", "Who is it?": "me, _x"}
	if err := sn.CreateSnapshot(s.Context(), "data", "s.1", labels); err != nil {
		s.Fatal(err)
	}
	s.wantErr(sn.CreateSnapshot(s.Context(), "data", "s.1", nil), errdefs.ErrExists)
	s.write(at, "f", "now")
	if err := sn.CreateSnapshot(s.Context(), "data", "s.2", nil); err != nil {
		s.Fatal(err)
	}
	time.Sleep(s.Lag)
	if got := snapshotNames(s, other, "data"); !slices.Equal(got, []string{"s.1", "s.2"}) {
		s.Errorf("another host sees the snapshots %q", got)
	}
	all, err := other.driver.(volume.Snapshotter).Snapshots(s.Context(), "data")
	if err != nil || fmt.Sprint(all[0].Labels) != fmt.Sprint(labels) {
		s.Errorf("labels are %v, %v", all[0].Labels, err)
	}
	cl := h.driver.(volume.Cloner)
	if err := cl.Clone(s.Context(), "then", "data", "s.1", map[string]string{}); err != nil {
		s.Fatal(err)
	}
	if err := cl.Clone(s.Context(), "now", "data", "", map[string]string{}); err != nil {
		s.Fatal(err)
	}
	s.wantErr(cl.Clone(s.Context(), "now", "data", "", map[string]string{}), errdefs.ErrExists)
	s.wantErr(cl.Clone(s.Context(), "none", "data", "s.9", map[string]string{}), errdefs.ErrNotFound)
	for name, want := range map[string]string{"then": "then", "now": "now"} {
		where := h.mustMount(name) // beside the one that it was made of
		s.mustRead(where, "f", want)
		s.write(where, "f", "its own")
		h.mustUnmount(name)
	}
	if p := h.Provider(s); slices.Contains(p.Traits().Options, "snapshot") {
		found, err := p.(block.Snapshotter).Snapshots(s.Context(), block.Query{Namespace: "test", Names: []string{"data"}})
		if err != nil || len(found) == 0 {
			s.Fatalf("snapshots of the cloud: %v, %v", found, err)
		}
		h.mustCreate("byid", "snapshotID="+found[0].ID)
		if _, err := os.Stat(filepath.Join(h.mustMount("byid"), "f")); err != nil {
			s.Errorf("a volume of a snapshot by its ID: %v", err)
		}
		h.mustUnmount("byid")
	}
	s.mustRead(at, "f", "now")
	h.mustUnmount("data")
	if err := sn.RemoveSnapshot(s.Context(), "data", "s.2"); err != nil {
		s.Fatal(err)
	}
	s.wantErr(sn.RemoveSnapshot(s.Context(), "data", "s.2"), errdefs.ErrNotFound)
	h.mustRemove("data")
	s.mustRead(h.mustMount("then"), "f", "its own")
	h.mustUnmount("then")
	s.eventually("no snapshot is left of a volume that was removed", func() bool {
		left, err := h.Provider(s).(block.Snapshotter).Snapshots(s.Context(), block.Query{Namespace: "test"})
		return err == nil && !slices.ContainsFunc(left, func(sn block.Snapshot) bool { return sn.State != block.Deleting })
	})
}

// xfsClone: a clone of an xfs is mounted beside the one that it was made of.
func xfsClone(s *stage) {
	h := s.host()
	cl := need[volume.Cloner](h)
	h.mustCreate("data", "fs=xfs", fmt.Sprintf("size=%dm", s.XFS>>20))
	at := h.mustMount("data")
	s.write(at, "f", "x")
	if err := cl.Clone(s.Context(), "copy", "data", "", map[string]string{}); err != nil {
		s.Fatal(err)
	}
	where := h.mustMount("copy")
	s.mustRead(where, "f", "x")
	s.write(where, "f", "y")
	s.mustRead(at, "f", "x")
	h.mustUnmount("copy")
	h.mustUnmount("data")
}

// rollback: the volume is what it was at the snapshot, and has its snapshots as before.
func rollback(s *stage) {
	h, other := s.host(), s.host()
	rb := need[volume.Rollbacker](h)
	sn := h.driver.(volume.Snapshotter)
	h.mustCreate("data")
	s.write(h.mustMount("data"), "f", "one")
	must(s, sn.CreateSnapshot(s.Context(), "data", "s1", nil))
	s.write(h.target("data"), "f", "two")
	must(s, sn.CreateSnapshot(s.Context(), "data", "s2", nil))
	h.mustUnmount("data")
	err := rb.Rollback(s.Context(), "data", "s1")
	if unsupported(err) {
		s.Skip("deviates: " + err.Error())
	}
	must(s, err)
	s.mustRead(h.mustMount("data"), "f", "one")
	h.mustUnmount("data")
	h.detached()
	if got := snapshotNames(s, h, "data"); !slices.Equal(got, []string{"s1", "s2"}) {
		s.Errorf("snapshots after it: %q", got)
	}
	must(s, rb.Rollback(s.Context(), "data", "s2"))
	time.Sleep(s.Lag)
	s.mustRead(other.mustMount("data"), "f", "two")
	other.mustUnmount("data")
	s.eventually("one disk is left", func() bool { return len(s.disks(h)) == 1 })
}

func unsupported(err error) bool {
	return err != nil && errdefs.Name(err) == errdefs.Name(errdefs.ErrUnsupported)
}

func must(s *stage, err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// openSnapshot: a snapshot is read while the volume is written to, and leaves nothing behind.
func openSnapshot(s *stage) {
	h := s.host()
	op := need[volume.SnapshotOpener](h)
	h.mustCreate("data")
	at := h.mustMount("data")
	s.write(at, "f", "then")
	must(s, h.driver.(volume.Snapshotter).CreateSnapshot(s.Context(), "data", "s1", nil))
	s.write(at, "f", "now")
	target := h.target("snapshot")
	must(s, os.MkdirAll(target, 0o700))
	dir, err := op.OpenSnapshot(s.Context(), "data", "s1", target)
	must(s, err)
	s.mustRead(dir, "f", "then")
	if err := os.WriteFile(filepath.Join(dir, "g"), nil, 0o600); err == nil {
		s.Error("a snapshot can be written to")
	}
	must(s, op.CloseSnapshot(s.Context(), "data", "s1", dir))
	must(s, op.CloseSnapshot(s.Context(), "data", "s1", dir))
	s.eventually("one disk is left", func() bool { return len(s.disks(h)) == 1 })
	s.mustRead(at, "f", "now")
	h.mustUnmount("data")
}

// heldElsewhere: what was written before an unmount is in a clone that is made after it, also where
// somebody has a copy of the mount yet.
func heldElsewhere(s *stage) {
	h := s.host()
	cl := need[volume.Cloner](h)
	h.mustCreate("data")
	at := h.mustMount("data")
	holder := exec.CommandContext(s.Context(), "unshare", "--mount", "sh", "-c", "echo; exec sleep 600")
	out, err := holder.StdoutPipe()
	must(s, err)
	must(s, holder.Start())
	_, err = out.Read(make([]byte, 1)) // it has its namespace
	must(s, err)
	free := sync.OnceFunc(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	s.Cleanup(free)
	must(s, os.WriteFile(filepath.Join(at, "f"), []byte("written last"), 0o600))
	h.mustUnmount("data")
	must(s, cl.Clone(s.Context(), "copy", "data", "", map[string]string{}))
	free()
	s.mustRead(h.mustMount("copy"), "f", "written last")
	h.mustUnmount("copy")
	h.detached() // both, though the first could not be at once
}

// imports: a disk of REX-Ray, with its data directory, and one with everything in its root are
// taken in, after it was said what would happen.
func imports(s *stage) {
	h := s.host()
	im := need[volume.Importer](h)
	made := map[string]string{}
	for _, name := range []string{"rexray-vol", "plain"} {
		id := s.cloud.Foreign(s, name, s.Size)
		file := s.cloud.File(s, id)
		if file == "" {
			s.Skip("deviates: the bytes of a disk are out of reach")
		}
		made[name] = id
		tree := s.TempDir()
		in := tree
		if name == "rexray-vol" {
			in = filepath.Join(tree, "data")
			must(s, os.Mkdir(in, 0o700))
		} else {
			must(s, os.WriteFile(filepath.Join(tree, "other"), nil, 0o600))
		}
		must(s, os.WriteFile(filepath.Join(in, "f"), []byte("of "+name), 0o600))
		if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-d", tree, file).CombinedOutput(); err != nil {
			s.Fatalf("mkfs: %v: %s", err, bytes.TrimSpace(out))
		}
	}
	plans, err := im.Import(s.Context(), "", "", true)
	must(s, err)
	if len(plans) < 2 || len(s.disks(h)) != 0 {
		s.Fatalf("dry run: %+v, and %d disks are ours", plans, len(s.disks(h)))
	}
	for _, p := range plans {
		if p.Done || made[p.Name] != "" && p.Problem != "" {
			s.Errorf("dry run: %+v", p)
		}
	}
	_, err = im.Import(s.Context(), "no-such-disk", "", false)
	s.wantErr(err, errdefs.ErrNotFound)
	if _, err := h.mount("plain"); err == nil {
		s.Error("a disk that is not ours was mounted")
	}
	did, err := im.Import(s.Context(), "rexray-vol", "", false)
	if err != nil || len(did) != 1 || !did[0].Done {
		s.Fatalf("import by name: %+v, %v", did, err)
	}
	did, err = im.Import(s.Context(), made["plain"], "renamed", false)
	if err != nil || len(did) != 1 || !did[0].Done {
		s.Fatalf("import by ID: %+v, %v", did, err)
	}
	s.mustRead(h.mustMount("rexray-vol"), "f", "of rexray-vol")
	s.mustRead(h.mustMount("renamed"), "f", "of plain")
	if _, err := os.Stat(filepath.Join(h.target("renamed"), "other")); err != nil {
		s.Errorf("the root of a disk without a data directory: %v", err)
	}
	h.mustUnmount("rexray-vol")
	h.mustUnmount("renamed")
	h.detached()
	time.Sleep(s.Lag) // what was named a moment ago another host finds when the lists have it
	two := s.host()
	s.mustRead(two.mustMount("rexray-vol"), "f", "of rexray-vol")
	two.mustUnmount("rexray-vol")
}
