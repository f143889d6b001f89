package csitest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
)

func TestMain(m *testing.M) {
	if csitest.Main() {
		return
	}
	os.Exit(testenv.Main(m))
}

// caller calls a driver as it should be called, but for what edit changes.
type caller struct {
	t *testing.T
	m *csitest.Mock
	csi.ControllerClient
	csi.NodeClient
	group csi.GroupControllerClient
	dir   string
}

// again repeats a call that was lost with its driver, or is still in flight, unless it has a limit.
func again(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	for try := 0; ; try++ {
		err := invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(true))...)
		_, limited := ctx.Deadline()
		if c := status.Code(err); limited || try == 20 || c != codes.Unavailable && c != codes.Aborted {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func call(t *testing.T, m *csitest.Mock) *caller {
	t.Helper()
	c, err := grpc.NewClient("unix://"+m.Endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithUnaryInterceptor(again))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &caller{t, m, csi.NewControllerClient(c), csi.NewNodeClient(c), csi.NewGroupControllerClient(c), dir}
}

func capability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

func (c *caller) createRequest(name string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{capability()}, CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 20}, Secrets: c.m.Options.Secrets,
	}
}

func (c *caller) create(name string) *csi.Volume {
	c.t.Helper()
	r, err := c.CreateVolume(c.t.Context(), c.createRequest(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return r.GetVolume()
}

func (c *caller) attachRequest(v *csi.Volume) *csi.ControllerPublishVolumeRequest {
	return &csi.ControllerPublishVolumeRequest{
		VolumeId: v.GetVolumeId(), NodeId: c.m.Options.NodeID, VolumeCapability: capability(), VolumeContext: v.GetVolumeContext(), Secrets: c.m.Options.Secrets,
	}
}

func (c *caller) attach(v *csi.Volume) map[string]string {
	c.t.Helper()
	r, err := c.ControllerPublishVolume(c.t.Context(), c.attachRequest(v))
	if err != nil {
		c.t.Fatal(err)
	}
	return r.GetPublishContext()
}

func (c *caller) staging() string { return filepath.Join(c.dir, "s") }
func (c *caller) target() string  { return filepath.Join(c.dir, "t") }

func (c *caller) stageRequest(v *csi.Volume, at map[string]string) *csi.NodeStageVolumeRequest {
	_ = os.Mkdir(c.staging(), 0o700)
	return &csi.NodeStageVolumeRequest{
		VolumeId: v.GetVolumeId(), StagingTargetPath: c.staging(), VolumeCapability: capability(), VolumeContext: v.GetVolumeContext(), PublishContext: at,
		Secrets: c.m.Options.Secrets,
	}
}

func (c *caller) publishRequest(v *csi.Volume, at map[string]string) *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{
		VolumeId: v.GetVolumeId(), StagingTargetPath: c.staging(), TargetPath: c.target(), VolumeCapability: capability(), VolumeContext: v.GetVolumeContext(),
		PublishContext: at, Secrets: c.m.Options.Secrets,
	}
}

// up attaches, stages and publishes a volume.
func (c *caller) up(v *csi.Volume) map[string]string {
	c.t.Helper()
	at := c.attach(v)
	if _, err := c.NodeStageVolume(c.t.Context(), c.stageRequest(v, at)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.NodePublishVolume(c.t.Context(), c.publishRequest(v, at)); err != nil {
		c.t.Fatal(err)
	}
	return at
}

func (c *caller) unpublish(v *csi.Volume) error {
	_, err := c.NodeUnpublishVolume(c.t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), TargetPath: c.target()})
	return err
}

func (c *caller) unstage(v *csi.Volume) error {
	_, err := c.NodeUnstageVolume(c.t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: c.staging()})
	return err
}

func (c *caller) detach(v *csi.Volume) error {
	_, err := c.ControllerUnpublishVolume(c.t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: c.m.Options.NodeID, Secrets: c.m.Options.Secrets})
	return err
}

func (c *caller) remove(v *csi.Volume) error {
	_, err := c.DeleteVolume(c.t.Context(), &csi.DeleteVolumeRequest{VolumeId: v.GetVolumeId(), Secrets: c.m.Options.Secrets})
	return err
}

func (c *caller) down(v *csi.Volume) {
	c.t.Helper()
	for _, step := range []func(*csi.Volume) error{c.unpublish, c.unstage, c.detach, c.remove} {
		if err := step(v); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *caller) write(text string) {
	c.t.Helper()
	if err := os.WriteFile(c.target()+"/file", []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *caller) reads(want string) {
	c.t.Helper()
	if got, err := os.ReadFile(c.target() + "/file"); err != nil || string(got) != want {
		c.t.Errorf("%q, %v in the volume, not %q", got, err, want)
	}
}

// TestLife goes up and down as one should, with the driver killed in between.
func TestLife(t *testing.T) {
	testenv.Require(t, testenv.Root)
	for _, process := range []bool{false, true} {
		t.Run(map[bool]string{false: "inside", true: "process"}[process], func(t *testing.T) {
			o := csitest.All()
			o.Process, o.Secrets = process, map[string]string{"key": "word"}
			m := csitest.Start(t, o)
			c := call(t, m)
			v := c.create("one")
			if again := c.create("one"); again.GetVolumeId() != v.GetVolumeId() {
				t.Errorf("ids %s and %s", v.GetVolumeId(), again.GetVolumeId())
			}
			c.up(v)
			c.write("a")
			m.Kill()
			c.reads("a")
			m.Restart()
			c.up(v)
			c.reads("a")
			m.Reboot()
			if is, err := mount.At(c.target()); err != nil || is {
				t.Errorf("mounted after a reboot: %t, %v", is, err)
			}
			c.up(v)
			c.reads("a")
			if at := m.Attached(v.GetVolumeId()); len(at) != 1 || at[0] != "node-1" {
				t.Errorf("attached to %q", at)
			}
			c.down(v)
			c.down(v2(t, c, "two"))
			if left := m.Left(); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if n := m.Calls()["NodeStageVolume"]; n != 4 {
				t.Errorf("%d calls of NodeStageVolume, not 4", n)
			}
		})
	}
}

func v2(t *testing.T, c *caller, name string) *csi.Volume {
	t.Helper()
	v := c.create(name)
	c.up(v)
	return v
}

// TestFaults has each fault come once.
func TestFaults(t *testing.T) {
	testenv.Require(t, testenv.Root)
	for _, process := range []bool{false, true} {
		t.Run(map[bool]string{false: "inside", true: "process"}[process], func(t *testing.T) {
			o := csitest.All()
			o.Process = process
			m := csitest.Start(t, o)
			c := call(t, m)
			for i, f := range []struct {
				when csitest.When
				what csitest.What
				want codes.Code
				made bool
			}{
				{csitest.Before, csitest.Code(codes.ResourceExhausted), codes.ResourceExhausted, false},
				{csitest.After, csitest.Code(codes.Internal), codes.Internal, true},
				{csitest.Before, csitest.Hang, codes.DeadlineExceeded, false},
				{csitest.After, csitest.Hang, codes.DeadlineExceeded, true},
				{csitest.Before, csitest.Crash, codes.Unavailable, false},
				{csitest.After, csitest.Crash, codes.Unavailable, true},
			} {
				name := string(rune('a' + i))
				m.Faults.Set("CreateVolume", f.when, f.what, 1)
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				_, err := c.CreateVolume(ctx, c.createRequest(name), grpc.WaitForReady(true))
				cancel()
				gaveUp := f.what == csitest.Hang && status.Code(err) == codes.Canceled // the driver, before the caller
				if got := status.Code(err); got != f.want && !gaveUp {
					t.Errorf("%s %v: %v", f.when, f.what, err)
				}
				made := false
				for _, v := range m.Volumes() {
					made = made || v.Name == name
				}
				if made != f.made {
					t.Errorf("%s %v: made is %t", f.when, f.what, made)
				}
				if f.what == csitest.Crash {
					m.Restart()
				}
				if left := m.Faults.Left(); len(left) > 0 {
					t.Errorf("faults left: %v", left)
				}
				c.create(name)
			}
		})
	}
}

// TestFUSE kills the process that serves a volume, which is made anew by going down and up.
func TestFUSE(t *testing.T) {
	testenv.Require(t, testenv.Root)
	testenv.Require(t, testenv.Sshfs)
	o := csitest.All()
	o.FUSE = true
	m := csitest.Start(t, o)
	c := call(t, m)
	v := c.create("one")
	c.up(v)
	c.write("a")
	m.Kill()
	c.reads("a")
	m.Restart()
	if !m.KillFUSE(v.GetVolumeId()) {
		t.Fatal("there is no process")
	}
	for try := 0; ; try++ {
		if _, err := os.ReadDir(c.target()); errors.Is(err, unix.ENOTCONN) {
			break
		} else if try == 1000 {
			t.Fatalf("read of a dead volume: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := errors.Join(c.unpublish(v), c.unstage(v)); err != nil {
		t.Fatal(err)
	}
	c.up(v)
	c.reads("a")
	c.down(v)
}
