package network

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/cluster/link"
)

// look begins to look for NAT; looked ends it.
func (u *up) look() {
	ctx, stop := context.WithCancel(u.life)
	u.looked = func() { stop(); u.looking.Wait() }
	u.looking.Go(func() { u.lookForNAT(ctx) })
}

// lookForNAT finds out whether this host is behind a router that hides it, until ctx ends, and tells the others: who
// is hidden has no address at which it could be dialled, nor to which data could go but through the tunnel.
func (u *up) lookForNAT(ctx context.Context) {
	changed, stop := u.cluster.Watch()
	defer stop()
	was := false
	for {
		if is, known := u.hidden(); known && is != was {
			if err := u.tell(is); err != nil {
				u.log.WarnContext(ctx, "the others are not told where this host is", slog.Any("error", err))
			} else {
				was = is
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// tell says where this host can be dialled: nowhere, if it is hidden.
func (u *up) tell(hidden bool) error {
	m, err := u.member()
	if err != nil {
		return err
	}
	if hidden {
		m.Control = nil
	}
	return u.cluster.Describe(m)
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
