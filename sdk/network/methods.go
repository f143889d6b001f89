package network

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/rpc"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// Implements returns "NetworkDriver".
func (h *Handler) Implements() string { return wire.NetworkDriver }

// Methods returns the handler of each method of a network plugin. Those for which the
// driver lacks the interface, and which engines can do without, answer with status 404,
// by which an engine knows.
func (h *Handler) Methods() map[string]http.Handler {
	m := map[string]http.Handler{
		wire.NetworkGetCapabilities:  method(h, wire.NetworkGetCapabilities, nil, h.serveCapabilities),
		wire.NetworkGwAllocCheck:     method(h, wire.NetworkGwAllocCheck, nil, h.serveGwAllocCheck),
		wire.NetworkAllocate:         method(h, wire.NetworkAllocate, func(r *wire.AllocateNetworkRequest) string { return r.NetworkID }, h.serveAllocate),
		wire.NetworkFree:             method(h, wire.NetworkFree, networkID, h.onNetwork(h.freeNetwork)),
		wire.NetworkCreate:           method(h, wire.NetworkCreate, func(r *wire.CreateNetworkRequest) string { return r.NetworkID }, h.serveCreate),
		wire.NetworkDelete:           method(h, wire.NetworkDelete, networkID, h.onNetwork(h.deleteNetwork)),
		wire.NetworkCreateEndpoint:   method(h, wire.NetworkCreateEndpoint, func(r *wire.CreateEndpointRequest) string { return r.EndpointID }, h.serveCreateEndpoint),
		wire.NetworkDeleteEndpoint:   method(h, wire.NetworkDeleteEndpoint, endpointID, h.onEndpoint(h.deleteEndpoint)),
		wire.NetworkEndpointOperInfo: method(h, wire.NetworkEndpointOperInfo, endpointID, h.serveInfo),
		wire.NetworkJoin:             method(h, wire.NetworkJoin, func(r *wire.JoinRequest) string { return r.EndpointID }, h.serveJoin),
		wire.NetworkLeave:            method(h, wire.NetworkLeave, endpointID, h.onEndpoint(h.leave)),
	}
	for _, name := range []string{wire.NetworkProgramExternal, wire.NetworkRevokeExternal, wire.NetworkDiscoverNew, wire.NetworkDiscoverDelete} {
		m[name] = missing(name)
	}
	if c, ok := h.driver.(ExternalConnector); ok {
		m[wire.NetworkProgramExternal] = method(h, wire.NetworkProgramExternal,
			func(r *wire.ProgramExternalRequest) string { return r.EndpointID }, h.serveProgram(c))
		m[wire.NetworkRevokeExternal] = method(h, wire.NetworkRevokeExternal, endpointID,
			h.onEndpoint(func(ctx context.Context, network, id string) error { return h.revoke(ctx, c, network, id) }))
	}
	if w, ok := h.driver.(NodeWatcher); ok {
		m[wire.NetworkDiscoverNew] = method(h, wire.NetworkDiscoverNew, nil, h.serveNode("join", w.NodeJoined))
		m[wire.NetworkDiscoverDelete] = method(h, wire.NetworkDiscoverDelete, nil, h.serveNode("leave", w.NodeLeft))
	}
	return m
}

func method[Req, Resp any](h *Handler, name string, object func(*Req) string, f func(context.Context, *Req) (Resp, error)) http.Handler {
	hooks := rpc.Hooks{Logger: h.log, Observe: h.options.Observe}
	return rpc.Handle(hooks, rpc.Method{Name: name, NoArgument: name == wire.NetworkGetCapabilities, Advise: true}, object, f)
}

// missing answers for a method that the driver does not have.
func missing(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		err := errdefs.Errorf(errdefs.ErrUnsupported, "%s: this driver has no such method", name)
		rpc.Fail(w, http.StatusNotFound, err, wire.Error{Err: err.Error()})
	})
}

func networkID(r *wire.NetworkRequest) string   { return r.NetworkID }
func endpointID(r *wire.EndpointRequest) string { return r.EndpointID }

func (h *Handler) onNetwork(f func(context.Context, string) error) func(context.Context, *wire.NetworkRequest) (nothing, error) {
	return func(ctx context.Context, r *wire.NetworkRequest) (nothing, error) {
		if err := checkID("network", r.NetworkID); err != nil {
			return nothing{}, err
		}
		return nothing{}, f(ctx, r.NetworkID)
	}
}

func (h *Handler) onEndpoint(f func(ctx context.Context, network, id string) error) func(context.Context, *wire.EndpointRequest) (nothing, error) {
	return func(ctx context.Context, r *wire.EndpointRequest) (nothing, error) {
		if err := checkIDs(r.NetworkID, r.EndpointID); err != nil {
			return nothing{}, err
		}
		return nothing{}, f(ctx, r.NetworkID, r.EndpointID)
	}
}

func checkIDs(network, endpoint string) error {
	return errors.Join(checkID("network", network), checkID("endpoint", endpoint))
}

func (h *Handler) serveCapabilities(context.Context, *nothing) (wire.NetworkCapabilitiesResponse, error) {
	scope, connectivity := h.scopes()
	_, skips := h.driver.(GatewaySkipper)
	return wire.NetworkCapabilitiesResponse{Scope: string(scope), ConnectivityScope: string(connectivity), GwAllocChecker: skips}, nil
}

func (h *Handler) serveGwAllocCheck(ctx context.Context, r *wire.GwAllocCheckRequest) (resp wire.GwAllocCheckResponse, err error) {
	n, err := networkFromWire(&wire.CreateNetworkRequest{Options: r.Options})
	if err != nil {
		return resp, err
	}
	resp.SkipIPv4, resp.SkipIPv6, err = h.skipGateway(ctx, n)
	return resp, err
}

func (h *Handler) serveAllocate(ctx context.Context, r *wire.AllocateNetworkRequest) (resp wire.AllocateNetworkResponse, err error) {
	if err := checkID("network", r.NetworkID); err != nil {
		return resp, err
	}
	n, err := allocateFromWire(r)
	if err != nil {
		return resp, inNetwork(r.NetworkID, err)
	}
	resp.Options, err = h.allocateNetwork(ctx, n)
	return resp, err
}

func (h *Handler) serveCreate(ctx context.Context, r *wire.CreateNetworkRequest) (nothing, error) {
	if err := checkID("network", r.NetworkID); err != nil {
		return nothing{}, err
	}
	n, err := networkFromWire(r)
	if err != nil {
		return nothing{}, inNetwork(r.NetworkID, err)
	}
	return nothing{}, h.createNetwork(ctx, n)
}

func (h *Handler) serveCreateEndpoint(ctx context.Context, r *wire.CreateEndpointRequest) (resp wire.CreateEndpointResponse, err error) {
	if err := checkIDs(r.NetworkID, r.EndpointID); err != nil {
		return resp, err
	}
	ep, err := endpointFromWire(r)
	if err != nil {
		return resp, inEndpoint(r.NetworkID, r.EndpointID, err)
	}
	a, err := h.createEndpoint(ctx, r.NetworkID, ep)
	if err != nil {
		return resp, err
	}
	if a.MAC == nil && r.Interface.MacAddress == "" {
		a.MAC = ep.MAC // it came among the options, where the engine does not look again
	}
	resp.Interface = assignedToWire(a)
	return resp, nil
}

func (h *Handler) serveInfo(ctx context.Context, r *wire.EndpointRequest) (wire.EndpointOperInfoResponse, error) {
	value := h.info(ctx, r.NetworkID, r.EndpointID)
	if _, err := json.Marshal(value); err != nil {
		h.log.WarnContext(ctx, "what the driver says of an endpoint is not fit for JSON", "endpoint", r.EndpointID, "error", err)
		value = map[string]any{}
	}
	return wire.EndpointOperInfoResponse{Value: value}, nil
}

func (h *Handler) serveJoin(ctx context.Context, r *wire.JoinRequest) (*wire.JoinResponse, error) {
	if err := checkIDs(r.NetworkID, r.EndpointID); err != nil {
		return nil, err
	}
	o, _, err := endpointOptionsFromWire(r.Options)
	if err != nil {
		return nil, inEndpoint(r.NetworkID, r.EndpointID, err)
	}
	a, err := h.join(ctx, r.NetworkID, r.EndpointID, Sandbox{Key: r.SandboxKey, Options: o})
	if err != nil {
		return nil, err
	}
	return attachmentToWire(a), nil
}

func (h *Handler) serveProgram(c ExternalConnector) func(context.Context, *wire.ProgramExternalRequest) (nothing, error) {
	return func(ctx context.Context, r *wire.ProgramExternalRequest) (nothing, error) {
		if err := checkIDs(r.NetworkID, r.EndpointID); err != nil {
			return nothing{}, err
		}
		o, _, err := endpointOptionsFromWire(r.Options)
		if err != nil {
			return nothing{}, inEndpoint(r.NetworkID, r.EndpointID, err)
		}
		return nothing{}, h.program(ctx, c, r.NetworkID, r.EndpointID, o)
	}
}

func (h *Handler) serveNode(name string, tell func(context.Context, Node) error) func(context.Context, *wire.DiscoveryRequest) (nothing, error) {
	return func(ctx context.Context, r *wire.DiscoveryRequest) (nothing, error) {
		if r.DiscoveryType != wire.DiscoveryNode {
			return nothing{}, nil // what else there is, is not for plugins
		}
		node, err := nodeFromWire(r)
		if err != nil {
			return nothing{}, err
		}
		return nothing{}, h.node(ctx, node, name, tell)
	}
}
