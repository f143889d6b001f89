package block_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// TestMoveOfHandler: a volume that left its pool is not known there any more and known in the other
// one, one that is mounted stays, and one that is protected does not leave.
func TestMoveOfHandler(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	cloud, dir := blocktest.NewReference(t), t.TempDir()
	protected := true
	open := func(name string, c blocktest.Cloud) *volume.Handler {
		host := c.Host(t)
		d, err := block.Open(t.Context(), host.Provider(t), block.Config{
			Namespace: "test", Size: 64 << 20, FS: "ext4", Wait: time.Second, Preempt: "never",
			Refresh: time.Hour, Rate: 10000, Dev: host.Machine.Dev(), Sys: host.Machine.Sys(),
		}, catalog.Env{PoolName: name, StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")})
		if err != nil {
			t.Fatal(err)
		}
		h, err := volume.NewHandler(t.Context(), d, volume.Options{MountRoot: filepath.Join(dir, name), MayRemove: func(context.Context, string) error {
			if protected {
				return errdefs.Errorf(errdefs.ErrDenied, "protected")
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.Close(context.WithoutCancel(t.Context())); err != nil && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
		return h
	}
	here, there := open("here", cloud), open("there", cloud.Elsewhere(t))
	ctx := t.Context()
	if err := here.Create(ctx, "data", nil); err != nil {
		t.Fatal(err)
	}
	to := volume.Place{Pool: "there"}
	if err := here.Move(ctx, "data", to); !errors.Is(err, errdefs.ErrDenied) {
		t.Fatalf("move of one that is protected: %v", err)
	}
	protected = false
	if _, err := here.Mount(ctx, "data", "id"); err != nil {
		t.Fatal(err)
	}
	if err := here.Move(ctx, "data", to); !errors.Is(err, errdefs.ErrInUse) {
		t.Fatalf("move of one that is mounted: %v", err)
	}
	if err := here.Unmount(ctx, "data", "id"); err != nil {
		t.Fatal(err)
	}
	if err := here.Move(ctx, "data", volume.Place{}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Fatalf("move to nowhere: %v", err)
	}
	if err := here.Move(ctx, "data", to); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Get(ctx, "data"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("in the pool that it left: %v", err)
	}
	if _, err := there.Get(ctx, "data"); err != nil {
		t.Errorf("in the pool to which it was moved: %v", err)
	}
}
