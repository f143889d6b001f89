package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"github.com/remora-plugins/remora/internal/cluster"
	"github.com/remora-plugins/remora/internal/cluster/link"
	"github.com/remora-plugins/remora/internal/cluster/password"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/cluster/store"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// controlPort is where hosts hear each other.
const controlPort = link.Port

// up is the network from launch to stop: links to other hosts, and the cluster that this host is in or waits for.
type up struct {
	s       *Service
	conf    saved
	log     *slog.Logger
	root    *os.Root // of the cluster
	cluster *cluster.Cluster
	links   *link.Links
	opened  chan struct{}   // closed when cluster is there: its rooms are opened before
	life    context.Context //nolint:containedctx // from launch to stop
	end     context.CancelFunc

	looking sync.WaitGroup
	looked  func() // ends the look for NAT; nil before it began

	mu     sync.Mutex
	inside *inside
	wrong  error // why the rooms of the cluster that this host is in are not open
}

func newUp(ctx context.Context, s *Service) (_ *up, err error) {
	dir, err := s.dir("cluster")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	u := &up{s: s, conf: s.saved, log: s.o.Log, opened: make(chan struct{})}
	s.mu.Unlock()
	if u.root, err = os.OpenRoot(dir); err != nil {
		return nil, state.Classify(err)
	}
	u.life, u.end = context.WithCancel(s.life)
	defer func() { //nolint:contextcheck // an end is not cut short
		if err != nil {
			err = errors.Join(err, u.close())
		}
	}()
	listener, err := link.Listen(ctx, u.conf.Listen)
	if err != nil {
		return nil, err
	}
	member, err := u.member()
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	u.cluster, err = cluster.Open(u.life, cluster.Config{ //nolint:contextcheck // it outlives the launch
		Root: u.root, Member: member, Entered: u.entered, Left: u.giveUp, Spare: u.spare, Answer: u.answer, Path: u.path, Log: u.log,
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	close(u.opened)
	conf := u.cluster.LinkConfig()
	conf.Password, conf.Listener = func() *password.Key { return u.conf.Password }, listener
	u.links, err = link.Open(u.life, conf) //nolint:contextcheck // likewise
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if err := u.cluster.Start(cluster.Over(u.links)); err != nil { //nolint:contextcheck // it outlives the launch
		return nil, err
	}
	u.look() //nolint:contextcheck // likewise
	return u, nil
}

// close ends it, and leaves containers talking.
func (u *up) close() error {
	var err error
	if u.looked != nil {
		u.looked()
	}
	if u.cluster != nil {
		u.cluster.Close()
	}
	u.left()
	u.end()
	if u.links != nil {
		err = u.links.Close()
	}
	return errors.Join(err, u.root.Close())
}

// in returns the rooms of the cluster that this host is in; nil while it is in none.
func (u *up) in() *inside {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.inside
}

// entered opens the rooms of the cluster that this host is in.
func (u *up) entered(records *store.Store) {
	in, err := newInside(u, records)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.inside, u.wrong = in, err
	if err != nil {
		u.log.Error("the network is not whole", slog.Any("error", err))
	}
}

// left closes them.
func (u *up) left() {
	u.mu.Lock()
	in := u.inside
	u.inside = nil
	u.mu.Unlock()
	if in != nil {
		if err := in.close(); err != nil {
			u.log.Error("the network did not end well", slog.Any("error", err))
		}
	}
}

// member is what this host says of itself.
func (u *up) member() (record.Member, error) {
	_, port, err := net.SplitHostPort(u.conf.Listen)
	if err != nil {
		return record.Member{}, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return record.Member{}, errdefs.Errorf(errdefs.ErrInvalid, "listen %q: port %q is not a number", u.conf.Listen, port)
	}
	at := u.conf.Advertise
	if len(at) == 0 {
		if at, err = hostAddresses(u.conf.Listen); err != nil {
			return record.Member{}, err
		}
	}
	m := record.Member{
		Nickname: u.conf.Nickname, Version: u.s.o.Version, Protocol: link.Protocol, Trusted: u.conf.Trusted,
	}
	if u.conf.Password != nil {
		public, err := publicKey(u.conf.TunnelKey)
		if err != nil {
			return record.Member{}, err
		}
		m.TunnelKey = &public
	}
	for _, ip := range at {
		m.Control = append(m.Control, netip.AddrPortFrom(ip, uint16(number)))
		m.Tunnel = append(m.Tunnel, netip.AddrPortFrom(ip, u.conf.Tunnel))
	}
	return m, nil
}

// path adds what the data plane knows of the way to a neighbour, for those who cannot find out themselves.
func (u *up) path(l *record.Link) {
	in := u.in()
	if in == nil {
		return
	}
	for _, p := range in.mesh.Status().Peers {
		if p.Host != l.Host {
			continue
		}
		l.MTU = p.MTU
		if p.Encrypted && p.Via.IsZero() && !p.Handshake.IsZero() {
			l.Tunnel = p.Endpoint
		}
	}
}

// problem is why the rooms are not open.
func (u *up) problem() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.wrong != nil {
		return fmt.Errorf("network: %w", u.wrong)
	}
	return nil
}
