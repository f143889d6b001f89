package all

import (
	"context"
	"os"

	"github.com/remora-plugins/remora/drivers/network/overlay"
	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/sdk/network"
)

// Overlay returns the network driver over the rooms of the network. It remembers in root.
func Overlay(a *address.Allocator, m overlay.Mesh, root *os.Root) network.Driver {
	return overlay.New(overlay.Config{Networks: networks{a}, Mesh: m, Root: root})
}

// networks are those of the allocator, as the driver wants them.
type networks struct{ a *address.Allocator }

func (n networks) Lookup(p network.Pool) (string, error) { return n.a.Lookup(p.AddressSpace, p.Prefix) }

func (n networks) Configure(ctx context.Context, id string, c overlay.Choices) error {
	choices := address.Choices{Multicast: c.Multicast, Internal: c.Internal, MTU: c.MTU}
	if c.Encrypted != nil {
		plain := !*c.Encrypted
		choices.Plain = &plain
	}
	return n.a.Configure(ctx, id, choices)
}
