package network

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"time"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/record"
)

// found makes what a new cluster has: its range, and the network remora. It may be called at the same time, and again.
func (in *inside) found(ctx context.Context) error {
	in.founding.Lock()
	defer in.founding.Unlock()
	if err := in.records.Put(record.KindRange, "", record.Range{Prefixes: []netip.Prefix{in.u.conf.Range, ownRange(in.records.Cluster())}}); err != nil {
		return err
	}
	if _, ok := in.find(firstNetwork); ok {
		return nil
	}
	_, err := in.alloc.CreateNetwork(ctx, address.NewNetwork{
		Name: firstNetwork, Network: record.Network{Subnets: []netip.Prefix{in.u.conf.Subnet}, MTU: in.u.conf.MTU},
	})
	return err
}

// unmade reports whether this host founded its cluster and has not made what that has. Another host may hold no record but its
// own, too: it has only just joined, or lost what it had of others.
func (in *inside) unmade() bool {
	return in.u.cluster.Founder() && len(in.records.Records(record.KindRange)) == 0
}

// foundLater makes what a cluster has that this host founded without a launch that waits for it: several hosts were launched at
// once and told of each other.
func (in *inside) foundLater(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-in.u.opened:
	}
	for in.unmade() {
		err := in.found(ctx)
		if err == nil {
			return
		}
		in.log.ErrorContext(ctx, "what a new cluster has is not made", slog.Any("error", err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(soon):
		}
	}
}

// ownRange is whence the IPv6 subnets of a cluster are cut: a unique local /48 (RFC 4193) whose forty bits of chance are those of the
// cluster's identity, so that two clusters that come together later hardly have the same.
func ownRange(c record.Cluster) netip.Prefix {
	sum := sha256.Sum256(append([]byte("remora range "), c[:]...))
	a := [16]byte{0: 0xfd}
	copy(a[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}
