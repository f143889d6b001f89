package volumetest

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// storageDirect holds a driver to what it says that it can do beyond the five methods. A case
// about something that the driver does not say passes.
func storageDirect() cases {
	return cases{
		"SnapshotKeepsWhatWas": snapshots(func(t *testing.T, b *bare, s volume.Snapshotter) {
			p := b.mount("one")
			write(t, p, "f", "before")
			b.snapshot("one", "s1", nil)
			write(t, p, "f", "after")
			b.snapshot("one", "s2", nil)
			b.mustHaveSnapshots("one", "s1", "s2")
			b.mustHave("one")
			mustRead(t, p, "f", "after")
			if o, ok := b.Driver.(volume.SnapshotOpener); ok {
				for snapshot, want := range map[string]string{"s1": "before", "s2": "after"} {
					target := b.target("one-" + snapshot)
					for range 2 {
						dir, err := o.OpenSnapshot(t.Context(), "one", snapshot, target)
						if err != nil {
							t.Fatalf("OpenSnapshot: %v", err)
						}
						mustRead(t, dir, "f", want)
						if err := os.WriteFile(filepath.Join(dir, "g"), nil, 0o600); err == nil {
							t.Error("a snapshot can be written to")
						}
						for range 2 {
							if err := o.CloseSnapshot(t.Context(), "one", snapshot, dir); err != nil {
								t.Errorf("CloseSnapshot: %v", err)
							}
						}
					}
				}
			}
			b.unmount("one", p)
		}),
		"SnapshotsAreListed": snapshots(func(t *testing.T, b *bare, s volume.Snapshotter) {
			b.mustHaveSnapshots("one")
			before := time.Now().Add(-time.Second)
			labels := map[string]string{"why": "upgrade", "empty": ""}
			b.snapshot("one", "zulu", labels)
			time.Sleep(10 * time.Millisecond)
			b.snapshot("one", "alpha", nil)
			b.reopenIfPossible()
			got, err := b.Driver.(volume.Snapshotter).Snapshots(t.Context(), "one")
			if err != nil || len(got) != 2 || got[0].Name != "zulu" || got[1].Name != "alpha" {
				t.Fatalf("Snapshots = %+v, %v; want zulu and alpha, the oldest first", got, err)
			}
			if !maps.Equal(got[0].Labels, labels) || len(got[1].Labels) != 0 {
				t.Errorf("labels are %q and %q", got[0].Labels, got[1].Labels)
			}
			for _, s := range got {
				if s.CreatedAt.Before(before) || s.CreatedAt.After(time.Now().Add(time.Second)) {
					t.Errorf("snapshot %s is from %s", s.Name, s.CreatedAt)
				}
			}
		}),
		"SnapshotTwice": snapshots(func(t *testing.T, b *bare, s volume.Snapshotter) {
			b.snapshot("one", "s1", nil)
			mustBeClass(t, "a second snapshot of the name", s.CreateSnapshot(t.Context(), "one", "s1", nil), errdefs.ErrExists)
			b.mustHaveSnapshots("one", "s1")
		}),
		"SnapshotOfUnknown": snapshots(func(t *testing.T, b *bare, s volume.Snapshotter) {
			mustBeClass(t, "CreateSnapshot", s.CreateSnapshot(t.Context(), "two", "s1", nil), errdefs.ErrNotFound)
			_, err := s.Snapshots(t.Context(), "two")
			mustBeClass(t, "Snapshots", err, errdefs.ErrNotFound)
			mustBeClass(t, "RemoveSnapshot", s.RemoveSnapshot(t.Context(), "two", "s1"), errdefs.ErrNotFound)
			mustBeClass(t, "RemoveSnapshot", s.RemoveSnapshot(t.Context(), "one", "s1"), errdefs.ErrNotFound)
			if r, ok := b.Driver.(volume.Rollbacker); ok {
				mustBeClass(t, "Rollback", r.Rollback(t.Context(), "one", "s1"), errdefs.ErrNotFound)
			}
			if c, ok := b.Driver.(volume.Cloner); ok {
				mustBeClass(t, "Clone", c.Clone(t.Context(), "new", "one", "s1", map[string]string{}), errdefs.ErrNotFound)
			}
			b.mustHave("one")
		}),
		"RemoveSnapshot": snapshots(func(t *testing.T, b *bare, s volume.Snapshotter) {
			p := b.mount("one")
			write(t, p, "f", "kept")
			b.snapshot("one", "s1", nil)
			b.snapshot("one", "s2", nil)
			if err := s.RemoveSnapshot(t.Context(), "one", "s1"); err != nil {
				t.Fatalf("RemoveSnapshot: %v", err)
			}
			mustBeClass(t, "RemoveSnapshot again", s.RemoveSnapshot(t.Context(), "one", "s1"), errdefs.ErrNotFound)
			b.mustHaveSnapshots("one", "s2")
			mustRead(t, p, "f", "kept")
			b.unmount("one", p)
		}),
		"RemoveTakesSnapshotsAlong": snapshots(func(t *testing.T, b *bare, _ volume.Snapshotter) {
			b.snapshot("one", "s1", nil)
			if err := b.Remove(t.Context(), "one"); err != nil {
				t.Fatalf("Remove of a volume with a snapshot: %v", err)
			}
			b.mustHave()
			b.create("one")
			b.mustHaveSnapshots("one")
		}),
		"Rollback": snapshots(func(t *testing.T, b *bare, _ volume.Snapshotter) {
			r, ok := b.Driver.(volume.Rollbacker)
			if !ok {
				return
			}
			p := b.mount("one")
			write(t, p, "f", "before")
			b.snapshot("one", "s1", nil)
			write(t, p, "f", "after")
			write(t, p, "g", "new")
			b.snapshot("one", "s2", nil)
			b.unmount("one", p)
			for snapshot, want := range map[string]string{"s1": "before", "s2": "after"} {
				for range 2 {
					if err := r.Rollback(t.Context(), "one", snapshot); err != nil {
						t.Fatalf("Rollback: %v", err)
					}
				}
				p = b.mount("one")
				mustRead(t, p, "f", want)
				if _, err := os.Stat(filepath.Join(p, "g")); (err == nil) != (snapshot == "s2") {
					t.Errorf("after the rollback to %s: a file of after it: %v", snapshot, err)
				}
				write(t, p, "f", "and on")
				b.unmount("one", p)
			}
			b.mustHaveSnapshots("one", "s1", "s2")
			b.mustHave("one")
		}),
		"Clone": func(t *testing.T, c Config) {
			b := newBare(t, c)
			cl, ok := b.Driver.(volume.Cloner)
			if !ok {
				return
			}
			b.create("one")
			p := b.mount("one")
			write(t, p, "f", "before")
			clones := []string{"now"}
			clone := func(name, snapshot string) {
				t.Helper()
				if err := cl.Clone(t.Context(), name, "one", snapshot, map[string]string{}); err != nil {
					t.Fatalf("Clone: %v", err)
				}
				mustBeClass(t, "Clone onto a volume", cl.Clone(t.Context(), name, "one", snapshot, map[string]string{}), errdefs.ErrExists)
			}
			want := map[string]string{"now": "after", "then": "before"}
			if _, ok := b.Driver.(volume.Snapshotter); ok {
				b.snapshot("one", "s1", nil)
				write(t, p, "f", "after")
				clone("then", "s1")
				clones = append(clones, "then")
			} else {
				want["now"] = "before"
			}
			b.unmount("one", p)
			clone("now", "")
			mustBeClass(t, "Clone of an unknown volume", cl.Clone(t.Context(), "new", "two", "", map[string]string{}), errdefs.ErrNotFound)
			b.mustHave(append(slices.Clone(clones), "one")...)
			for _, name := range clones {
				p := b.mount(name)
				mustRead(t, p, "f", want[name])
				write(t, p, "f", "of "+name)
				b.unmount(name, p)
			}
			if err := b.Remove(t.Context(), "one"); err != nil {
				t.Fatalf("Remove of a volume that was cloned: %v", err)
			}
			for _, name := range clones {
				p := b.mount(name)
				mustRead(t, p, "f", "of "+name)
				b.unmount(name, p)
				if err := b.Remove(t.Context(), name); err != nil {
					t.Errorf("Remove of a clone: %v", err)
				}
			}
			b.mustHave()
		},
		"Usage": func(t *testing.T, c Config) {
			b := newBare(t, c)
			s, ok := b.Driver.(volume.Sizer)
			if !ok {
				return
			}
			if _, err := s.Usage(t.Context(), "one"); !errors.Is(err, errdefs.ErrUnsupported) {
				mustBeClass(t, "Usage of an unknown volume", err, errdefs.ErrNotFound)
			}
			b.create("one")
			p := b.mount("one")
			if _, err := s.Usage(t.Context(), "one"); errors.Is(err, errdefs.ErrUnsupported) {
				// Of a volume with a limit it has to be known.
				err := errdefs.ErrUnsupported
				if r, ok := b.Driver.(volume.Resizer); ok {
					err = r.Resize(t.Context(), "one", c.Resize)
				}
				if errors.Is(err, errdefs.ErrUnsupported) {
					b.unmount("one", p)
					return
				}
				if err != nil {
					t.Fatalf("Resize: %v", err)
				}
			}
			before := usage(t, s, "one")
			const more = 4 << 20
			fill(t, filepath.Join(p, "f"), more)
			// Some file systems count when they write, and not when they are written to.
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
				after := usage(t, s, "one")
				if grown := after.Used - before.Used; grown >= more*9/10 && grown < 4*more {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("%d bytes were written, and the usage grew from %d to %d", more, before.Used, after.Used)
				}
			}
			b.unmount("one", p)
		},
		"Space": func(t *testing.T, c Config) {
			b := newBare(t, c)
			s, ok := b.Driver.(volume.Spacer)
			if !ok {
				return
			}
			if space, err := s.Space(t.Context()); err != nil || space.Total <= 0 || space.Free <= 0 || space.Free > space.Total {
				t.Errorf("Space = %+v, %v", space, err)
			}
		},
		"Resize": func(t *testing.T, c Config) {
			b := newBare(t, c)
			r, ok := b.Driver.(volume.Resizer)
			if !ok {
				return
			}
			if c.Resize == 0 {
				t.Fatal("Config.Resize is not set, and the driver is a Resizer")
			}
			mustBeClass(t, "Resize of an unknown volume", r.Resize(t.Context(), "one", c.Resize), errdefs.ErrNotFound)
			b.create("one")
			p := b.mount("one")
			write(t, p, "f", "kept")
			for range 2 {
				if err := r.Resize(t.Context(), "one", c.Resize); errors.Is(err, errdefs.ErrUnsupported) {
					b.unmount("one", p)
					return
				} else if err != nil {
					t.Fatalf("Resize while mounted: %v", err)
				}
			}
			mustRead(t, p, "f", "kept")
			if s, ok := b.Driver.(volume.Sizer); ok {
				if u := usage(t, s, "one"); u.Limit < c.Resize*9/10 || u.Limit > c.Resize*11/10 {
					t.Errorf("the limit is %d, want about %d", u.Limit, c.Resize)
				}
			}
			mustBeFull(t, filepath.Join(p, "full"), 2*c.Resize)
			b.unmount("one", p)
			b.reopenIfPossible()
			if err := b.Driver.(volume.Resizer).Resize(t.Context(), "one", c.Resize+c.Resize/2); err != nil {
				t.Fatalf("Resize while not mounted: %v", err)
			}
			p = b.mount("one")
			mustRead(t, p, "f", "kept")
			fill(t, filepath.Join(p, "more"), c.Resize/4)
			b.unmount("one", p)
		},
	}
}

// snapshots makes a case about a driver with snapshots, and a volume.
func snapshots(f func(*testing.T, *bare, volume.Snapshotter)) func(*testing.T, Config) {
	return func(t *testing.T, c Config) {
		b := newBare(t, c)
		s, ok := b.Driver.(volume.Snapshotter)
		if !ok {
			return
		}
		b.create("one")
		f(t, b, s)
	}
}

func (b *bare) snapshot(name, snapshot string, labels map[string]string) {
	b.t.Helper()
	if err := b.Driver.(volume.Snapshotter).CreateSnapshot(b.t.Context(), name, snapshot, labels); err != nil {
		b.t.Fatalf("CreateSnapshot: %v", err)
	}
}

func (b *bare) mustHaveSnapshots(name string, want ...string) {
	b.t.Helper()
	all, err := b.Driver.(volume.Snapshotter).Snapshots(b.t.Context(), name)
	if err != nil {
		b.t.Fatalf("Snapshots: %v", err)
	}
	got := []string{}
	for _, s := range all {
		got = append(got, s.Name)
	}
	if !slices.Equal(got, want) {
		b.t.Errorf("snapshots are %q, want %q", got, want)
	}
}

// reopenIfPossible puts another driver on the same storage, if the configuration can.
func (b *bare) reopenIfPossible() {
	if b.config.Reopen != nil {
		b.reopen()
	}
}

func usage(t *testing.T, s volume.Sizer, name string) volume.Usage {
	t.Helper()
	u, err := s.Usage(t.Context(), name)
	if err != nil {
		t.Fatalf("Usage: %v", err)
	}
	return u
}

// fill writes n bytes to a file, and to the disk.
func fill(t *testing.T, path string, n int64) {
	t.Helper()
	if wrote, err := tryFill(path, n); err != nil {
		t.Fatalf("write %d bytes: %v after %d", n, err, wrote)
	}
}

// mustBeFull writes until there is no more room, which must be before n bytes.
func mustBeFull(t *testing.T, path string, n int64) {
	t.Helper()
	wrote, err := tryFill(path, n)
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("%d bytes written with the error %v; want no room for %d", wrote, err, n)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func tryFill(path string, n int64) (wrote int64, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	chunk := make([]byte, 1<<18)
	for i := range chunk {
		chunk[i] = byte(i * 7919 >> 3) // nothing that a file system could leave out
	}
	for wrote < n && err == nil {
		var k int
		k, err = f.Write(chunk[:min(int64(len(chunk)), n-wrote)])
		wrote += int64(k)
		if err == nil && wrote%(8<<20) == 0 {
			err = f.Sync()
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if errors.Is(err, io.ErrShortWrite) {
		err = syscall.ENOSPC
	}
	return wrote, errors.Join(err, f.Close())
}
