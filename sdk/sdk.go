// Package sdk serves Docker plugins: any number of kinds on one socket, found by
// every engine that looks for them.
//
// A plugin is a [Plugin]: the Handler of package volume, network, ipam or authz,
// each made from a small driver of yours. [New] puts one or more of them on a
// [Server], and a listener says where an engine finds it:
//
//	h, err := volume.NewHandler(ctx, driver, volume.Options{})
//	…
//	l, err := sdk.ListenUnix(sdk.UnixSocket{Name: "mobyfs"})
//	…
//	err = sdk.New(sdk.Options{}, h).Serve(ctx, l)
//
// The package needs the standard library alone.
package sdk

import (
	"context"
	"net/http"
	"time"
)

// Plugin is one kind of plugin, ready to be served. The Handlers of the packages
// below sdk are Plugins; there is seldom a reason to write one by hand.
type Plugin interface {
	// Implements returns the word that stands for the kind in the answer to
	// Plugin.Activate: "VolumeDriver", "NetworkDriver", "IpamDriver" or "authz".
	Implements() string
	// Methods returns the handler of each method, by its full name such as
	// "VolumeDriver.Create". The map is not changed afterwards.
	Methods() map[string]http.Handler
}

// Activator is implemented by a [Plugin] that wants to know when an engine found
// it. A Docker engine activates a plugin once in its own life, so a second
// activation means that an engine was restarted; Podman activates in each process.
type Activator interface {
	Activated(ctx context.Context)
}

// Call is one call that was answered, for metrics and logs.
type Call struct {
	// Method is the full name, such as "VolumeDriver.Mount".
	Method string
	// Object is what the call is about, such as the name of a volume; may be empty.
	Object string
	// Took runs from the first byte of the body to the answer.
	Took time.Duration
	// Err is what was answered, or nil. Its class is in package errdefs.
	Err error
}

// Observer is told of each call after it was answered. It must return soon and is
// called from many goroutines.
type Observer func(ctx context.Context, call Call)
