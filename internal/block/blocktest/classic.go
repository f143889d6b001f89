package blocktest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// wantErr wants an error of a class, with each of the words in its text or its hints.
func (s *stage) wantErr(err, class error, words ...string) {
	s.Helper()
	if !errors.Is(err, class) {
		s.Fatalf("error is %v, want %v", err, class)
	}
	all := err.Error() + " " + strings.Join(errdefs.Hints(err), " ")
	for _, w := range words {
		if !strings.Contains(all, w) {
			s.Errorf("error does not say %q: %s", w, all)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		s.Errorf("error is not one line: %q", err)
	}
}

// classic: a volume is made and written to on one host, which is destroyed; the same name on
// another host is the same volume.
func classic(s *stage) {
	one := s.host()
	one.mustCreate("data")
	at := one.mustMount("data")
	s.write(at, "f", "from the first")
	disk := one.disk("data")
	one.mustUnmount("data")
	one.detached()
	one.close()

	two := s.host()
	two.mustCreate("data")
	if got := two.disk("data"); got != disk {
		s.Errorf("disk %s, and on the first host %s", got, disk)
	}
	s.mustRead(two.mustMount("data"), "f", "from the first")
	two.mustUnmount("data")
	two.detached()

	// A host that dies with the volume mounted.
	three := s.host()
	at = three.mustMount("data")
	s.write(at, "g", "before the end")
	three.lose()
	if three.Terminate == nil {
		return
	}
	four := s.host(func(c *block.Config) { c.Preempt = "dead" })
	four.mustCreate("data")
	s.mustRead(four.mustMount("data"), "g", "before the end")
	four.mustUnmount("data")
	four.mustRemove("data")
	s.noneLeft(four)
}

// oneName: names are kept as they are, and each is one volume.
func oneName(s *stage) {
	h := s.host()
	names := []string{"a_b", "a-b", "A.b", strings.Repeat("long_name-", 12)}
	for _, name := range names {
		h.mustCreate(name)
		h.mustCreate(name) // again, as an engine does
	}
	seen := map[string]bool{}
	for info, err := range h.driver.Volumes(s.Context()) {
		if err != nil {
			s.Fatal(err)
		}
		seen[info.Name] = true
	}
	for _, name := range names {
		if !seen[name] {
			s.Errorf("%q is not listed", name)
		}
	}
	if len(seen) != len(names) || len(s.disks(h)) != len(names) {
		s.Errorf("%d volumes on %d disks, of %d names", len(seen), len(s.disks(h)), len(names))
	}
	h.mustRemove(names[0])
	h.mustCreate(names[0])
	_, err := h.mount("no-such-volume")
	s.wantErr(err, errdefs.ErrNotFound)
	s.wantErr(h.driver.Remove(s.Context(), "no-such-volume"), errdefs.ErrNotFound)
}

// twoMakeOneName: hosts that make a volume at the same time make one disk, and where the cloud does
// not see that it is one, they come to the same of several.
func twoMakeOneName(s *stage) {
	hosts := []*host{s.host(), s.host(), s.host()}
	for round := range 6 {
		name := fmt.Sprintf("race%d", round)
		for i, h := range hosts {
			if round >= 3 {
				h.faults.token = fmt.Sprintf("%02d", i)
			}
		}
		var all sync.WaitGroup
		for _, h := range hosts {
			all.Go(func() {
				if err := h.create(name); err != nil {
					s.Errorf("create on %s: %v", h.ID, err)
				}
			})
		}
		all.Wait()
		s.eventually("one disk is left", func() bool { return len(s.disks(hosts[0], name)) == 1 })
		for _, h := range hosts {
			h.mustCreate(name) // again, which looks: what one remembers may have been deleted by another
			if got := h.disk(name); got != s.disks(h, name)[0].ID {
				s.Errorf("%s has disk %s", h.ID, got)
			}
		}
	}
}

// secondWriter: a volume that another host has mounted is refused, with who and since when.
func secondWriter(s *stage) {
	one, two := s.host(), s.host()
	one.mustCreate("data")
	at := one.mustMount("data")
	s.write(at, "f", "x")
	_, err := two.mount("data")
	s.wantErr(err, errdefs.ErrInUse, one.ID, "volume attach --force")
	s.mustRead(at, "f", "x")
	s.write(at, "g", "y")
	if err := two.driver.Remove(s.Context(), "data"); err == nil || !errors.Is(err, errdefs.ErrInUse) {
		s.Errorf("remove on the other host: %v", err)
	}
	if state := fmt.Sprint(two.inspect("data").Status["state"]); !strings.Contains(state, one.ID) {
		s.Errorf("state on the other host is %q", state)
	}
	one.mustUnmount("data")
	one.detached()
	s.mustRead(two.mustMount("data"), "g", "y")
	two.mustUnmount("data")
}

// handover: the next host waits for the one before it to let go, and a mount within the linger
// attaches nothing.
func handover(s *stage) {
	linger := 300 * time.Millisecond
	change := func(c *block.Config) { c.Detach, c.Wait = linger, s.Slow }
	one, two := s.host(change), s.host(change)
	one.mustCreate("data")
	one.mustMount("data")
	for tries := 0; ; tries++ {
		one.faults.Ops()
		began := time.Now()
		one.mustUnmount("data")
		s.write(one.mustMount("data"), "f", "x")
		ops := one.faults.Ops()
		if len(ops) == 0 {
			break
		}
		if time.Since(began) < linger || tries > 20 { // else the machine is slow
			s.Errorf("a mount within the linger asked the cloud for %q", ops)
			break
		}
	}
	one.mustUnmount("data")
	s.mustRead(two.mustMount("data"), "f", "x")
	two.mustUnmount("data")
}

// deadHolder: a disk is taken without force from a host that the cloud says is gone, and from no
// other.
func deadHolder(s *stage) {
	one := s.host()
	if one.Terminate == nil {
		s.Skip("deviates: the cloud cannot end a machine here")
	}
	dead := func(c *block.Config) { c.Preempt = "dead" }
	two := s.host(dead)
	one.mustCreate("data")
	s.write(one.mustMount("data"), "f", "x")
	_, err := two.mount("data")
	s.wantErr(err, errdefs.ErrInUse, one.ID)
	one.lose()
	never := s.host()
	_, err = never.mount("data")
	s.wantErr(err, errdefs.ErrInUse, one.ID)
	s.mustRead(two.mustMount("data"), "f", "x")
	two.mustUnmount("data")
}

// lyingNames: disks are known by what they say of themselves, whatever names they get.
func lyingNames(s *stage) {
	h := s.host(func(c *block.Config) { c.Detach = 0 })
	const n = 4
	for round := range 2 {
		for i := range n {
			name := fmt.Sprintf("v%d", (i+round)%n)
			h.mustCreate(name)
			at := h.mustMount(name)
			if round == 0 {
				s.write(at, "f", name)
			} else {
				s.mustRead(at, "f", name)
			}
		}
		for i := range n {
			h.mustUnmount(fmt.Sprintf("v%d", i))
		}
		h.detached()
	}
}

// notBlank: a disk with anything on it that is not known as ours is not formatted.
func notBlank(s *stage) {
	h := s.host()
	for i, put := range []func(*os.File) error{
		func(f *os.File) error { _, err := f.WriteAt([]byte("some raw data"), 1<<19); return err },
		func(f *os.File) error { _, err := f.WriteAt([]byte("LUKS\xba\xbe\x00\x01"), 0); return err },
		func(f *os.File) error { _, err := f.WriteAt([]byte("SWAPSPACE2"), 4096-10); return err },
		func(f *os.File) error { // a partition table of MS-DOS
			entry := []byte{0x80, 1, 1, 0, 0x83, 1, 1, 1, 0, 8, 0, 0, 0, 8, 0, 0}
			if _, err := f.WriteAt(entry, 446); err != nil {
				return err
			}
			_, err := f.WriteAt([]byte{0x55, 0xaa}, 510)
			return err
		},
	} {
		name := fmt.Sprintf("v%d", i)
		h.mustCreate(name)
		file := s.cloud.File(s, h.disk(name))
		if file == "" {
			s.Skip("deviates: the bytes of a disk are out of reach")
		}
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			s.Fatal(err)
		}
		if err := put(f); err != nil {
			s.Fatal(err)
		}
		before := sum(s, file)
		for range 2 {
			_, err = h.mount(name)
			s.wantErr(err, errdefs.ErrExists, "not blank", "nothing was written")
		}
		if sum(s, file) != before {
			s.Errorf("case %d: the disk was written to", i)
		}
		_ = f.Close()
	}
}

// formattedStays: a disk that was formatted is never formatted again, even where its file system
// is gone.
func formattedStays(s *stage) {
	h := s.host()
	h.mustCreate("data")
	h.mustMount("data")
	h.mustUnmount("data")
	h.detached()
	file := s.cloud.File(s, h.disk("data"))
	if file == "" {
		s.Skip("deviates: the bytes of a disk are out of reach")
	}
	zero := make([]byte, 4<<20)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(zero, 0); err != nil {
		s.Fatal(err)
	}
	if _, err := f.WriteAt(zero[:1<<20], s.Size-1<<20); err != nil {
		s.Fatal(err)
	}
	h.again()
	_, err = h.mount("data")
	s.wantErr(err, errdefs.ErrUnavailable, "there was a file system")
	other := s.host()
	h.mustRemoveWithin("data")
	_ = other
}

// mustRemoveWithin removes a volume whose disk a failed mount left attached for a while.
func (h *host) mustRemoveWithin(name string) {
	h.s.Helper()
	h.mustRemove(name)
	h.s.noneLeft(h, name)
}

// ownerOnce: owner and mode are set when the disk is formatted, and never again.
func ownerOnce(s *stage) {
	h := s.host()
	h.mustCreate("data", "uid=1000", "gid=2000", "mode=0750", "MOUNT_OPTIONS=noatime")
	at := h.mustMount("data")
	var st unix.Stat_t
	if err := unix.Stat(at, &st); err != nil || st.Uid != 1000 || st.Gid != 2000 || fs.FileMode(st.Mode).Perm() != 0o750 {
		s.Errorf("owner %d:%d, mode %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	entries, err := os.ReadDir(at)
	if err != nil || len(entries) != 0 {
		s.Errorf("a new volume has %v in it, %v", entries, err)
	}
	if err := os.Chmod(at, 0o711); err != nil {
		s.Fatal(err)
	}
	h.mustUnmount("data")
	h.detached()
	other := s.host()
	if err := unix.Stat(other.mustMount("data"), &st); err != nil || fs.FileMode(st.Mode).Perm() != 0o711 || st.Uid != 1000 {
		s.Errorf("after another mount: owner %d, mode %o, %v", st.Uid, st.Mode, err)
	}
	if got := other.inspect("data").Options["uid"]; got != "1000" {
		s.Errorf("options on another host: uid is %q", got)
	}
	other.mustUnmount("data")
}

// wrongOptions: what is wrong is said, and makes nothing.
func wrongOptions(s *stage) {
	h := s.host()
	for opt, words := range map[string][]string{
		"size=lots":           {`"size"`, "10g"},
		"sise=1g":             {`"sise"`, `did you mean "size"`},
		"fs=ntfs":             {`"fs"`, "ext4"},
		"fsType=zfs":          {`"fs"`},
		"mode=rwx":            {`"mode"`},
		"mount_options=exec!": {"exec!"},
	} {
		s.wantErr(h.create("data", opt), errdefs.ErrInvalid, words...)
	}
	s.wantErr(h.create("data", "size=1k", "fs=ext4"), errdefs.ErrInvalid, "size")
	h.mustCreate("data", "fsType=ext4")
	s.wantErr(h.create("data", "fs=xfs", fmt.Sprintf("size=%dm", s.XFS>>20)), errdefs.ErrExists, "ext4")
	if n := len(s.disks(h)); n != 1 {
		s.Errorf("%d disks were made", n)
	}
	h.mustRemove("data")
}

// sum is that of what is in a file, without the holes, which disks of a cloud have many of.
func sum(s *stage, file string) uint64 {
	s.Helper()
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	h := fnv.New64a()
	chunk, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		if at, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA); err != nil {
			if !errors.Is(err, unix.ENXIO) { // the rest is a hole
				s.Fatal(err)
			}
			return h.Sum64()
		}
		at -= at % int64(len(chunk))
		n, err := f.ReadAt(chunk, at)
		if err != nil && !errors.Is(err, io.EOF) {
			s.Fatal(err)
		}
		if !bytes.Equal(chunk[:n], zero[:n]) {
			_, _ = fmt.Fprint(h, at)
			_, _ = h.Write(chunk[:n])
		}
		at += int64(n)
	}
}
