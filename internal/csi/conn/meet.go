package conn

import (
	"context"
	"maps"
	"regexp"
	"strings"
	"unicode"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// introduces reports whether an RPC is one by which a driver says who it is. They change nothing, and are made
// before it is known.
func introduces(rpc string) bool {
	switch rpc {
	case "GetPluginInfo", "Probe", "GetPluginCapabilities", "ControllerGetCapabilities", "GroupControllerGetCapabilities",
		"NodeGetCapabilities", "NodeGetInfo":
		return true
	}
	return false
}

// who is a driver by its name.
type who struct {
	name, version string
	dial          int64 // of which connection
}

// known reports whether the driver behind the socket has given its name on the connection that is up.
func (s *socket) known() bool {
	w := s.met.Load()
	return w != nil && w.dial == s.dials.Load() && s.live()
}

// meet makes sure that who is behind a socket is who should be.
func (d *Driver) meet(ctx context.Context, s *socket) error {
	if s.known() {
		return nil
	}
	if err := d.lock(ctx); err != nil {
		return err
	}
	defer d.unlock()
	return d.ask(ctx, s)
}

func (d *Driver) lock(ctx context.Context) error {
	select {
	case d.reading <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errdefs.Errorf(context.Cause(ctx), "%s: it is still being asked who it is: %w", d.name(d.node), ctx.Err())
	}
}

func (d *Driver) unlock() { <-d.reading }

// ask asks for the name, with the lock held.
func (d *Driver) ask(ctx context.Context, s *socket) error {
	if s.known() {
		return nil
	}
	resp, err := csi.NewIdentityClient(s).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil {
		return err
	}
	w := &who{resp.GetName(), clean(resp.GetVendorVersion(), maxVersion), s.dials.Load()}
	if err := d.recognize(s, w.name); err != nil {
		return err
	}
	if was := s.met.Swap(w); was == nil || was.name != w.name || was.version != w.version {
		d.log.InfoContext(ctx, "csi driver", "driver", w.name, "version", w.version, "socket", s.path)
	} else {
		d.log.InfoContext(ctx, "csi driver is back", "driver", w.name, "version", w.version, "socket", s.path)
	}
	return nil
}

// driverName is what the specification wants of a name.
var driverName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

const maxVersion = 128

func (d *Driver) recognize(s *socket, name string) error {
	if !driverName.MatchString(name) {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: GetPluginInfo: it calls itself %q, which is no name of a driver", s.path, clean(name, maxVersion))
	}
	if want := d.conf.Name; want != "" && name != want {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%s: GetPluginInfo: the driver there is %q, and not %q", s.path, name, want),
			"correct the endpoint, or the driver's name in the pool")
	}
	other := d.node
	if s == d.node {
		other = d.controller
	}
	if w := other.met.Load(); other != s && w != nil && w.name != name {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%s: GetPluginInfo: the driver there is %q, and that at %s is %q", s.path, name, other.path, w.name),
			"give two sockets of one driver")
	}
	return nil
}

// clean makes of what a driver says one line of a limited length without control characters.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	text = strings.TrimSpace(text)
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

// Facts returns what the driver says of itself. It is asked once for each connection. With an error they are what
// it had said until then.
func (d *Driver) Facts(ctx context.Context) (Facts, error) {
	if err := d.lock(ctx); err != nil {
		return Facts{}, err
	}
	defer d.unlock()
	for _, s := range d.sockets() {
		if err := d.ask(ctx, s); err != nil {
			return Facts{}, err
		}
	}
	now := [2]int64{d.node.met.Load().dial, d.controller.met.Load().dial}
	if f, ok := d.Last(); ok && d.of == now {
		return f, nil
	}
	f, err := d.read(ctx)
	if err != nil {
		return f, err
	}
	d.mu.Lock()
	was := d.facts
	d.facts = &f
	d.mu.Unlock()
	d.of = now
	if was != nil && was.NodeID != f.NodeID {
		d.log.WarnContext(ctx, "csi driver calls this host by another id than before", "driver", f.Name, "was", was.NodeID, "is", f.NodeID)
	}
	return f, nil
}

func (d *Driver) sockets() []*socket {
	if d.split() {
		return []*socket{d.node, d.controller}
	}
	return []*socket{d.node}
}

// read asks for all there is, with the lock held.
func (d *Driver) read(ctx context.Context) (Facts, error) {
	w := d.node.met.Load()
	f := Facts{
		Name: w.name, Version: w.version, Controller: ControllerCaps{}, Group: GroupCaps{}, Plugin: PluginCaps{}, Expansion: ExpansionCaps{},
		Quirks: quirk.For(w.name, w.version).With(d.conf.Quirks),
	}
	for _, s := range d.sockets() {
		identity := csi.NewIdentityClient(s)
		ready, err := identity.Probe(ctx, &csi.ProbeRequest{})
		if err != nil && CodeOf(err) != codes.Unimplemented {
			return f, err
		}
		if r := ready.GetReady(); r != nil && !r.GetValue() {
			return f, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s: Probe: it is not ready yet", w.name), "wait until it has started; its log says what it waits for")
		}
		resp, err := identity.GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{})
		if err != nil {
			return f, err
		}
		services, expansion := pluginCaps(resp)
		maps.Copy(f.Plugin, services)
		maps.Copy(f.Expansion, expansion)
	}
	if f.Plugin.Has(csi.PluginCapability_Service_CONTROLLER_SERVICE) {
		resp, err := d.Controller().ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
		if err != nil {
			return f, err
		}
		f.Controller = controllerCaps(resp)
	}
	if f.Plugin.Has(csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE) {
		resp, err := d.Group().GroupControllerGetCapabilities(ctx, &csi.GroupControllerGetCapabilitiesRequest{})
		if err != nil && CodeOf(err) != codes.Unimplemented {
			return f, err
		}
		f.Group = groupCaps(resp)
	}
	return f, d.readNode(ctx, &f)
}

// readNode asks the node's own socket: a process that is the controller alone may announce what is the node's,
// and fail at it.
func (d *Driver) readNode(ctx context.Context, f *Facts) error {
	resp, err := d.Node().NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	f.Node = nodeCaps(resp)
	info, err := d.Node().NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	switch {
	case CodeOf(err) == codes.Unimplemented && !f.Controller.Has(csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME):
		return nil // nothing is attached, so nobody asks which host this is
	case err != nil && f.Quirks.Has(quirk.NeedsKubernetes):
		return errdefs.Hint(err, "this driver asks Kubernetes for its node: set kubeshim = true in the pool")
	case err != nil:
		return err
	}
	return d.place(f, info)
}

// place takes over where this host is, and what it is called.
func (d *Driver) place(f *Facts, info *csi.NodeGetInfoResponse) error {
	id := info.GetNodeId()
	if id != clean(id, maxNodeID) || id == "" && f.Controller.Has(csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME) {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: NodeGetInfo: %q is no id of a node", f.Name, clean(id, maxNodeID))
	}
	f.NodeID, f.MaxVolumes = id, max(0, info.GetMaxVolumesPerNode())
	f.Topology = info.GetAccessibleTopology().GetSegments()
	return nil
}

// maxNodeID is the specification's limit.
const maxNodeID = 256
