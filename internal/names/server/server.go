// Package server answers DNS on the addresses of a host's bridges: the cluster's names out of the newest zone, at
// once, all others through a forwarder. It answers those only whom it serves: who is in one of the cluster's
// networks, on the host itself, or behind a bridge of the host.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"

	"github.com/remora-plugins/remora/internal/names"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Forwarder asks other servers.
type Forwarder interface {
	// Forward returns an answer that the caller may change, or why there is none.
	Forward(ctx context.Context, q dns.Question, flags Flags) (*dns.Msg, error)
	// Heard takes notice of a question that was asked by the forwarder itself, and so has come back.
	Heard(name string) bool
}

// Flags are what an asker wants beside the answer.
type Flags struct {
	CheckingDisabled bool // CD
	DNSSEC           bool // DO
}

// Config is what a server stands on.
type Config struct {
	Zone    func() *names.Zone
	Forward Forwarder
	// Allow tells who is served beside those in the cluster's networks and on the host itself; nil
	// is nobody.
	Allow func(netip.Addr) bool
	Log   *slog.Logger
}

// maxWaiting bounds the questions that wait for other servers. More than these are not answered: who asked asks
// again.
const maxWaiting = 1024

// Server is a DNS server.
type Server struct {
	cfg     Config
	waiting chan struct{}
	base    func() context.Context // ends with the server
	stop    context.CancelFunc
	counts  counts
	asking  sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners map[netip.AddrPort]*listener
	own       atomic.Pointer[[]netip.AddrPort]
}

type counts struct{ answered, forwarded, failed, refused, malformed, dropped atomic.Uint64 }

// Stats are what has been counted since the server was made.
type Stats struct {
	Answered  uint64 `json:"answered"`  // out of the cluster's names
	Forwarded uint64 `json:"forwarded"` // asked other servers
	Failed    uint64 `json:"failed"`    // of these, the ones that no server answered
	Refused   uint64 `json:"refused"`   // the asker is not served
	Malformed uint64 `json:"malformed"`
	Dropped   uint64 `json:"dropped"` // too many were waiting
}

// New returns a server that listens nowhere. When ctx ends it gives up what waits for other servers, as Close does.
func New(ctx context.Context, cfg Config) *Server {
	s := &Server{cfg: cfg, waiting: make(chan struct{}, maxWaiting), listeners: map[netip.AddrPort]*listener{}}
	ctx, s.stop = context.WithCancel(ctx)
	s.base = func() context.Context { return ctx }
	s.own.Store(new([]netip.AddrPort))
	return s
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	c := &s.counts
	return Stats{c.answered.Load(), c.forwarded.Load(), c.failed.Load(), c.refused.Load(), c.malformed.Load(), c.dropped.Load()}
}

// Listen begins to answer at an address, over UDP and TCP. It may be one that the host will only have in a moment.
// To listen where it does already is no error.
func (s *Server) Listen(at netip.AddrPort) error {
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if !at.IsValid() || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
		return errdefs.Errorf(errdefs.ErrInvalid, "dns server: %s is not the address of one bridge", at)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errdefs.Errorf(errdefs.ErrUnavailable, "dns server: is closed")
	}
	if s.listeners[at] != nil {
		return nil
	}
	l, err := s.listen(at)
	if err != nil {
		return err
	}
	s.listeners[at] = l
	s.keepOwn()
	return nil
}

// Unlisten ends to answer at an address. One where it does not is no error.
func (s *Server) Unlisten(at netip.AddrPort) error {
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	s.mu.Lock()
	l := s.listeners[at]
	delete(s.listeners, at)
	s.keepOwn()
	s.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.close(s.base())
}

// keepOwn keeps for readers without a lock where the server listens. The caller holds mu.
func (s *Server) keepOwn() {
	own := make([]netip.AddrPort, 0, len(s.listeners))
	for at := range s.listeners {
		own = append(own, at)
	}
	slices.SortFunc(own, netip.AddrPort.Compare)
	s.own.Store(&own)
}

// Listening returns where the server listens.
func (s *Server) Listening() []netip.AddrPort { return slices.Clone(*s.own.Load()) }

// Close ends it all. Questions that wait for other servers are given up.
func (s *Server) Close() error {
	s.stop()
	s.mu.Lock()
	s.closed = true
	all := s.listeners
	s.listeners = map[netip.AddrPort]*listener{}
	s.keepOwn()
	s.mu.Unlock()
	var errs []error
	for _, l := range all {
		errs = append(errs, l.close(s.base()))
	}
	s.asking.Wait()
	return errors.Join(errs...)
}

// serves reports whether an asker is one of ours.
func (s *Server) serves(asker netip.Addr, z *names.Zone) bool {
	return asker.IsLoopback() || z.Contains(asker) || s.cfg.Allow != nil && s.cfg.Allow(asker)
}
