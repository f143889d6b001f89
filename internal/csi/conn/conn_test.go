package conn

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestMain(m *testing.M) {
	if csitest.Main() {
		return
	}
	os.Exit(m.Run())
}

// server is a driver that answers what a test tells it to.
type server struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	name, version string
	caps          []csi.ControllerServiceCapability_RPC_Type
	nodeID        string
	create        func(context.Context, *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error)
	attach        func(context.Context, *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error)
	probe         func(context.Context) (*csi.ProbeResponse, error)
	infos         atomic.Int64
}

func (s *server) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	s.infos.Add(1)
	return &csi.GetPluginInfoResponse{Name: s.name, VendorVersion: s.version}, nil
}

func (s *server) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	if s.probe != nil {
		return s.probe(ctx)
	}
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func (s *server) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{Type: &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE},
	}}}}, nil
}

func (s *server) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	resp := &csi.ControllerGetCapabilitiesResponse{}
	for _, c := range s.caps {
		resp.Capabilities = append(resp.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: c},
		}})
	}
	return resp, nil
}

func (s *server) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (s *server) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: s.nodeID, AccessibleTopology: &csi.Topology{Segments: map[string]string{"zone": "a"}}}, nil
}

func (s *server) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if s.create == nil {
		return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: "v-" + req.GetName()}}, nil
	}
	return s.create(ctx, req)
}

func (s *server) ControllerPublishVolume(ctx context.Context, req *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	return s.attach(ctx, req)
}

// serve lets a driver listen until the test ends, or until what it returns is called.
func serve(t testing.TB, path string, s *server) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	csi.RegisterIdentityServer(g, s)
	csi.RegisterControllerServer(g, s)
	csi.RegisterNodeServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	stop = func() { g.Stop(); <-done }
	t.Cleanup(stop)
	return stop
}

// start serves a driver and opens it.
func start(t testing.TB, s *server, conf Config) *Driver {
	t.Helper()
	conf.Node = filepath.Join(t.TempDir(), "s")
	serve(t, conf.Node, s)
	return open(t, conf)
}

func open(t testing.TB, conf Config) *Driver {
	t.Helper()
	d := Open(conf)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestFacts(t *testing.T) {
	s := &server{name: "a.example.org", version: "v1.2.3", nodeID: "n1", caps: []csi.ControllerServiceCapability_RPC_Type{1, 11, 77}}
	d := start(t, s, Config{Name: "a.example.org"})
	f, err := d.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "a.example.org" || f.Version != "v1.2.3" || f.NodeID != "n1" || f.Topology["zone"] != "a" {
		t.Errorf("facts: %+v", f)
	}
	if !f.Controller.Has(csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, 77) || f.Controller.Has(2) {
		t.Errorf("capabilities: %v", f.Controller)
	}
	if diff := cmp.Diff([]string{"CREATE_DELETE_VOLUME", "VOLUME_CONDITION", "77"}, f.Controller.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for range 3 {
		if _, err := d.Facts(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.infos.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestErrorsOfCodes(t *testing.T) {
	var answer error
	s := &server{name: "ebs.csi.aws.com", version: "v1.64.0", attach: func(context.Context, *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
		return nil, answer
	}}
	d := start(t, s, Config{})
	for _, tt := range []struct {
		code    codes.Code
		text    string
		class   error
		outcome Outcome
		want    string
	}{
		{codes.Aborted, "pending", errdefs.ErrUnavailable, Pending, "it is still at work on this: pending"},
		{codes.NotFound, "no i-1", errdefs.ErrNotFound, Gone, "the volume, or this host, is not known to it: no i-1"},
		{codes.ResourceExhausted, "39 disks", errdefs.ErrUnavailable, Pending, "this host cannot have another volume: 39 disks"},
		{codes.InvalidArgument, "two\nlines", errdefs.ErrInvalid, Final, "it refuses the request: two; lines"},
		{codes.Internal, "oops", nil, Unknown, "it failed: oops"},
		{codes.Internal, `Could not attach: VolumeInUse: vol-1 is already attached to an instance`, errdefs.ErrInUse, Final, "it is in use by another host: Could not attach: VolumeInUse: vol-1 is already attached to an instance"},
		{codes.Code(99), "new", nil, Unknown, "it failed: new"},
	} {
		answer = status.Error(tt.code, tt.text)
		_, err := d.Controller().ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{VolumeId: "v"})
		if want := "ebs.csi.aws.com: ControllerPublishVolume: " + tt.want; err == nil || err.Error() != want {
			t.Errorf("%s: got %q, want %q", tt.code, err, want)
		}
		if got := errdefs.Class(err); !errors.Is(got, tt.class) {
			t.Errorf("%s: class %v, want %v", tt.code, got, tt.class)
		}
		if got := OutcomeOf(err); got != tt.outcome || !Sent(err) {
			t.Errorf("%s: outcome %s, want %s", tt.code, got, tt.outcome)
		}
	}
}
