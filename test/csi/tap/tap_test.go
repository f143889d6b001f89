package tap_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/csi/tap"
)

// caller is somebody who talks to a driver through a tap, well or badly.
type caller struct {
	t          *testing.T
	ctx        context.Context //nolint:containedctx // of one test
	mock       *csitest.Mock
	tap        *tap.Tap
	identity   csi.IdentityClient
	controller csi.ControllerClient
	node       csi.NodeClient
	group      csi.GroupControllerClient
	id         string
	context    map[string]string
	publish    map[string]string
	dir        string
}

func newCaller(t *testing.T, change ...func(*csitest.Options)) *caller {
	t.Helper()
	testenv.Require(t, testenv.Root)
	o := csitest.All()
	o.MayViolate = true
	for _, c := range change {
		c(&o)
	}
	m := csitest.Start(t, o)
	dir := t.TempDir()
	seen, err := tap.Start(filepath.Join(dir, "tap.sock"), m.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(seen.Stop)
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "tap.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &caller{
		t: t, ctx: t.Context(), mock: m, tap: seen, dir: dir,
		identity: csi.NewIdentityClient(conn), controller: csi.NewControllerClient(conn), node: csi.NewNodeClient(conn),
		group: csi.NewGroupControllerClient(conn),
	}
	if _, err := c.identity.GetPluginInfo(c.ctx, &csi.GetPluginInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.controller.ControllerGetCapabilities(c.ctx, &csi.ControllerGetCapabilitiesRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.node.NodeGetCapabilities(c.ctx, &csi.NodeGetCapabilitiesRequest{}); err != nil {
		t.Fatal(err)
	}
	v := c.create("v")
	c.id, c.context = v.GetVolumeId(), v.GetVolumeContext()
	return c
}

func (c *caller) create(name string) *csi.Volume {
	c.t.Helper()
	answer, err := c.controller.CreateVolume(c.ctx, &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{capability()}, CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 20},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return answer.GetVolume()
}

func capability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

func (c *caller) ready() error {
	_, err := c.identity.Probe(c.ctx, &csi.ProbeRequest{})
	return err
}

func (c *caller) attach() error {
	answer, err := c.controller.ControllerPublishVolume(c.ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: c.id, NodeId: "node-1", VolumeCapability: capability(), VolumeContext: c.context,
	})
	c.publish = answer.GetPublishContext()
	return err
}

func (c *caller) detach() error {
	_, err := c.controller.ControllerUnpublishVolume(c.ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: c.id, NodeId: "node-1"})
	return err
}

func (c *caller) stage() error {
	at := filepath.Join(c.dir, "s")
	_ = os.Mkdir(at, 0o700)
	_, err := c.node.NodeStageVolume(c.ctx, &csi.NodeStageVolumeRequest{
		VolumeId: c.id, StagingTargetPath: at, VolumeCapability: capability(), VolumeContext: c.context, PublishContext: c.publish,
	})
	return err
}

func (c *caller) unstage() error {
	_, err := c.node.NodeUnstageVolume(c.ctx, &csi.NodeUnstageVolumeRequest{VolumeId: c.id, StagingTargetPath: filepath.Join(c.dir, "s")})
	return err
}

func (c *caller) publishIt() error {
	_, err := c.node.NodePublishVolume(c.ctx, &csi.NodePublishVolumeRequest{
		VolumeId: c.id, StagingTargetPath: filepath.Join(c.dir, "s"), TargetPath: filepath.Join(c.dir, "t"),
		VolumeCapability: capability(), VolumeContext: c.context, PublishContext: c.publish,
	})
	return err
}

func (c *caller) unpublish() error {
	_, err := c.node.NodeUnpublishVolume(c.ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: c.id, TargetPath: filepath.Join(c.dir, "t")})
	return err
}

func (c *caller) remove() error {
	_, err := c.controller.DeleteVolume(c.ctx, &csi.DeleteVolumeRequest{VolumeId: c.id})
	return err
}

func (c *caller) must(steps ...func() error) {
	c.t.Helper()
	for i, step := range steps {
		if err := step(); err != nil {
			c.t.Fatalf("step %d: %v", i, err)
		}
	}
}

// TestGoodLife: a volume that goes up and down in order is nothing to complain of, and all of it is counted.
func TestGoodLife(t *testing.T) {
	c := newCaller(t)
	c.must(c.attach, c.stage, c.publishIt)
	if up := c.tap.Up(); len(up) != 1 || !strings.Contains(up[0], "attached at node-1, published at "+c.dir) {
		t.Errorf("up: %v", up)
	}
	if left := c.tap.Left(); len(left) != 1 || left[0] != "volume "+c.id {
		t.Errorf("left: %v", left)
	}
	c.must(c.unpublish, c.unstage, c.detach, c.remove)
	if v := c.tap.Violations(); len(v) > 0 {
		t.Errorf("complaints: %v", v)
	}
	if up, left := c.tap.Up(), c.tap.Left(); len(up)+len(left) > 0 {
		t.Errorf("up: %v, left: %v", up, left)
	}
	if f := c.tap.Figures(); f["NodeStageVolume"].Calls != 1 || f["NodeStageVolume"].Max <= 0 || c.tap.Calls() != 11 {
		t.Errorf("%d calls: %+v", c.tap.Calls(), f)
	}
	if name := c.tap.Facts().Name; name != "csitest.remora.example" {
		t.Errorf("the driver is called %q", name)
	}
}

// TestErrorsArePassedOn: with the driver's own code and text, and counted.
func TestErrorsArePassedOn(t *testing.T) {
	c := newCaller(t)
	c.id = "no such volume"
	err := c.stage()
	if status.Code(err) == codes.OK || status.Code(err) == codes.Unknown {
		t.Errorf("the error is %v", err)
	}
	if n := c.tap.Figures()["NodeStageVolume"].Errors[status.Code(err)]; n != 1 {
		t.Errorf("%d errors were counted", n)
	}
	c.id = ""
	if err := c.remove(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("the error is %v", err)
	}
}

// TestBadLives: what must not be is noticed, whatever the driver says to it.
func TestBadLives(t *testing.T) {
	for _, bad := range []struct {
		name, want string
		do         func(c *caller)
	}{
		{"staged before attached", "staged and not attached", func(c *caller) { _ = c.stage() }},
		{"published before staged", "where it is not staged", func(c *caller) { c.must(c.attach); _ = c.publishIt() }},
		{"unstaged while published", "unstaged while it is published", func(c *caller) { c.must(c.attach, c.stage, c.publishIt); _ = c.unstage() }},
		{"detached while mounted", "detached while it is mounted", func(c *caller) { c.must(c.attach, c.stage, c.publishIt); _ = c.detach() }},
		{"deleted while attached", "deleted while it is in use", func(c *caller) { c.must(c.attach); _ = c.remove() }},
	} {
		t.Run(strings.ReplaceAll(bad.name, " ", "-"), func(t *testing.T) {
			c := newCaller(t)
			bad.do(c)
			if all := strings.Join(c.tap.Violations(), "\n"); !strings.Contains(all, bad.want) {
				t.Errorf("noticed: %q, want %q", all, bad.want)
			}
			_, _, _, _ = c.unpublish(), c.unstage(), c.detach(), c.remove()
		})
	}
}
