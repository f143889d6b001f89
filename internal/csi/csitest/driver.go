package csitest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// driver is one life of a driver: from its start until it ends or is killed.
type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	csi.UnimplementedGroupControllerServer

	o    Options
	s    *storage
	j    *journal
	kill func() // of the process; nil is in the process of the test
	hook func(rpc string, when When)

	servers []*grpc.Server
	dead    chan struct{}
	die     sync.Once
	active  atomic.Int64 // calls that are at work

	mu     sync.Mutex
	flight map[string]*flight
	copied map[string]int // calls of CreateVolume for a copy, by name
}

// flight is a call that is not answered yet.
type flight struct {
	rpc  string
	gone <-chan struct{} // its caller has given up
	done chan struct{}
}

func newDriver(o Options, s *storage, j *journal) *driver {
	return &driver{o: o, s: s, j: j, dead: make(chan struct{}), flight: map[string]*flight{}}
}

// listen serves on the sockets of a node and, if it has its own, of a controller.
func (d *driver) listen(node, controller string) error {
	serve := func(socket string, register ...func(*grpc.Server)) error {
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		l, err := net.Listen("unix", socket)
		if err != nil {
			return err
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false) // the next life may have its own there by then
		g := grpc.NewServer(grpc.UnaryInterceptor(d.intercept), grpc.NumStreamWorkers(0))
		csi.RegisterIdentityServer(g, d)
		for _, r := range register {
			r(g)
		}
		d.servers = append(d.servers, g)
		go func() { _ = g.Serve(l) }()
		return nil
	}
	nodeService := func(g *grpc.Server) { csi.RegisterNodeServer(g, d) }
	rest := func(g *grpc.Server) {
		if d.o.NodeOnly {
			return
		}
		csi.RegisterControllerServer(g, d)
		if d.o.Group {
			csi.RegisterGroupControllerServer(g, d)
		}
	}
	if controller == "" {
		return serve(node, nodeService, rest)
	}
	if err := serve(controller, rest); err != nil {
		return err
	}
	return serve(node, nodeService)
}

// ended waits until no call of a driver that has ended is at work any more: a process takes them with it.
func (d *driver) ended() {
	for began := time.Now(); d.active.Load() > 0 && time.Since(began) < 10*time.Second; {
		time.Sleep(time.Millisecond)
	}
}

// end cuts all connections and takes no other.
func (d *driver) end() {
	d.die.Do(func() {
		close(d.dead)
		if d.kill != nil {
			d.kill()
		}
		for _, g := range d.servers {
			g.Stop()
		}
	})
}

func (d *driver) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	d.active.Add(1)
	defer d.active.Add(-1)
	rpc := path.Base(info.FullMethod)
	keys, of := subject(req)
	d.j.append("calls", Call{RPC: rpc, Of: of, Time: time.Now()})
	if err := d.wellFormed(rpc, req); err != nil {
		return nil, err
	}
	leave, err := d.enter(ctx, rpc, keys)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := d.moment(ctx, rpc, Before); err != nil {
		d.failedBefore(req)
		return nil, err
	}
	if wait, ok := d.o.Latency[rpc]; ok || d.o.Latency[""] > 0 {
		if !ok {
			wait = d.o.Latency[""]
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	select {
	case <-d.dead:
		return nil, status.Error(codes.Unavailable, "the driver has ended")
	default:
	}
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := d.moment(ctx, rpc, After); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil { // the driver's clock may be before the caller's
		return nil, status.FromContextError(err).Err()
	}
	return resp, nil
}

// moment has the fault of this moment come.
func (d *driver) moment(ctx context.Context, rpc string, when When) error {
	if d.hook != nil {
		d.hook(rpc, when)
	}
	what, ok := d.j.next(rpc, when)
	if !ok {
		return nil
	}
	switch what.Kind {
	case Crash.Kind:
		d.end()
		return status.Error(codes.Unavailable, "the driver has crashed")
	case Hang.Kind, Late.Kind:
		select {
		case <-ctx.Done():
		case <-d.dead:
		}
		if what == Late && when == Before {
			select {
			case <-time.After(300 * time.Millisecond):
			case <-d.dead:
			}
			return nil
		}
		return status.FromContextError(ctx.Err()).Err()
	}
	return status.Errorf(what.Code, "a fault of the test at %s", rpc)
}

// enter begins a call, which is the only one of each of keys. One that is made while another is in flight is a
// violation, unless the caller of that has given it up.
func (d *driver) enter(ctx context.Context, rpc string, keys []string) (leave func(), err error) {
	own := &flight{rpc: rpc, gone: ctx.Done(), done: make(chan struct{})}
	for {
		var other *flight
		var of string
		d.mu.Lock()
		for _, k := range keys {
			if f := d.flight[k]; f != nil {
				other, of = f, k
			}
		}
		if other == nil {
			for _, k := range keys {
				d.flight[k] = own
			}
		}
		d.mu.Unlock()
		if other == nil {
			return func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				for _, k := range keys {
					delete(d.flight, k)
				}
				close(own.done)
			}, nil
		}
		// The end of a caller that was killed may be seen later than the first call of the next one.
		select {
		case <-other.gone:
			return nil, status.Errorf(codes.Aborted, "%s of %s is in flight", other.rpc, of)
		case <-other.done:
			select {
			case <-other.gone: // an answer that nobody waits for
				continue
			default:
			}
		case <-time.After(time.Second):
		case <-d.dead:
			return nil, status.Error(codes.Unavailable, "the driver has ended")
		}
		return nil, d.wrong(rpc, "in flight", codes.Aborted, "%s of %s is in flight", other.rpc, of)
	}
}

// wrong records a violation and returns the error for it.
func (d *driver) wrong(rpc, kind string, code codes.Code, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	d.j.append("violations", Violation{RPC: rpc, Kind: kind, Text: text, Time: time.Now()})
	return status.Error(code, text)
}

// GetPluginInfo says who the driver is.
func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.o.Name, VendorVersion: d.o.Version}, nil
}

// GetPluginCapabilities says which services it has.
func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: d.o.plugin()}, nil
}

// Probe says that it is there.
func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// ControllerGetCapabilities says what the controller can do.
func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: d.o.controller()}, nil
}

// NodeGetCapabilities says what the node can do.
func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: d.o.node()}, nil
}

// NodeGetInfo says which node this is.
func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	info := &csi.NodeGetInfoResponse{NodeId: d.o.NodeID, MaxVolumesPerNode: d.o.MaxVolumes}
	if d.o.Topology != nil {
		info.AccessibleTopology = &csi.Topology{Segments: d.o.Topology}
	}
	return info, nil
}

// killSelf ends this process as nothing else does.
func killSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
