// Package cluster is this host's part in a cluster: it founds one or joins one, keeps links to the others, knows who is
// reachable, and carries the records of package store between all of them.
//
// Who is reachable is found out by hashicorp/memberlist, which also spreads new records; its messages travel on links that
// either side may have dialled ([Network]). What a message lost is found by comparing digests: when a link comes up, every
// few seconds with one of the neighbours, and in memberlist's own exchanges.
package cluster

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/cluster/store"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Config is what Open needs.
type Config struct {
	// Root is the directory of this host's state, which belongs to the cluster alone.
	Root *os.Root
	// Member is what this host says of itself. Started and Founded are filled in.
	Member record.Member
	// Entered is called when this host has entered a cluster, and at once if it is in one already; Left before it gives
	// one up for another, which it does not if that fails. They must not call the cluster. Both may be nil.
	Entered func(*store.Store)
	Left    func() error
	// Spare says that nothing on this host uses the cluster that it is in, so that a host that is alone in its own may give it up
	// for that of a host to which it was told to connect, or that connects to it. nil is never.
	Spare func() bool
	// Answer answers what another member asks by [Cluster.Ask]; nil answers nothing.
	Answer func(ctx context.Context, from record.Host, question []byte) []byte
	// Path may add what is known of the way to a neighbour; nil for nothing.
	Path   func(*record.Link)
	Limits store.Limits
	// Now is the clock on the wall; time.Now if nil.
	Now func() time.Time
	Log *slog.Logger
}

// Cluster is this host's part in one.
type Cluster struct {
	cfg  Config
	key  ed25519.PrivateKey
	self record.Host
	log  *slog.Logger

	life    context.Context //nolint:containedctx // that of what goes on in the background, until Close
	end     context.CancelFunc
	running sync.WaitGroup

	// entering is held by who makes this host enter or leave a cluster; taken before mu.
	entering turn
	// saying is held by who writes what this host says of itself, so that what is said last is what is written last; taken before mu.
	saying sync.Mutex

	mu       sync.Mutex
	net      Network
	state    saved
	said     record.Member
	store    *store.Store
	gossip   *gossip
	targets  map[string]*keeper
	near     map[record.Host]*keeper
	up       map[record.Host]Peer
	others   map[string]OtherError // by the address of the target
	kept     time.Time             // when the cluster could not be given up
	lone     *time.Timer
	watchers map[chan struct{}]bool
	closed   bool
}

const (
	stateName    = "cluster.json"
	keyName      = "host.json"
	recordsDir   = "records"
	stateVersion = 1
)

// saved is what is remembered of the cluster.
type saved struct {
	Cluster record.Cluster `json:"cluster,omitzero"`
	Founded time.Time      `json:"founded,omitzero"`
	// Founder: this host founded it, and makes what a new one has.
	Founder bool     `json:"founder,omitempty"`
	Targets []string `json:"targets,omitempty"`
	// Join: this host founds no cluster by itself.
	Join bool `json:"join,omitempty"`
}

type savedKey struct {
	Seed []byte `json:"seed"`
}

// Open reads what is remembered of the cluster and this host's key, which it makes if there is none. What goes on in the
// background ends with ctx, or by Close.
func Open(ctx context.Context, cfg Config) (*Cluster, error) {
	c := &Cluster{
		entering: make(turn, 1),
		cfg:      cfg, log: cfg.Log, said: cfg.Member,
		targets: map[string]*keeper{}, near: map[record.Host]*keeper{}, up: map[record.Host]Peer{},
		others: map[string]OtherError{}, watchers: map[chan struct{}]bool{},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.said.Started = time.Now().UTC().Truncate(time.Second)
	if err := state.Clean(cfg.Root, "."); err != nil {
		return nil, err
	}
	if err := state.Read(cfg.Root, stateName, stateVersion, &c.state); err != nil && !isNotFound(err) {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "cluster: %w", err),
			"restore the file, or reset this host and let it join again")
	}
	if err := c.readKey(); err != nil {
		return nil, err
	}
	c.life, c.end = context.WithCancel(ctx)
	if c.state.Cluster != (record.Cluster{}) {
		if err := c.openStore(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Cluster) readKey() error {
	var k savedKey
	err := state.Read(c.cfg.Root, keyName, stateVersion, &k)
	if isNotFound(err) && c.state.Cluster == (record.Cluster{}) {
		k.Seed = make([]byte, ed25519.SeedSize)
		_, _ = rand.Read(k.Seed) // it never fails
		err = state.Write(c.cfg.Root, keyName, stateVersion, k)
	}
	if err == nil && len(k.Seed) != ed25519.SeedSize {
		err = state.ErrCorrupt
	}
	if err != nil {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "cluster: the key of this host: %w", err),
			"restore the file from a copy, or reset this host and let it join again")
	}
	c.key = ed25519.NewKeyFromSeed(k.Seed)
	copy(c.self[:], c.key.Public().(ed25519.PublicKey))
	return nil
}

// Self is this host, Key its key.
func (c *Cluster) Self() record.Host       { return c.self }
func (c *Cluster) Key() ed25519.PrivateKey { return c.key }

// Store is that of the cluster that this host is in; nil while it is in none.
func (c *Cluster) Store() *store.Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store
}

// Founder reports whether this host founded the cluster that it is in, by itself or for others that waited with it.
func (c *Cluster) Founder() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Founder
}

// Start begins to use the network: it goes on with the cluster that this host is in, and with the targets that
// are remembered.
func (c *Cluster) Start(n Network) error {
	c.entering.Lock()
	defer c.entering.Unlock()
	c.mu.Lock()
	c.net = n
	s, targets := c.store, c.state.Targets
	c.mu.Unlock()
	if s != nil {
		if err := c.begin(s); err != nil {
			return err
		}
	}
	c.running.Go(func() { n.Receive(c.life, c.packet, c.stream, c.event) })
	c.running.Go(c.tend)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range targets {
		c.target(t)
	}
	return nil
}

// Close tells the others that this host goes, and ends what goes on. The network is closed by its owner, afterwards.
func (c *Cluster) Close() {
	c.entering.Lock()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.entering.Unlock()
		return
	}
	c.closed = true
	g, s := c.gossip, c.store
	if c.lone != nil {
		c.lone.Stop()
	}
	c.mu.Unlock()
	if g != nil {
		g.leave()
	}
	c.end()
	c.entering.Unlock() // those who are waited for may wait for it, and then see that it is the end
	c.running.Wait()
	if g != nil {
		g.close()
	}
	if s != nil {
		s.Close()
	}
}

// Describe replaces what this host says of itself.
func (c *Cluster) Describe(m record.Member) error {
	c.mu.Lock()
	m.Started = c.said.Started
	c.said = m
	s := c.store
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	return c.say(s)
}

// say tells the others what this host says of itself now.
func (c *Cluster) say(s *store.Store) error {
	c.saying.Lock()
	defer c.saying.Unlock()
	c.mu.Lock()
	m := c.said
	m.Founded = c.state.Founded
	c.mu.Unlock()
	return s.Put(record.KindMember, "", m)
}

// go runs f in the background, unless the cluster is closed.
func (c *Cluster) spawn(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.running.Go(f)
	}
}

// Watch returns a channel that has a value after the members, who of them is reachable, or the links have
// changed. The watcher calls stop in the end.
func (c *Cluster) Watch() (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers[ch] = true
	return ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, ch)
	}
}

// changed tells who watches. Callers hold mu.
func (c *Cluster) changed() {
	for ch := range c.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// turn is a lock that may be held while others are waited for.
type turn chan struct{}

func (t turn) Lock()   { t <- struct{}{} }
func (t turn) Unlock() { <-t }
