package network

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"github.com/remora-plugins/remora/internal/cluster/link"
	"github.com/remora-plugins/remora/internal/mesh/kernel"
)

// look begins to look for changes of where this host is; looked ends it.
func (u *up) look() {
	ctx, stop := context.WithCancel(u.life)
	u.looked = func() { stop(); u.looking.Wait() }
	u.looking.Go(func() { u.lookAround(ctx) })
}

// lookAround finds out where this host is, whenever that may have changed, until ctx ends, and tells the others: its addresses,
// and whether it is behind a router that hides it. Who is hidden has no address at which it could be dialled, nor to which data
// could go but through the tunnel.
func (u *up) lookAround(ctx context.Context) {
	changed, stop := u.cluster.Watch()
	defer stop()
	moved := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		kernel.WatchWays(ctx, notOurs.has, func() {
			select {
			case moved <- struct{}{}:
			default:
			}
		})
	})
	told, err := u.member()
	if err != nil { // it had an address a moment ago, when it was launched
		u.log.WarnContext(ctx, "where this host is", slog.Any("error", err))
	}
	hidden := false
	for {
		if is, known := u.hidden(); known {
			hidden = is
		}
		if m, err := u.member(); err == nil {
			if hidden {
				m.Control = nil
			}
			if !reflect.DeepEqual(m, told) {
				if err := u.cluster.Describe(m); err != nil {
					u.log.WarnContext(ctx, "the others are not told where this host is", slog.Any("error", err))
				} else {
					told = m
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-moved:
			u.moved(ctx)
		}
	}
}

// moved has all that depends on the ways out of this host look anew at once. Links that went by one that is gone, and packets
// to hosts that look for this one where it was, would be silent for seconds.
func (u *up) moved(ctx context.Context) {
	u.log.InfoContext(ctx, "the addresses or routes of this host have changed")
	own, err := net.InterfaceAddrs()
	if err != nil {
		u.log.WarnContext(ctx, "where this host is", slog.Any("error", err))
		return
	}
	var all []netip.Addr
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	u.links.Moved(all)
	if in := u.in(); in != nil {
		in.mesh.Moved()
	}
	u.cluster.Redial()
}

// hidden compares where others see this host with where it is. Without a link that it dialled nothing is known.
func (u *up) hidden() (is, known bool) {
	if len(u.conf.Advertise) > 0 {
		return false, true
	}
	own, err := hostAddresses(u.conf.Listen)
	if err != nil {
		return false, false
	}
	return hiddenFrom(u.links.Peers(), own)
}

func hiddenFrom(peers []link.Peer, own []netip.Addr) (is, known bool) {
	for _, p := range peers {
		if p.Dialed && p.Via.IsZero() && p.Observed.IsValid() {
			known = true
			is = is || !slices.Contains(own, p.Observed.Addr().Unmap())
		}
	}
	return is, known
}
