package csi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// life is what a volume goes through, one step after the other. Each may be repeated.
func (h *host) life() []func(ctx context.Context, d *driver) error {
	mnt := func(name string) string { return filepath.Join(h.dir, "mnt", name) }
	up := func(name, want string) func(context.Context, *driver) error {
		return func(ctx context.Context, d *driver) error {
			if err := os.MkdirAll(mnt(name), 0o700); err != nil {
				return err
			}
			at, err := d.Mount(ctx, name, mnt(name))
			if err != nil {
				return err
			}
			file := filepath.Join(at, "f")
			if got, err := os.ReadFile(file); want != "" && string(got) != want {
				return fmt.Errorf("%s has %q, want %q (%w)", name, got, want, err)
			}
			return nil
		}
	}
	put := func(name, text string) func(context.Context, *driver) error {
		return func(context.Context, *driver) error {
			if m, err := topmost(mnt(name)); err != nil || m == nil {
				return fmt.Errorf("%s is not mounted: %w", name, err)
			}
			return os.WriteFile(filepath.Join(mnt(name), "f"), []byte(text), 0o600)
		}
	}
	down := func(name string) func(context.Context, *driver) error {
		return func(ctx context.Context, d *driver) error { return d.Unmount(ctx, name, mnt(name)) }
	}
	unless := func(class error, f func(context.Context, *driver) error) func(context.Context, *driver) error {
		return func(ctx context.Context, d *driver) error { // that which an earlier life has done already
			if err := f(ctx, d); !errors.Is(err, class) {
				return err
			}
			return nil
		}
	}
	remove := func(name string) func(context.Context, *driver) error {
		return unless(errdefs.ErrNotFound, func(ctx context.Context, d *driver) error { return d.Remove(ctx, name) })
	}
	return []func(context.Context, *driver) error{
		func(ctx context.Context, d *driver) error {
			return d.Create(ctx, "a", map[string]string{"size": "32m"})
		},
		up("a", ""), put("a", "first"),
		unless(errdefs.ErrExists, func(ctx context.Context, d *driver) error { return d.CreateSnapshot(ctx, "a", "s", nil) }),
		put("a", "second"),
		func(ctx context.Context, d *driver) error { return d.Resize(ctx, "a", 64<<20) },
		down("a"), up("a", "second"), down("a"),
		unless(errdefs.ErrExists, func(ctx context.Context, d *driver) error { return d.Clone(ctx, "b", "a", "", nil) }),
		unless(errdefs.ErrExists, func(ctx context.Context, d *driver) error { return d.Clone(ctx, "c", "a", "s", nil) }),
		up("b", "second"), up("c", "first"), down("b"), remove("b"),
		unless(errdefs.ErrUnsupported, unless(errdefs.ErrExists, func(ctx context.Context, d *driver) error {
			return d.CreateSnapshots(ctx, []string{"a", "c"}, "g", nil)
		})),
		h.allOrNone("g", "a", "c"),
		func(ctx context.Context, d *driver) error { return d.Rollback(ctx, "a", "s") },
		up("a", "first"), down("a"), down("c"), remove("c"),
		unless(errdefs.ErrNotFound, func(ctx context.Context, d *driver) error { return d.RemoveSnapshot(ctx, "a", "s") }),
		remove("a"),
	}
}

// allOrNone wants a snapshot of each of the volumes, or of none where the CSI driver has no groups.
func (*host) allOrNone(snapshot string, names ...string) func(context.Context, *driver) error {
	return func(ctx context.Context, d *driver) error {
		facts, err := d.conn.Facts(ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			all, err := d.Snapshots(ctx, name)
			if err != nil {
				return err
			}
			is := slices.ContainsFunc(all, func(s volume.Snapshot) bool { return s.Name == snapshot })
			if is != (groups(facts) == nil) {
				return fmt.Errorf("%s has the snapshot: %t", name, is)
			}
		}
		return nil
	}
}

// These say whose bridge a process is to be.
const (
	bridgeEnv       = "REMORA_CSI_BRIDGE"
	bridgeSocketEnv = "REMORA_CSI_BRIDGE_ENDPOINT"
)

// bridge lives as a process of its own, which can be killed.
func bridge(dir string) error {
	h := &host{dir: dir, c: testConfig(os.Getenv(bridgeSocketEnv))}
	s, err := h.c.check()
	if err != nil {
		return err
	}
	ctx := context.Background()
	s.pace = quick
	d, err := start(ctx, h.c, s, h.env())
	if err != nil {
		return err
	}
	for i, step := range h.life() {
		if err := step(ctx, d); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "step"), fmt.Append(nil, i+1), 0o600); err != nil {
			return err
		}
		if i == 8 { // let the volume be detached
			time.Sleep(5 * h.c.Detach)
		}
	}
	return nil
}

// TestKilledBridge kills the daemon at each point before and after the effect of each RPC of a volume's life. The next
// one goes on, and nothing is left at the storage in the end.
func TestKilledBridge(t *testing.T) {
	events := 0
	run := func(t *testing.T, at int) {
		h := newHost(t, csitest.All())
		var cmd *exec.Cmd
		var mu sync.Mutex
		n := 0
		h.mock.OnCall(func(rpc string, _ csitest.When) {
			if !changes(rpc) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if n++; n == at+1 && cmd != nil {
				_ = cmd.Process.Kill()
				t.Logf("killed at %s", rpc)
			}
		})
		mu.Lock()
		cmd = exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), bridgeEnv+"="+h.dir, bridgeSocketEnv+"="+h.mock.Endpoint)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		mu.Unlock()
		err := cmd.Wait()
		if at < 0 {
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			events = n
			mu.Unlock()
		}
		step := 0
		if text, err := os.ReadFile(filepath.Join(h.dir, "step")); err == nil {
			_, _ = fmt.Sscan(string(text), &step)
		}
		h.goOn(t, step)
	}
	run(t, -1)
	if events < 40 {
		t.Fatalf("only %d events in a whole life", events)
	}
	every := 1
	if testing.Short() {
		every = 9
	}
	for at := 0; at < events; at += every {
		t.Run(fmt.Sprint(at), func(t *testing.T) { run(t, at) })
	}
}

// changes tells whether an RPC changes anything.
func changes(rpc string) bool {
	return slices.Contains([]string{
		callCreate, callDelete, callAttach, callDetach, callStage, callUnstage, callPublish, callUnpublish, callGrow, callGrowNode, callSnapshot, callUnsnapshot, callGroup, callUngroup,
	}, rpc)
}

// goOn lives the rest of a life, with another bridge, and wants nothing left of it.
func (h *host) goOn(t *testing.T, step int) {
	t.Helper()
	d := h.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i, f := range h.life()[step:] {
		if err := f(ctx, d); err != nil {
			t.Fatalf("step %d: %v", step+i, err)
		}
	}
	h.nothingLeft(t)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// nothingLeft waits until nothing is left: at the storage, mounted, or written down.
func (h *host) nothingLeft(t *testing.T) {
	t.Helper()
	left := func() []string {
		all := h.mock.Left()
		mounts, err := mount.List(h.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mounts {
			if m.Mountpoint != filepath.Join(h.dir, "run/csi/pool/m") {
				all = append(all, "mount "+m.Mountpoint)
			}
		}
		for _, dir := range []string{"state/csi/pool/volumes", "state/csi/pool/trash", "state/csi/pool/snapshots", "state/csi/pool/groups", "run/csi/pool/nodes", "run/csi/pool/m"} {
			entries, err := os.ReadDir(filepath.Join(h.dir, dir))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				all = append(all, filepath.Join(dir, e.Name()))
			}
		}
		return all
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		all := left()
		if len(all) == 0 {
			return
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("left: %q", all)
		}
	}
}

// TestCrashedDriver has the CSI driver crash at each of these points, and come back. Nobody notices but by the time that
// it takes.
func TestCrashedDriver(t *testing.T) {
	h := newHost(t, csitest.All())
	h.goOn(t, 0)
	seen := map[string]int{}
	type point struct {
		rpc  string
		skip int
		when csitest.When
	}
	var points []point
	for _, c := range h.mock.Log() {
		if changes(c.RPC) {
			points = append(points, point{c.RPC, seen[c.RPC], csitest.Before}, point{c.RPC, seen[c.RPC], csitest.After})
			seen[c.RPC]++
		}
	}
	every := 1
	if testing.Short() {
		every = 9
	}
	for i := 0; i < len(points); i += every {
		p := points[i]
		t.Run(fmt.Sprintf("%s-%d-%s", p.rpc, p.skip, p.when), func(t *testing.T) {
			h := newHost(t, csitest.All())
			h.mock.Faults.Add(csitest.Fault{RPC: p.rpc, When: p.when, What: csitest.Crash, Times: 1, Skip: p.skip})
			var over atomic.Bool
			var restarting sync.WaitGroup
			restarting.Go(func() {
				for !over.Load() {
					if len(h.mock.Faults.Left()) == 0 {
						time.Sleep(20 * time.Millisecond)
						h.mock.Restart()
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
			defer restarting.Wait()
			defer over.Store(true)
			h.goOn(t, 0)
		})
	}
}

// TestReboot: what was mounted has gone, and what was attached is so still.
func TestReboot(t *testing.T) {
	h := newHost(t, csitest.All(), func(c *config) { c.Detach = time.Hour })
	d := h.open(t)
	life := h.life()
	for i := range 3 {
		if err := life[i](t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := unbind(filepath.Join(h.dir, "mnt", "a"), false); err != nil {
		t.Fatal(err)
	}
	h.mock.Reboot()
	if err := os.RemoveAll(filepath.Join(h.dir, "run", "csi", "pool", "nodes")); err != nil {
		t.Fatal(err)
	}
	before := h.mock.Calls()[callAttach]
	d = h.open(t)
	v, _ := d.store.find("a")
	if r, n := d.store.see(v); r.Phase != phaseAttached || !n.idle() {
		t.Errorf("after a reboot: %s, %+v", r.Phase, n)
	}
	h.c.Detach = 20 * time.Millisecond
	d.c.Detach = h.c.Detach
	if err := life[1](t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(h.dir, "mnt", "a", "f")); string(got) != "first" {
		t.Errorf("after a reboot: %q, %v", got, err)
	}
	if after := h.mock.Calls()[callAttach]; after != before {
		t.Errorf("attached %d times more", after-before)
	}
	if err := errors.Join(d.Unmount(t.Context(), "a", filepath.Join(h.dir, "mnt", "a")), d.Remove(t.Context(), "a")); err != nil {
		t.Fatal(err)
	}
	h.nothingLeft(t)
}
