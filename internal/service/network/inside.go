package network

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/cluster/store"
	"github.com/remora-plugins/remora/internal/mesh"
	"github.com/remora-plugins/remora/internal/mesh/kernel"
	"github.com/remora-plugins/remora/internal/mesh/plan"
	"github.com/remora-plugins/remora/internal/names"
	"github.com/remora-plugins/remora/internal/names/forward"
	"github.com/remora-plugins/remora/internal/names/server"
	"github.com/remora-plugins/remora/internal/names/watch"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// inside is what runs while this host is in a cluster: the rooms that stand on its records.
type inside struct {
	u       *up
	records *store.Store
	log     *slog.Logger

	alloc     *address.Allocator
	mesh      *mesh.Mesh
	overlay   network.Driver
	podman    *podman
	zones     *names.Zones
	hand      *names.Hand
	dns       *server.Server
	forward   *forward.Forwarder
	followers []*follower
	watchers  []*watch.Watcher
	// swarmNames are what engines call the networks of Swarm that this host has.
	swarmNames atomic.Pointer[map[string]string]
	// founding is held by who makes what a new cluster has.
	founding sync.Mutex

	roots []*os.Root
	end   context.CancelFunc
	wg    sync.WaitGroup
}

// newInside opens the rooms and has them run. It is called before the cluster is at work.
func newInside(u *up, records *store.Store) (_ *inside, err error) {
	in := &inside{u: u, records: records, log: u.log}
	ctx, end := context.WithCancel(u.life)
	in.end = end
	defer func() {
		if err != nil {
			err = errors.Join(err, in.close())
		}
	}()
	if err := in.openAddresses(); err != nil {
		return nil, err
	}
	if err := in.openMesh(); err != nil {
		return nil, err
	}
	engines, err := in.open("engines")
	if err != nil {
		return nil, err
	}
	in.overlay = u.s.o.Network.Open(catalog.NetworkEnv{Networks: known{in.alloc, in}, Mesh: bridges{in.mesh}, Root: engines})
	in.openNames()
	in.podman = &podman{in: in, turn: make(chan struct{}, 1)}
	refused, err := newRefused(u.s.root, in.log)
	if err != nil {
		return nil, err
	}
	all := u.s.o.Engines()
	keys := in.engineKeys(all)
	for i, e := range all {
		if u.s.ofSwarm() {
			w := watch.New(watch.Config{Engine: e, Key: keys[i], Domains: []string{u.conf.Domain}, Network: in.swarmIn, Store: records, Log: in.log})
			in.watchers = append(in.watchers, w)
			in.wg.Go(func() { w.Run(ctx) })
			in.wg.Go(func() { in.followSwarm(ctx, e) })
			continue
		}
		changed, stop := records.Watch(record.KindNetwork, record.KindEnding, record.KindGrant)
		f := &follower{
			engine: e, driver: u.s.o.Driver, spaces: in.alloc, changed: changed, refused: refused, log: in.log.With(slog.String("engine", e.Socket)),
			onEngine: map[string]string{},
		}
		w := watch.New(watch.Config{Engine: e, Key: keys[i], Domains: []string{u.conf.Domain}, Network: f.spaceIn, Store: records, Log: in.log})
		in.followers, in.watchers = append(in.followers, f), append(in.watchers, w)
		f.followed, f.lost, f.leave = w.Resync, in.lost, in.leaveLost
		in.wg.Go(func() { defer stop(); f.run(ctx) })
		in.wg.Go(func() { w.Run(ctx) })
	}
	in.wg.Go(func() { in.foundLater(ctx) })
	in.wg.Go(func() { in.alloc.Run(ctx) })
	in.wg.Go(func() { in.zones.Run(ctx) })
	in.wg.Go(func() { in.listen(ctx) })
	in.wg.Go(func() { in.reconcile(ctx) })
	in.wg.Go(func() { in.podman.run(ctx) })
	in.wg.Go(func() {
		if err := in.mesh.Run(ctx); err != nil {
			in.log.ErrorContext(ctx, "data plane", slog.Any("error", err))
		}
	})
	return in, nil
}

func (in *inside) openAddresses() error {
	root, err := in.open("addresses")
	if err != nil {
		return err
	}
	in.alloc, err = address.New(address.Config{Root: root, Store: everybody{in.records}, Asker: in.u, Routes: in.routes, Log: in.log})
	return err
}

// routes are those of this host, and the subnets of Swarm's networks, which no other network may have.
func (in *inside) routes() ([]netip.Prefix, error) {
	all, err := kernel.Foreign()
	swarm, _ := in.swarmNetworks()
	for _, s := range swarm {
		all = append(all, s.Subnets...)
	}
	return all, err
}

func (in *inside) openMesh() error {
	dir, err := in.u.s.dir("mesh")
	if err != nil {
		return err
	}
	conf := mesh.Config{
		Records: living{in.records}, Blocks: in.blocks, Dir: dir, RunDir: in.u.s.o.RunDir, TunnelPort: in.u.conf.Tunnel,
		FastPath: in.u.s.o.FastPath, Command: in.u.s.o.Tunnel, Log: in.log,
	}
	if key := in.u.conf.Password; key != nil {
		conf.Private = in.u.conf.TunnelKey
		if conf.Secret, err = hkdf.Key(sha256.New, key[:], nil, "remora tunnel "+in.records.Cluster().String(), 32); err != nil {
			return err
		}
	}
	in.mesh, err = mesh.New(in.u.life, conf)
	return err
}

func (in *inside) openNames() {
	in.zones = names.New(names.Config{Domains: []string{in.u.conf.Domain}}, living{in.records}, hosts{in.u})
	in.hand = names.NewHand(in.records, []string{in.u.conf.Domain})
	in.forward = forward.New(in.u.life, forward.Config{Servers: (&before{in: in}).servers, Own: func() []netip.AddrPort { return in.dns.Listening() }, Log: in.log})
	in.dns = server.New(in.u.life, server.Config{Zone: in.zones.Zone, Forward: in.forward, Allow: new(server.Bridges).Contains, Log: in.log})
}

// open opens a directory of this host's state.
func (in *inside) open(name string) (*os.Root, error) {
	dir, err := in.u.s.dir(name)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, state.Classify(err)
	}
	in.roots = append(in.roots, root)
	return root, nil
}

// close ends the rooms. The data plane stays as it is.
func (in *inside) close() error {
	in.end()
	in.wg.Wait()
	var errs []error
	if in.dns != nil {
		errs = append(errs, in.dns.Close())
		in.forward.Close()
	}
	if in.mesh != nil {
		errs = append(errs, in.mesh.Close())
	}
	if in.alloc != nil {
		errs = append(errs, in.alloc.Close())
	}
	for _, root := range in.roots {
		errs = append(errs, root.Close())
	}
	return errdefs.Join(errs...)
}

// blocks are who owns which addresses of which network.
func (in *inside) blocks() []plan.Block {
	var all []plan.Block
	for _, s := range in.alloc.Networks() {
		for _, o := range in.alloc.Owned(s.ID) {
			all = append(all, plan.Block{Network: s.ID, Prefix: o.Prefix, Host: o.Owner})
		}
	}
	return append(all, in.swarmBlocks()...)
}

// listenEvery is how often the DNS server looks for bridges of ours that have come and gone.
const listenEvery = 2 * time.Second

// listen has the DNS server answer at the addresses of this host's bridges.
func (in *inside) listen(ctx context.Context) {
	tick := time.NewTicker(listenEvery)
	defer tick.Stop()
	for {
		want := map[netip.AddrPort]bool{}
		for _, ip := range in.gateways() {
			at := netip.AddrPortFrom(ip, 53)
			want[at] = true
			if err := in.dns.Listen(at); err != nil { //nolint:contextcheck // the server lives as long as the cluster
				in.log.DebugContext(ctx, "DNS server", slog.Any("error", err))
			}
		}
		for _, at := range in.dns.Listening() {
			if !want[at] {
				_ = in.dns.Unlisten(at) //nolint:contextcheck // the address is gone; the server lives as long as the cluster
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// gateways are the addresses of this host's bridges, that of the network remora first.
func (in *inside) gateways() []netip.Addr {
	var first, rest []netip.Addr
	byID := map[string]string{}
	for _, s := range in.alloc.Networks() {
		byID[s.ID] = s.Name
	}
	for _, a := range in.alloc.Addresses() {
		switch {
		case !gatewayKey(a.Key):
		case byID[a.Network] == firstNetwork && a.Address.Is4():
			first = append(first, a.Address)
		default:
			rest = append(rest, a.Address)
		}
	}
	swarm, here := in.swarmNetworks()
	for id := range here {
		for _, g := range swarm[id].Gateways {
			rest = append(rest, g.Addr())
		}
	}
	slices.SortFunc(rest, netip.Addr.Compare)
	return append(first, rest...)
}

// gatewayKey reports whether a key is that of a bridge's address.
func gatewayKey(key string) bool { return key == address.GatewayKey || key == address.PodmanGatewayKey }

// everybody is the store as addresses need it: what a removed host gave away stays given.
type everybody struct{ *store.Store }

func (e everybody) All(kind string) []record.Record {
	return append(e.Records(kind), e.Bequeathed(kind)...)
}

// hosts tells names who can be reached.
type hosts struct{ u *up }

func (h hosts) Reachable(of record.Host) bool {
	select {
	case <-h.u.opened:
		return h.u.cluster.Reachable(of)
	default: // nothing is known yet
		return true
	}
}

func (h hosts) Watch() (<-chan struct{}, func()) {
	ctx, stop := context.WithCancel(h.u.life)
	out := make(chan struct{}, 1)
	go func() {
		select {
		case <-ctx.Done():
			return
		case <-h.u.opened:
		}
		changed, end := h.u.cluster.Watch()
		defer end()
		for {
			select {
			case out <- struct{}{}:
			default:
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	return out, stop
}
