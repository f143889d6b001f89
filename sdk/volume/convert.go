package volume

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/rpc"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// Implements returns "VolumeDriver".
func (h *Handler) Implements() string { return wire.VolumeDriver }

// Methods returns the eight methods of Docker's volume protocol.
func (h *Handler) Methods() map[string]http.Handler {
	hooks := rpc.Hooks{Logger: h.options.Logger, Observe: h.options.Observe}
	byName := func(r *wire.VolumeRequest) string { return r.Name }
	byMount := func(r *wire.VolumeMountRequest) string { return r.Name }
	return map[string]http.Handler{
		wire.VolumeCreate: rpc.Handle(hooks, rpc.Method{Name: wire.VolumeCreate},
			func(r *wire.VolumeCreateRequest) string { return r.Name }, h.wireCreate),
		wire.VolumeRemove:  rpc.Handle(hooks, rpc.Method{Name: wire.VolumeRemove}, byName, h.wireRemove),
		wire.VolumeMount:   rpc.Handle(hooks, rpc.Method{Name: wire.VolumeMount}, byMount, h.wireMount),
		wire.VolumeUnmount: rpc.Handle(hooks, rpc.Method{Name: wire.VolumeUnmount}, byMount, h.wireUnmount),
		wire.VolumePath:    rpc.Handle(hooks, rpc.Method{Name: wire.VolumePath}, byName, h.wirePath),
		wire.VolumeGet:     rpc.Handle(hooks, rpc.Method{Name: wire.VolumeGet, EmptyIsLost: true}, byName, h.wireGet),
		wire.VolumeList:    rpc.Handle(hooks, rpc.Method{Name: wire.VolumeList, NoArgument: true}, nil, h.wireList),
		wire.VolumeCapabilities: rpc.Handle(hooks, rpc.Method{Name: wire.VolumeCapabilities, NoArgument: true}, nil,
			func(context.Context, *struct{}) (wire.VolumeCapabilitiesResponse, error) {
				return wire.VolumeCapabilitiesResponse{Capabilities: wire.Capabilities{Scope: h.Scope()}}, nil
			}),
	}
}

func (h *Handler) wireCreate(ctx context.Context, r *wire.VolumeCreateRequest) (wire.Error, error) {
	return wire.Error{}, h.Create(ctx, r.Name, r.Opts)
}

// wireRemove succeeds for a volume that is not there: it is how an engine repeats a
// call whose answer was lost.
func (h *Handler) wireRemove(ctx context.Context, r *wire.VolumeRequest) (wire.Error, error) {
	err := h.Remove(ctx, r.Name)
	if errors.Is(err, errdefs.ErrNotFound) {
		err = nil
	}
	return wire.Error{}, err
}

func (h *Handler) wireMount(ctx context.Context, r *wire.VolumeMountRequest) (wire.VolumeMountResponse, error) {
	p, err := h.Mount(ctx, r.Name, r.ID)
	return wire.VolumeMountResponse{Mountpoint: p}, err
}

func (h *Handler) wireUnmount(ctx context.Context, r *wire.VolumeMountRequest) (wire.Error, error) {
	return wire.Error{}, h.Unmount(ctx, r.Name, r.ID)
}

func (h *Handler) wirePath(ctx context.Context, r *wire.VolumeRequest) (wire.VolumeMountResponse, error) {
	p, err := h.Path(ctx, r.Name)
	return wire.VolumeMountResponse{Mountpoint: p}, err
}

// wireGet answers "no such volume" only when that is so. Where the driver cannot be
// asked it gives no answer at all, since an engine takes any answer but the volume for
// its end, forgets it, and loses its labels (moby volume/service/store.go). The engine
// then asks again, without a body, and is not answered either.
func (h *Handler) wireGet(ctx context.Context, r *wire.VolumeRequest) (wire.VolumeGetResponse, error) {
	v, err := h.Get(ctx, r.Name)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return wire.VolumeGetResponse{}, err
	case err != nil:
		return wire.VolumeGetResponse{}, errors.Join(rpc.ErrNoAnswer, err)
	}
	info := wire.VolumeInfo{Name: v.Name, Mountpoint: v.Mountpoint, Status: v.Status}
	if !v.CreatedAt.IsZero() {
		info.CreatedAt = v.CreatedAt.UTC().Format(time.RFC3339)
	}
	return wire.VolumeGetResponse{Volume: &info}, nil
}

func (h *Handler) wireList(context.Context, *struct{}) (rpc.Raw, error) {
	all, loaded := h.index.list()
	if !loaded {
		return nil, errNotListed()
	}
	return h.answer.list(all, h.elsewhere()), nil
}
