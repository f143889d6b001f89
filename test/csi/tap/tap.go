// Package tap stands between a CSI driver and who calls it, and writes down what is said: how often, how long each
// call took, what it ended with, and whether the calls came in the order that the CSI specification has. It knows
// nothing of either side, so what it sees is what was really said.
package tap

import (
	"maps"
	"net"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Tap passes calls on to a driver.
type Tap struct {
	server *grpc.Server
	driver *grpc.ClientConn

	mu     sync.Mutex
	figure map[string]*Figure
	order  order
	facts  Facts
	made   map[string]bool     // volumes, snapshots and groups of them that were created and not deleted
	groups map[string][]string // the snapshots of each group
}

// Figure is what is known of the calls of one RPC.
type Figure struct {
	Calls    int
	Min, Max time.Duration
	// Sum is of all calls.
	Sum time.Duration
	// Errors counts the codes that were not OK.
	Errors map[codes.Code]int
}

// Facts are what the driver has said of itself.
type Facts struct {
	Name, Version string
	Controller    map[csi.ControllerServiceCapability_RPC_Type]bool
	Node          map[csi.NodeServiceCapability_RPC_Type]bool
	Group         map[csi.GroupControllerServiceCapability_RPC_Type]bool
}

// Start listens on a socket and passes on what comes to the socket of a driver.
func Start(socket, driver string) (*Tap, error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix://"+driver, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		listener.Close()
		return nil, err
	}
	t := &Tap{driver: conn, figure: map[string]*Figure{}, order: newOrder(), made: map[string]bool{}, groups: map[string][]string{}}
	t.server = grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(t.pass))
	go t.server.Serve(listener) // until Stop
	return t, nil
}

// Stop hangs up on both sides.
func (t *Tap) Stop() {
	t.server.Stop()
	t.driver.Close()
}

// pass passes one call on. All calls that are passed on have one question and one answer.
func (t *Tap) pass(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var ask, answer frame
	if err := stream.RecvMsg(&ask); err != nil {
		return err
	}
	ctx := stream.Context()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	name := path.Base(method)
	done := t.begin(name, ask)
	began := time.Now()
	err := t.driver.Invoke(ctx, method, &ask, &answer, grpc.ForceCodec(raw{}))
	done(time.Since(began), answer, err)
	if err != nil {
		return err // with the driver's own code and text
	}
	return stream.SendMsg(&answer)
}

// begin is called before a call is passed on, and what it returns after.
func (t *Tap) begin(name string, ask frame) func(time.Duration, frame, error) {
	t.mu.Lock()
	ended := t.order.begin(name, ask, t.facts)
	t.mu.Unlock()
	return func(took time.Duration, answer frame, err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		f := t.figure[name]
		if f == nil {
			f = &Figure{Min: took, Errors: map[codes.Code]int{}}
			t.figure[name] = f
		}
		f.Calls++
		f.Sum += took
		f.Min, f.Max = min(f.Min, took), max(f.Max, took)
		if code := status.Code(err); code != codes.OK {
			f.Errors[code]++
		}
		ended(err)
		if err == nil {
			t.learn(name, answer)
			t.count(name, ask, answer)
		}
	}
}

// learn takes what a driver says of itself.
func (t *Tap) learn(name string, answer frame) {
	switch name {
	case "GetPluginInfo":
		var m csi.GetPluginInfoResponse
		if answer.read(&m) {
			t.facts.Name, t.facts.Version = m.GetName(), m.GetVendorVersion()
		}
	case "ControllerGetCapabilities":
		var m csi.ControllerGetCapabilitiesResponse
		if answer.read(&m) {
			t.facts.Controller = map[csi.ControllerServiceCapability_RPC_Type]bool{}
			for _, c := range m.GetCapabilities() {
				t.facts.Controller[c.GetRpc().GetType()] = true
			}
		}
	case "GroupControllerGetCapabilities":
		var m csi.GroupControllerGetCapabilitiesResponse
		if answer.read(&m) {
			t.facts.Group = map[csi.GroupControllerServiceCapability_RPC_Type]bool{}
			for _, c := range m.GetCapabilities() {
				t.facts.Group[c.GetRpc().GetType()] = true
			}
		}
	case "NodeGetCapabilities":
		var m csi.NodeGetCapabilitiesResponse
		if answer.read(&m) {
			t.facts.Node = map[csi.NodeServiceCapability_RPC_Type]bool{}
			for _, c := range m.GetCapabilities() {
				t.facts.Node[c.GetRpc().GetType()] = true
			}
		}
	}
}

// count keeps the list of what there is at the storage.
func (t *Tap) count(name string, ask, answer frame) {
	switch name {
	case "CreateVolume":
		var m csi.CreateVolumeResponse
		if answer.read(&m) {
			t.made["volume "+m.GetVolume().GetVolumeId()] = true
		}
	case "CreateSnapshot":
		var m csi.CreateSnapshotResponse
		if answer.read(&m) {
			t.made["snapshot "+m.GetSnapshot().GetSnapshotId()] = true
		}
	case "CreateVolumeGroupSnapshot":
		var m csi.CreateVolumeGroupSnapshotResponse
		if answer.read(&m) {
			g := m.GetGroupSnapshot()
			t.made["group "+g.GetGroupSnapshotId()] = true
			t.groups[g.GetGroupSnapshotId()] = nil
			for _, s := range g.GetSnapshots() {
				t.made["snapshot "+s.GetSnapshotId()] = true
				t.groups[g.GetGroupSnapshotId()] = append(t.groups[g.GetGroupSnapshotId()], s.GetSnapshotId())
			}
		}
	case "DeleteVolumeGroupSnapshot":
		var m csi.DeleteVolumeGroupSnapshotRequest
		if ask.read(&m) {
			delete(t.made, "group "+m.GetGroupSnapshotId())
			for _, id := range t.groups[m.GetGroupSnapshotId()] {
				delete(t.made, "snapshot "+id)
			}
		}
	case "DeleteVolume":
		var m csi.DeleteVolumeRequest
		if ask.read(&m) {
			delete(t.made, "volume "+m.GetVolumeId())
		}
	case "DeleteSnapshot":
		var m csi.DeleteSnapshotRequest
		if ask.read(&m) {
			delete(t.made, "snapshot "+m.GetSnapshotId())
		}
	}
}

// Left returns the volumes, snapshots and groups of snapshots that were created and not deleted.
func (t *Tap) Left() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.made))
}

// Facts returns what the driver has said of itself so far.
func (t *Tap) Facts() Facts {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.facts
	f.Controller, f.Node, f.Group = maps.Clone(f.Controller), maps.Clone(f.Node), maps.Clone(f.Group)
	return f
}

// Figures returns what is known of each RPC that was called.
func (t *Tap) Figures() map[string]Figure {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[string]Figure{}
	for name, f := range t.figure {
		c := *f
		c.Errors = maps.Clone(f.Errors)
		all[name] = c
	}
	return all
}

// Calls returns how many calls there were in all.
func (t *Tap) Calls() int {
	n := 0
	for _, f := range t.Figures() {
		n += f.Calls
	}
	return n
}

// Violations returns what was called out of order, in the order in which it was.
func (t *Tap) Violations() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.order.violations)
}

// Up returns what is attached, staged or published now, by volume.
func (t *Tap) Up() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.order.up()
}
