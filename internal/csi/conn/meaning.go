package conn

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// meaning is what a code of an RPC says to a person.
type meaning struct {
	text  string
	class error
	hint  string
}

// The kinds of RPC, of which one code means different things.
const (
	creating    = "create"
	snapshotted = "snapshot"
	attaching   = "attach"
	mounting    = "mount"
	expanding   = "expand"
	removing    = "remove"
	unmounting  = "unmount"
	looking     = "look"
)

func kindOf(rpc string) string {
	switch rpc {
	case "CreateVolume":
		return creating
	case "CreateSnapshot", "CreateVolumeGroupSnapshot":
		return snapshotted
	case "ControllerPublishVolume":
		return attaching
	case "NodeStageVolume", "NodePublishVolume":
		return mounting
	case "ControllerExpandVolume", "NodeExpandVolume", "ControllerModifyVolume":
		return expanding
	case "DeleteVolume", "DeleteSnapshot", "DeleteVolumeGroupSnapshot":
		return removing
	case "ControllerUnpublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume":
		return unmounting
	}
	return looking
}

// meanings is by code, and there by kind of RPC; "" is every other kind.
var meanings = map[codes.Code]map[string]meaning{
	codes.Aborted:  {"": {"it is still at work on this", errdefs.ErrUnavailable, "try again in a while; the driver goes on meanwhile"}},
	codes.Internal: {"": {"it failed", nil, "look at the driver's log"}},
	codes.Unknown:  {"": {"it failed", nil, "look at the driver's log"}},
	codes.DataLoss: {"": {"it has lost data", nil, "look at the driver's log"}},
	codes.Unavailable: {
		"": {"it is not available", errdefs.ErrUnavailable, "see whether the driver and its storage are up, and try again"},
	},
	codes.DeadlineExceeded: {"": {"it ran out of time", errdefs.ErrUnavailable, "try again; what was begun is found again"}},
	codes.Canceled:         {"": {"it was given up", errdefs.ErrUnavailable, ""}},
	codes.ResourceExhausted: {
		attaching: {"this host cannot have another volume", errdefs.ErrUnavailable, "unmount one that is not needed here"},
		"":        {"there is no room for it", errdefs.ErrUnavailable, "make room at the storage, raise its quota, or ask for less"},
	},
	codes.InvalidArgument: {
		creating:    {"it refuses the request", errdefs.ErrInvalid, "correct the options of the volume, or parameters of the pool"},
		snapshotted: {"it refuses the request", errdefs.ErrInvalid, "see whether the driver wants snapshot_parameters"},
		"":          {"it refuses the request", errdefs.ErrInvalid, ""},
	},
	codes.OutOfRange: {
		creating:  {"it has no volume of that size", errdefs.ErrInvalid, "ask for another size"},
		expanding: {"it cannot grow to that size", errdefs.ErrInvalid, "ask for another size"},
		"":        {"it is out of range", errdefs.ErrInvalid, ""},
	},
	codes.AlreadyExists: {
		creating:    {"a volume of that name exists, with another size or other parameters", errdefs.ErrExists, "ask for it as it was made, or take another name"},
		snapshotted: {"a snapshot of that name exists, of another volume", errdefs.ErrExists, "take another name"},
		attaching:   {"it is attached to this host in another way", errdefs.ErrInUse, "unmount it first"},
		mounting:    {"it is mounted here in another way", errdefs.ErrInUse, "unmount it first"},
		"":          {"it exists in another way", errdefs.ErrExists, ""},
	},
	codes.Unimplemented:    {"": {"it cannot do this", errdefs.ErrUnsupported, `"remora csi check" says what the driver can do`}},
	codes.Unauthenticated:  {"": {"its storage does not know us", errdefs.ErrDenied, "correct the secrets of the pool, or those that the driver was started with"}},
	codes.PermissionDenied: {"": {"its storage does not allow this", errdefs.ErrDenied, "give the account of the driver the right"}},
	codes.FailedPrecondition: {
		attaching:  {"it is in use by another host", errdefs.ErrInUse, "unmount it there first, or take it over if that host is off"},
		mounting:   {"it cannot be mounted as things are", errdefs.ErrInUse, ""},
		expanding:  {"it cannot be expanded as it is", errdefs.ErrInUse, "unmount it first"},
		removing:   {"it is still in use", errdefs.ErrInUse, "unmount it everywhere, and remove its snapshots, first"},
		unmounting: {"it is still in use", errdefs.ErrInUse, ""},
		"":         {"it cannot be done as things are", errdefs.ErrInUse, ""},
	},
	codes.NotFound: {
		creating:    {"what it is to be made of does not exist", errdefs.ErrNotFound, "see whether the snapshot or volume is still there"},
		snapshotted: {"the volume does not exist", errdefs.ErrNotFound, ""},
		attaching:   {"the volume, or this host, is not known to it", errdefs.ErrNotFound, "see at the storage whether the volume is still there"},
		"":          {"it is not known to it", errdefs.ErrNotFound, ""},
	},
}

// meaningOf says what an error means.
func meaningOf(e *Error) meaning {
	switch {
	case e.Code == codes.Canceled && e.cause != nil:
		return meaning{text: "it was given up, and may go on", class: context.Canceled}
	case e.cause != nil:
		return meaning{} // it says all that there is to say, and has the class and the hint
	case e.limit > 0:
		hint := "try again; what was begun is found again"
		if introduces(e.RPC) {
			hint = "look at the driver's log: it is there and does not answer"
		}
		return meaning{took(e.limit), errdefs.ErrUnavailable, hint}
	case e.late && e.Code == codes.DeadlineExceeded:
		return meaning{"no answer in time", context.DeadlineExceeded, "try again; what was begun is found again"}
	case e.Code == codes.Unavailable && transport(e.Text):
		return meaning{"it ended in the middle of the call", errdefs.ErrUnavailable, "see why the driver ended; what was begun is found again"}
	}
	by, ok := meanings[e.Code]
	if !ok {
		by = meanings[codes.Unknown]
	}
	if m, ok := by[kindOf(e.RPC)]; ok {
		return m
	}
	return by[""]
}

// transport reports whether a text is gRPC's own about a connection that broke.
func transport(text string) bool {
	return strings.HasPrefix(text, "error reading from server") || strings.HasPrefix(text, "transport is closing") ||
		strings.HasPrefix(text, "connection error") || strings.Contains(text, "closing transport")
}
