package csi

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TestShapes leads the same life with CSI drivers that can do less, or are odd in a way that the specification allows.
func TestShapes(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*csitest.Options){
		"Plain":       func(o *csitest.Options) { *o = csitest.Options{} },
		"NoStage":     func(o *csitest.Options) { o.Stage = false },
		"NoAttach":    func(o *csitest.Options) { o.Attach, o.PublishReadonly = false, false },
		"Split":       func(o *csitest.Options) { o.Split = true },
		"NotFound":    func(o *csitest.Options) { o.NotFound = true },
		"OddIDs":      func(o *csitest.Options) { o.OddIDs = true },
		"SharedOnly":  func(o *csitest.Options) { o.SharedOnly = true },
		"KeepTarget":  func(o *csitest.Options) { o.KeepTarget = true },
		"OldNumbers":  func(o *csitest.Options) { o.OldConditions = true },
		"NoCapacity":  func(o *csitest.Options) { o.Lies.NoCapacity = true },
		"CrashOnList": func(o *csitest.Options) { o.Lies.CrashOnList = true },
		"OneAtMost":   func(o *csitest.Options) { o.MaxVolumes = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := csitest.All()
			change(&o)
			h := newHost(t, o)
			d := h.open(t)
			h.twice(t, d)
			h.nothingLeft(t)
		})
	}
}

// TestSecrets: they go with every call, and are in no file.
func TestSecrets(t *testing.T) {
	t.Parallel()
	o := csitest.All()
	o.Secrets = map[string]string{"key": "open sesame"}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("open sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, o, func(c *config) { c.Secrets = map[string]string{"key": "file:" + file} })
	d := h.open(t)
	for i, step := range h.life() {
		if err := step(t.Context(), d); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		for _, dir := range []string{"state", "run"} {
			err := filepath.WalkDir(filepath.Join(h.dir, dir), func(path string, e os.DirEntry, err error) error {
				if err != nil || !e.Type().IsRegular() {
					return nil //nolint:nilerr // files go while this looks
				}
				if text, _ := os.ReadFile(path); strings.Contains(string(text), "sesame") {
					t.Errorf("step %d: the secret is in %s", i, path)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	h.nothingLeft(t)
}

// TestLies has a CSI driver lie. The bridge says what is wrong, and neither loses nor leaves anything.
func TestLies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lies csitest.Lies
		do   func(h *host, d *driver) error
		want error // of its class
	}{
		"Larger": {
			csitest.Lies{Larger: true}, func(h *host, d *driver) error {
				return d.Create(h.t.Context(), "a", map[string]string{"size": "32m", "limit": "32m"})
			}, errdefs.ErrExists,
		},
		"Smaller": {
			csitest.Lies{Smaller: true}, func(h *host, d *driver) error {
				return d.Create(h.t.Context(), "a", map[string]string{"size": "32m"})
			}, errdefs.ErrExists,
		},
		"Unmounted": {
			csitest.Lies{Unmounted: true}, func(h *host, d *driver) error {
				if err := d.Create(h.t.Context(), "a", nil); err != nil {
					return err
				}
				_, err := d.Mount(h.t.Context(), "a", h.mnt("a"))
				return err
			}, errdefs.ErrUnavailable,
		},
		"WrongCodes": {
			csitest.Lies{WrongCodes: true}, func(h *host, d *driver) error {
				if err := d.Create(h.t.Context(), "a", nil); err != nil {
					return err
				}
				id := h.mock.Volumes()[0].ID
				h.mock.Steal(id, "elsewhere")
				defer h.mock.Return(id, "elsewhere")
				_, err := d.Mount(h.t.Context(), "a", h.mnt("a"))
				return err
			}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := csitest.All()
			o.Lies = test.lies
			h := newHost(t, o)
			d := h.open(t)
			err := test.do(h, d)
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("error %v, want one of class %v", err, test.want)
			}
			if err := d.Remove(t.Context(), "a"); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				t.Error(err)
			}
			h.own(t)
		})
	}
}

func (h *host) mnt(name string) string {
	h.t.Helper()
	dir := filepath.Join(h.dir, "mnt", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

// own checks that nothing is left that the bridge knows of, or mounted. What is at the storage may be another's.
func (h *host) own(t *testing.T) {
	t.Helper()
	within(t, func() error {
		for _, dir := range []string{"state/csi/pool/volumes", "run/csi/pool/nodes", "run/csi/pool/m"} {
			entries, err := os.ReadDir(filepath.Join(h.dir, dir))
			if err != nil {
				return err
			}
			if len(entries) > 0 {
				return errors.New("left: " + filepath.Join(dir, entries[0].Name()))
			}
		}
		return nil
	})
}

// TestEmptySnapshot has the first call for a snapshot crash the CSI driver, which says afterwards that there is one, ready,
// and it is empty. A clone of it has the data.
func TestEmptySnapshot(t *testing.T) {
	t.Parallel()
	for name, what := range map[string]csitest.What{
		"Crash": csitest.Crash, "Hang": csitest.Hang, "Unavailable": csitest.Code(codes.Unavailable), "Deadline": csitest.Code(codes.DeadlineExceeded),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := csitest.All()
			o.Lies.EmptySnapshot = true
			h := newHost(t, o, func(c *config) { c.Timeouts = map[string]string{callSnapshot: "300ms"} })
			h.revive(t)
			d := h.open(t)
			ctx, at := t.Context(), h.mnt("a")
			if err := d.Create(ctx, "a", nil); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Mount(ctx, "a", at); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at+"/f", []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			h.mock.Faults.Set(callSnapshot, csitest.Before, what, 1)
			patient(t, "snapshot", func(ctx context.Context) error { return d.CreateSnapshot(ctx, "a", "s", nil) })
			patient(t, "clone", func(ctx context.Context) error { return d.Clone(ctx, "b", "a", "s", nil) })
			if _, err := d.Mount(ctx, "b", h.mnt("b")); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(h.mnt("b") + "/f"); err != nil || string(got) != "data" {
				t.Errorf("%q, %v in the clone of the snapshot", got, err)
			}
			for _, name := range []string{"a", "b"} {
				if err := errors.Join(d.Unmount(ctx, name, h.mnt(name)), d.Remove(ctx, name)); err != nil {
					t.Error(err)
				}
			}
			h.nothingLeft(t)
		})
	}
}

// TestHundred has a hundred volumes go up and down at the same time.
func TestHundred(t *testing.T) {
	testenv.Require(t, testenv.Root)
	h := newHost(t, csitest.All(), func(c *config) { c.Detach = 0 })
	d := h.open(t)
	var names []string
	for i := range 100 {
		names = append(names, "v"+strings.Repeat("x", i/10)+string(rune('a'+i%10)))
	}
	all := func(what string, f func(name string) error) {
		began := time.Now()
		var wg sync.WaitGroup
		for _, name := range names {
			wg.Go(func() {
				if err := f(name); err != nil {
					t.Errorf("%s %s: %v", what, name, err)
				}
			})
		}
		wg.Wait()
		t.Logf("%s: %s", what, time.Since(began).Round(time.Millisecond))
	}
	ctx := t.Context()
	all("create", func(name string) error { return d.Create(ctx, name, nil) })
	all("mount", func(name string) error { _, err := d.Mount(ctx, name, h.mnt(name)); return err })
	all("write", func(name string) error { return os.WriteFile(h.mnt(name)+"/f", []byte(name), 0o600) })
	all("unmount", func(name string) error { return d.Unmount(ctx, name, h.mnt(name)) })
	all("mount again", func(name string) error { _, err := d.Mount(ctx, name, h.mnt(name)); return err })
	all("read", func(name string) error {
		if got, err := os.ReadFile(h.mnt(name) + "/f"); err != nil || string(got) != name {
			return errors.Join(err, errors.New("it has "+string(got)))
		}
		return nil
	})
	all("unmount again", func(name string) error { return d.Unmount(ctx, name, h.mnt(name)) })
	all("remove", func(name string) error { return d.Remove(ctx, name) })
	h.nothingLeft(t)
}
