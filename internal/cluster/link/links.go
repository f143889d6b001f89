// Package link connects hosts of a cluster: TLS 1.3 over TCP, dialled by either of the two.
//
// A host is its Ed25519 key. Two hosts of which one does not know the other prove to each other, over the connection, that they know
// the cluster's password; later ones are taken by their keys. On a link there are messages ([Links.Send]), which may be
// lost as datagrams may, and streams ([Links.OpenStream]). A host to which there is no connection is dialled when there is something for
// it, or else reached through another one: the same handshake over a stream that the one between passes on, who can neither
// read nor change it.
//
// Nothing that another host does makes this one wait for ever, or keep more than a bounded amount: a handshake has five seconds,
// a link is closed when nothing was heard for five, and what has no room is dropped or refused.
package link

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/password"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Port is the TCP port that hosts listen on.
const Port = 6783

// Bounds of all links together.
const (
	maxLinks     = 4096
	maxRelayed   = 1024 // streams that this host passes on
	packetBuffer = 1024 // messages that nobody has taken yet
	streamBuffer = 64   // likewise
)

// Config is what Open needs. Its functions are called from many goroutines, and must not wait for anything.
type Config struct {
	Key ed25519.PrivateKey
	// Cluster is the one that the host is in, zero while it is in none.
	Cluster func() Summary
	// Yields says whether this host would give its own cluster up for another, that of a host that dials it. It is asked before that
	// host has proved anything; what is done is done when there is a link. May be nil, which is never.
	Yields func(Summary) bool
	// Standing says what a host is to the cluster.
	Standing func(record.Host) Standing
	// Password is the cluster's, nil if it has none; may be nil, which is none as well.
	Password func() *password.Key
	// Addresses are where a host can be dialled, as far as is known; may be nil.
	Addresses func(record.Host) []netip.AddrPort
	// Relays are hosts that have a link to the given one, as far as is known, the best first; may be nil. Others are tried
	// after them.
	Relays func(record.Host) []record.Host
	// Listener takes connections; nil for a host that can only dial. Links closes it.
	Listener net.Listener
	// Dial is that of a net.Dialer if it is nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  *slog.Logger
}

// Packet is a message from a host.
type Packet struct {
	Host record.Host
	Body []byte
}

// Links are all links of this host.
type Links struct {
	cfg                    Config
	self                   record.Host
	instance               instance
	oldest, newest         uint16 // versions of the protocol
	tlsDialer, tlsListener *tls.Config
	limiter                password.Limiter
	dials                  atomic.Uint64
	relaying               atomic.Int64
	counters               struct{ accepted, crowded, dropped atomic.Uint64 }

	life    context.Context //nolint:containedctx // that of what goes on in the background, until Close
	end     context.CancelFunc
	running sync.WaitGroup

	packets chan Packet
	streams chan *Stream
	places  chan struct{} // of handshakes

	mu       sync.Mutex
	closed   bool
	hosts    map[record.Host]*known
	count    int
	attempts map[record.Host]*attempt
	watchers map[chan struct{}]struct{}
	troubles []Trouble
	crowd    crowd
}

// Open starts to take links. They end with ctx, or by Close.
func Open(ctx context.Context, cfg Config) (*Links, error) {
	l := &Links{
		cfg: cfg, oldest: minProtocol, newest: Protocol, packets: make(chan Packet, packetBuffer), streams: make(chan *Stream, streamBuffer),
		places: make(chan struct{}, maxCrowd+maxCrowdFrom),
		hosts:  map[record.Host]*known{}, attempts: map[record.Host]*attempt{}, watchers: map[chan struct{}]struct{}{},
	}
	copy(l.self[:], cfg.Key.Public().(ed25519.PublicKey))
	_, _ = rand.Read(l.instance[:]) // it never fails
	var err error
	if l.tlsDialer, l.tlsListener, err = tlsConfigs(cfg.Key); err != nil {
		return nil, err
	}
	if l.cfg.Password == nil {
		l.cfg.Password = func() *password.Key { return nil }
	}
	if l.cfg.Log == nil {
		l.cfg.Log = slog.New(slog.DiscardHandler)
	}
	if l.cfg.Dial == nil {
		l.cfg.Dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	l.life, l.end = context.WithCancel(ctx)
	if cfg.Listener != nil {
		l.running.Go(l.listen)
	}
	context.AfterFunc(l.life, l.shut) //nolint:contextcheck // it is the end
	return l, nil
}

// Self is this host.
func (l *Links) Self() record.Host { return l.self }

// Packets are the messages that come. Those that nobody takes in time are dropped.
func (l *Links) Packets() <-chan Packet { return l.packets }

// Streams are those that other hosts open. Those that nobody takes in time are refused.
func (l *Links) Streams() <-chan *Stream { return l.streams }

// Close ends all links, tells the other sides so, and waits until nothing runs any more.
func (l *Links) Close() error {
	l.end()
	l.shut()
	l.running.Wait()
	return nil
}

// shut closes what there is. Nothing comes after it.
func (l *Links) shut() {
	l.mu.Lock()
	l.closed = true
	links := l.all()
	crowd := l.crowd.all()
	l.mu.Unlock()
	if l.cfg.Listener != nil {
		l.cfg.Listener.Close()
	}
	for _, c := range crowd {
		c.Close()
	}
	for _, k := range links {
		k.leave(Leaving)
	}
}

// Dial connects to an address, a host and a port. If there is a link to who is there already, it is returned. Whoever
// calls it has to try again; after a wrong password it says how long that is of no use.
func (l *Links) Dial(ctx context.Context, address string) (Peer, error) {
	if !l.begin() {
		return Peer{}, errdefs.Errorf(errdefs.ErrUnavailable, "%s: no link: %v", address, Leaving)
	}
	defer l.running.Done()
	k, err := l.dial(ctx, address, record.Host{}, false)
	if err != nil {
		l.trouble(err)
		return Peer{}, err
	}
	k.errand.Store(false)
	return k.peer(), nil
}

// begin counts something as running, unless the links are closed.
func (l *Links) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.running.Add(1)
	}
	return !l.closed
}

func (l *Links) dial(ctx context.Context, address string, want record.Host, errand bool) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	defer context.AfterFunc(l.life, cancel)() //nolint:contextcheck // it ends with either
	conn, err := l.connect(ctx, address)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
			err = op.Err // the address would stand there twice
		}
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "%s: %w", address, err)
	}
	tune(conn)
	return l.dialed(ctx, conn, greeting{dialed: true, address: address, remote: addrPort(conn.RemoteAddr())}, want, record.Host{}, errand)
}

// connectLimit is how long one address is given to take a connection: two packets, and some time. With more it would be found
// late that it is there again.
const connectLimit = 2 * time.Second

func (l *Links) connect(ctx context.Context, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err == nil { // a name may have several
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, connectLimit)
		defer cancel()
	}
	return l.cfg.Dial(ctx, "tcp", address)
}

// dialed makes a link of a connection that this host made, directly or through another host.
func (l *Links) dialed(ctx context.Context, conn net.Conn, g greeting, want, via record.Host, errand bool) (*link, error) {
	got, err := l.greet(ctx, conn, g, want)
	if errors.Is(err, errHave) {
		conn.Close()
		if k := l.best(got.host); k != nil {
			return k, nil
		}
		return nil, l.refuse(got, Cut)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	k := newLink(l, got, via, errand)
	if err := l.add(k); err != nil {
		conn.Close()
		return nil, err
	}
	k.start()
	l.log(k)
	return k, nil
}

// welcome makes a link of a connection that another host made, after the handshake.
func (l *Links) welcome(conn net.Conn, got *greeting, via record.Host) error {
	k := newLink(l, got, via, false)
	// It has to be known before the other side may hear that it is: of two links that cross, both then know both.
	if err := l.add(k); err != nil {
		_ = conn.SetWriteDeadline(time.Now().Add(pingEvery))
		_ = writeMessage(got.conn, messageRefuse, refusal(reasonOf(err), 0))
		conn.Close()
		return err
	}
	_ = conn.SetWriteDeadline(time.Now().Add(handshakeLimit))
	if _, err := got.conn.Write(got.conclusion); err != nil {
		k.failed(err)
		return err
	}
	k.start()
	l.log(k)
	return nil
}

func (l *Links) log(k *link) {
	l.cfg.Log.Info("linked", "host", k.host.Short(), "address", k.g.address, "dialed", k.g.dialed, "proved", k.g.proved, "took", k.g.took)
}

// deliver hands on a message, if there is room.
func (l *Links) deliver(p Packet) bool {
	select {
	case l.packets <- p:
		return true
	default:
		l.counters.dropped.Add(1)
		return false
	}
}

// Send sends a message to a host, through another one if need be. It may be lost, as a datagram may; an error says
// that it is. Send keeps b.
func (l *Links) Send(h record.Host, b []byte) error {
	if len(b) > MaxPacket {
		return errdefs.Errorf(errdefs.ErrInvalid, "host %s: a message of %d bytes, at most %d may be", h.Short(), len(b), MaxPacket)
	}
	if k := l.best(h); k != nil {
		if !k.send(b) {
			return errdefs.Errorf(errdefs.ErrUnavailable, "host %s: too many messages wait already", h.Short())
		}
		return nil
	}
	a, err := l.attempt(h)
	if err != nil {
		return err
	}
	return a.queue(b)
}

// OpenStream opens a stream to a host, through another one if need be.
func (l *Links) OpenStream(ctx context.Context, h record.Host) (*Stream, error) {
	k := l.best(h)
	if k == nil {
		a, err := l.attempt(h) //nolint:contextcheck // others may wait for it too
		if err != nil {
			return nil, err
		}
		if k, err = a.wait(ctx); err != nil {
			return nil, err
		}
	}
	return k.open(ctx, toHost)
}
