package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// quotaIs looks whether quota is on, past the driver.
func quotaIs(t testing.TB, path string) quotaState {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := stateOf(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustUse(t testing.TB, d *driver, name string, used, limit int64) {
	t.Helper()
	u, err := d.Usage(t.Context(), name)
	if err != nil || u.Limit != limit || u.Used < used || u.Used > used+used/4+1<<20 {
		t.Errorf("usage of %s is %+v, %v; want %d of %d", name, u, err, used, limit)
	}
}

func mustAdvise(t testing.TB, d *driver, want string) {
	t.Helper()
	if got := d.Advice(); !strings.Contains(got.Text, want) {
		t.Errorf("advice is %+v, want %q", got, want)
	}
}

// TestQuotaComesWithTheFirstLimit: whatever sets it, quota is on from then on and not before, the
// limit holds, and what older volumes take is known.
func TestQuotaComesWithTheFirstLimit(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	for name, limit := range map[string]func(d *driver) error{
		"create": func(d *driver) error { return d.Create(t.Context(), "v", opts("size=8m")) },
		"clone":  func(d *driver) error { return d.Clone(t.Context(), "v", "empty", "", opts("size=8m")) },
		"resize": func(d *driver) error {
			create(t, d, "v")
			return d.Resize(t.Context(), "v", 8<<20)
		},
		"adopt": func(d *driver) error {
			command(t, "btrfs", "subvolume", "create", d.Path+"/v")
			return d.Create(t.Context(), "v", opts("size=8m"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			d := openImage(t, h)
			create(t, d, "old")
			create(t, d, "empty")
			if err := random(t, data(t, d, "old")+"/f", 4<<20); err != nil {
				t.Fatal(err)
			}
			if err := d.CreateSnapshot(t.Context(), "old", "s", nil); err != nil {
				t.Fatal(err)
			}
			_, err := d.Usage(t.Context(), "old")
			wantErr(t, err, errdefs.ErrUnsupported, "quota is off")
			for f, err := range d.Survey(t.Context()) {
				if err != nil || f.Usage != nil || f.Snapshots == nil {
					t.Errorf("survey without quota: %+v, %v", f, err)
				}
			}
			mustAdvise(t, d, "the first volume with a size turns it on")
			d = openImage(t, h) // a restart does not turn it on
			list(t, d)
			if s := quotaIs(t, d.Path); s.on {
				t.Fatalf("quota is %+v, and nothing has a limit", s)
			}
			if err := limit(d); err != nil {
				t.Fatal(err)
			}
			if s := quotaIs(t, d.Path); !s.known() {
				t.Errorf("with the first limit quota is %+v", s)
			}
			if err := random(t, data(t, d, "v")+"/f", 9<<20); !errors.Is(err, unix.EDQUOT) {
				t.Errorf("more than fits: %v, want EDQUOT", err)
			}
			mustUse(t, d, "old", 4<<20, 0)
			mustAdvise(t, d, "quota is on")
			d = openImage(t, h)
			mustUse(t, d, "old", 4<<20, 0)
			if u, err := d.Usage(t.Context(), "v"); err != nil || u.Limit != 8<<20 {
				t.Errorf("after a restart: %+v, %v", u, err)
			}
			mustBeSwept(t, d)
		})
	}
}

// crowd makes a volume that takes the kernel a second or more to count: many files, shared by
// many snapshots.
func crowd(t testing.TB, d *driver) {
	t.Helper()
	create(t, d, "crowd")
	dir := data(t, d, "crowd")
	for i := range 6000 {
		write(t, fmt.Sprintf("%s/f%d", dir, i), strings.Repeat("x", 4096))
	}
	for i := range 60 {
		if err := d.CreateSnapshot(t.Context(), "crowd", fmt.Sprint("s", i), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestQuotaTurnedOnUnderWriters: a limit holds from the moment at which Create returns, however
// long counting takes and whoever writes meanwhile; until then usage is not known, and who has
// no time for it is told so and finds nothing half made.
func TestQuotaTurnedOnUnderWriters(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openPath(t, mkfs(t))
	crowd(t, d)
	create(t, d, "busy")
	dir := data(t, d, "busy")
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			if err := random(t, fmt.Sprintf("%s/f%d", dir, i%8), 1<<20); err != nil {
				done <- err
				return
			}
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	hurry, cancel := context.WithTimeout(t.Context(), answerTime+50*time.Millisecond)
	defer cancel()
	err := d.Create(hurry, "v", opts("size=8m"))
	wantErr(t, err, errdefs.ErrUnavailable, "still being counted")
	if s := quotaIs(t, d.Path); !s.on || s.known() {
		t.Errorf("quota is %+v, and should be on and count", s)
	}
	mustAdvise(t, d, "being counted")
	_, err = d.Usage(t.Context(), "busy")
	wantErr(t, err, errdefs.ErrUnavailable, "still being counted")
	for f, err := range d.Survey(t.Context()) {
		if !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("a survey tells of %+v, %v", f, err)
		}
	}
	if err := d.CreateSnapshot(t.Context(), "busy", "s", nil); err != nil {
		t.Errorf("snapshot while all is counted: %v", err)
	}
	mustList(t, d, "busy", "crowd")
	again := openPath(t, d.Path) // killed meanwhile; the kernel goes on
	create(t, again, "v", "size=8m")
	if s := quotaIs(t, d.Path); !s.known() {
		t.Errorf("a volume has its limit, and quota is %+v", s)
	}
	if err := random(t, data(t, again, "v")+"/f", 9<<20); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("more than fits: %v, want EDQUOT", err)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("the writer: %v", err)
	}
	mustUse(t, again, "busy", 8<<20, 0)
	mustUse(t, again, "crowd", 6000*4096, 0)
}

// TestQuotaOfTheUser: where quota is on already it is used, simple quota too.
func TestQuotaOfTheUser(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	pool := mkfs(t)
	command(t, "btrfs", "quota", "enable", pool)
	d := openPath(t, pool)
	create(t, d, "one")
	if err := random(t, data(t, d, "one")+"/f", 4<<20); err != nil {
		t.Fatal(err)
	}
	mustUse(t, d, "one", 4<<20, 0)

	pool = mkfs(t)
	f, err := os.Open(pool)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const simple = 4 // BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
	args := struct{ command, status uint64 }{command: simple}
	if err := ioctl(int(f.Fd()), iocQuotaCtl, unsafe.Pointer(&args)); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Log("this kernel has no simple quota")
		return
	} else if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	d = openPath(t, pool)
	create(t, d, "one", "size=8m")
	if s := quotaIs(t, pool); !s.simple || !s.known() {
		t.Errorf("simple quota became %+v", s)
	}
	if err := random(t, data(t, d, "one")+"/f", 9<<20); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("more than fits: %v, want EDQUOT", err)
	}
	mustAdvise(t, d, "simple quota")
}

// TestQuotaNever: a limit is refused and leaves nothing, and what has one from elsewhere can be
// used all the same.
func TestQuotaNever(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	pool := mkfs(t)
	d := openPath(t, pool)
	create(t, d, "limited", "size=8m")
	command(t, "btrfs", "quota", "disable", pool)
	d = openTable(t, host{}, map[string]any{"path": pool, "quota": false})
	create(t, d, "one")
	mustAdvise(t, d, "stays")
	wantErr(t, d.Create(t.Context(), "two", opts("size=8m")), errdefs.ErrUnsupported, "quota is not enabled")
	wantErr(t, d.Clone(t.Context(), "two", "one", "", opts("size=8m")), errdefs.ErrUnsupported, "quota is not enabled")
	wantErr(t, d.Resize(t.Context(), "one", 8<<20), errdefs.ErrUnsupported, "quota is not enabled")
	if out := command(t, "btrfs", "subvolume", "list", d.Path); strings.Contains(out, "two") {
		t.Errorf("left: %s", out)
	}
	if _, err := d.Usage(t.Context(), "one"); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("usage: %v", err)
	}
	write(t, data(t, d, "limited")+"/f", "usable")
	mustList(t, d, "limited", "one")
	if s := quotaIs(t, pool); s.on {
		t.Errorf("quota is %+v", s)
	}
}

// TestQuotaIsMended: limits that quota forgot, as it does when it is turned off, or that a pool
// has brought from another file system, are there again with the next mount; a count that is
// wrong is put right.
func TestQuotaIsMended(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openPath(t, mkfs(t))
	create(t, d, "one", "size=8m")
	create(t, d, "other")
	if err := d.CreateSnapshot(t.Context(), "one", "s", nil); err != nil {
		t.Fatal(err)
	}
	command(t, "btrfs", "quota", "disable", d.Path)
	_, err := d.Usage(t.Context(), "one")
	wantErr(t, err, errdefs.ErrUnsupported, "quota is off")
	d = openPath(t, d.Path)
	list(t, d)
	data(t, d, "other")
	if s := quotaIs(t, d.Path); s.on {
		t.Errorf("nothing with a limit was used, and quota is %+v", s)
	}
	full := func(d *driver) {
		t.Helper()
		dir := data(t, d, "one")
		await(t, d)
		if err := random(t, dir+"/g", 9<<20); !errors.Is(err, unix.EDQUOT) {
			t.Errorf("more than fits: %v, want EDQUOT", err)
		}
		_ = os.Remove(dir + "/g")
	}
	full(d)
	command(t, "btrfs", "quota", "disable", d.Path)
	if err := d.Rollback(t.Context(), "one", "s"); err != nil {
		t.Fatal(err)
	}
	full(d)
	// To make a group part of another makes the count wrong, where blocks are shared.
	if err := random(t, data(t, d, "one")+"/f", 4<<20); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(data(t, d, "one"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := subvolInfo(fd)
	_ = unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.CreateSnapshot(t.Context(), "one", "shares", nil); err != nil {
		t.Fatal(err)
	}
	command(t, "btrfs", "qgroup", "create", "1/1", d.Path)
	command(t, "btrfs", "qgroup", "assign", "--no-rescan", fmt.Sprint("0/", info.id), "1/1", d.Path)
	command(t, "sync", "-f", d.Path)
	if s := quotaIs(t, d.Path); !s.stale {
		t.Fatalf("quota is %+v, and should be wrong", s)
	}
	d = openPath(t, d.Path)
	await(t, d)
	mustUse(t, d, "one", 4<<20, 8<<20)
}

// await waits until what a volume takes is known, as who lists it again and again does.
func await(t testing.TB, d *driver) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := d.Usage(t.Context(), "one")
		if err == nil {
			return
		}
		if time.Now().After(deadline) || !errors.Is(err, errdefs.ErrUnavailable) {
			t.Fatal(err)
		}
	}
}

var _ volume.Surveyor = (*driver)(nil)
