package mesh

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/plan"
	"github.com/remora-plugins/remora/internal/mesh/probe"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
)

// How hosts are asked. One through which data flows is asked often, and with packets as large as its own.
const (
	askEvery     = 2 * time.Second
	askActive    = time.Second
	askFirst     = 200 * time.Millisecond // while it has not yet answered, for the first few times
	firstTimes   = 5
	askIdleEvery = 3 * time.Second
	askEach      = 10 * time.Millisecond // of one without data more for each host there is
	// askDown is how long after a question was not answered the next is asked, where the path is known not to work: after a cut
	// has healed this is what containers wait for.
	askDown      = 500 * time.Millisecond
	answerWithin = time.Second
	// askAgain is how soon a question is asked again that was not answered, until it is clear that the path does not
	// work.
	askAgain = 300 * time.Millisecond
	// soonWithin is the least that an answer to such a question may take.
	soonWithin  = 400 * time.Millisecond
	largeWithin = 400 * time.Millisecond
	// downAfter are the questions without an answer that make a path one that does not work.
	downAfter = 3
	// growEvery is how often a path that was found narrow is tried for more.
	growEvery = 10 * time.Minute
	// ownBytes are what the questions themselves take, and some more, from one look at the tunnel to the next.
	ownBytes = 6 << 10
	// flowsFor is how long data counts as flowing after there was some: where a packet is too large little
	// flows, and that is just when to ask.
	flowsFor = time.Minute
	// checkEvery is how often one is tried with a large packet though no data flows.
	checkEvery = time.Minute
)

// peers are the hosts that are asked.
type peers struct {
	mu     sync.Mutex
	paths  map[record.Host]plan.Path
	byHost map[record.Host]*peer
	seen   map[tunnel.Key]tunnel.Seen
	flowed map[tunnel.Key]time.Time
}

type peer struct {
	stop    context.CancelFunc
	again   chan struct{} // has a value when it is to be asked at once
	latency time.Duration
	at      time.Time // of the last answer
	misses  int
}

// want notes which hosts there are. Who asks them is started by observe.
func (p *peers) want(paths []plan.Path) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paths = map[record.Host]plan.Path{}
	for _, path := range paths {
		if path.Kind != plan.None {
			p.paths[path.Host] = path
		}
	}
}

// observe starts and ends the asking of each host, and reads what the tunnel knows.
func (m *Mesh) observe(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(askFirst)
	defer tick.Stop()
	for n := 0; ; n++ {
		m.start(ctx, &wg)
		if n%int(askEvery/askFirst) == 0 {
			m.readTunnel()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *Mesh) start(ctx context.Context, wg *sync.WaitGroup) {
	p := &m.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	for h, one := range p.byHost {
		if _, ok := p.paths[h]; !ok {
			one.stop()
			delete(p.byHost, h)
		}
	}
	for h := range p.paths {
		if _, ok := p.byHost[h]; ok {
			continue
		}
		asking, stop := context.WithCancel(ctx)
		p.byHost[h] = &peer{stop: stop, again: make(chan struct{}, 1)}
		wg.Go(func() {
			defer stop()
			m.ask(asking, h)
		})
	}
}

// readTunnel finds which peers carry data: more than our own questions are.
func (m *Mesh) readTunnel() {
	m.mu.Lock()
	t := m.tunnel
	m.mu.Unlock()
	if t == nil {
		return
	}
	s, err := t.State()
	if err != nil {
		m.Nudge()
		return
	}
	p := &m.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	flowed := map[tunnel.Key]time.Time{}
	for key, now := range s.Seen {
		before := p.seen[key]
		if flowed[key] = p.flowed[key]; now.Sent-before.Sent+now.Received-before.Received > ownBytes {
			flowed[key] = time.Now()
		}
	}
	p.seen, p.flowed = s.Seen, flowed
}

// ask asks one host until ctx ends.
func (m *Mesh) ask(ctx context.Context, h record.Host) {
	var grown, checked time.Time
	misses, hurry := 0, false
	for asked := 0; ; asked++ {
		path, active, all := m.peers.get(h)
		within := answerWithin
		switch {
		case asked < firstTimes:
			within = askFirst
		case hurry || misses > 0 && misses < downAfter:
			within = min(answerWithin, max(soonWithin, 4*m.peers.latency(h)))
		}
		rtt, ok := m.ping(ctx, path.Inner, probe.Least, within)
		if ctx.Err() != nil {
			return
		}
		if misses = m.peers.note(h, rtt, ok); misses == 1 {
			m.Nudge() // where it says that it is may be another place
		}
		if !ok && (asked < firstTimes+3 && asked >= firstTimes-1 || misses >= downAfter) {
			m.again(path)
		}
		switch {
		case ok:
			m.learn(ctx, h, func(l *learned) { l.Down = false })
			if since := time.Since(checked); active && since >= askEvery || since > checkEvery {
				checked = time.Now()
				m.measure(ctx, h, path, &grown)
			}
		case misses >= downAfter && path.Kind == plan.Sealed:
			m.learn(ctx, h, func(l *learned) { l.Down = true })
			if misses%downAfter == 0 {
				m.turn(ctx, h)
			}
		}
		wait := max(askIdleEvery, time.Duration(all)*askEach)
		switch {
		case !ok && asked < firstTimes:
			wait = 0 // the question itself took that long
		case !ok && misses < downAfter:
			wait = by(askAgain)
		case !ok:
			wait = max(by(askDown), time.Duration(all)*askEach)
		case active:
			wait = askActive
		}
		hurry = false
		select {
		case <-ctx.Done():
			return
		case <-m.peers.again(h):
			hurry = true
		case <-time.After(wait):
		}
	}
}

// by is a time around the one that is given. Two hosts that begin a handshake with each other in the same millisecond get nowhere,
// and would not the next time either if both waited as long.
func by(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// again has the tunnel begin anew with a peer that has never answered, or not for so long that the two need new keys, or not since
// they agreed on some: the other may have begun anew as well, and lost them. WireGuard itself asks for new ones every five
// seconds, if at all. With a peer that is at no known address only the other side can begin; what the tunnel has
// learned of where it is would be lost.
func (m *Mesh) again(path plan.Path) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last.Tunnel == nil || m.tunnel == nil {
		return
	}
	peer, ok := m.last.Tunnel.Peers[path.Key]
	if !ok || !peer.Endpoint.IsValid() {
		return
	}
	now, err := m.tunnel.State()
	if err != nil || m.peers.agreed(path.Host, now.Seen[path.Key].Handshake) {
		return
	}
	_ = tunnel.Begin(m.tunnel, path.Key, peer)
}

// agreed reports whether both sides have the keys of a handshake, or may be about to use them for the first time.
func (p *peers) agreed(h record.Host, handshake time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	since := time.Since(handshake)
	one := p.byHost[h]
	return since < answerWithin || since < freshFor && one != nil && one.at.After(handshake)
}

func (p *peers) get(h record.Host) (path plan.Path, active bool, all int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	path = p.paths[h]
	return path, time.Since(p.flowed[path.Key]) < flowsFor || path.Kind != plan.Sealed, len(p.paths)
}

func (p *peers) note(h record.Host, rtt time.Duration, ok bool) (misses int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.byHost[h]
	if one == nil {
		return 0
	}
	if ok {
		one.latency, one.at, one.misses = rtt, time.Now(), 0
	} else {
		one.misses++
	}
	return one.misses
}

func (m *Mesh) ping(ctx context.Context, to netip.Addr, size int, within time.Duration) (time.Duration, bool) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return m.prober.Ping(ctx, to, size)
}

// measure finds what fits the path: as much as now, or less, and once in a while whether it is more again.
func (m *Mesh) measure(ctx context.Context, h record.Host, path plan.Path, grown *time.Time) {
	to, more := path.Inner, 0
	switch path.Kind {
	case plan.Boxed:
		to, more = path.Address, m.overhead(path.Address)
	case plan.Routed:
		to = path.Address
	}
	fits := func(size int) bool {
		for range 2 {
			if _, ok := m.ping(ctx, to, size+more, largeWithin); ok || ctx.Err() != nil {
				return true
			}
		}
		return false
	}
	most := m.most(path)
	now := most
	m.mu.Lock()
	if l := m.paths[h]; l.MTU != 0 {
		now = min(now, l.MTU)
	}
	m.mu.Unlock()
	from := plan.Floor
	switch {
	case now < most && time.Since(*grown) > growEvery:
		if *grown = time.Now(); fits(now) {
			from = now
			break
		}
		fallthrough
	default:
		if fits(now) {
			return
		}
		// First what surely passes, then what is the most.
		if most = now; !fits(plan.Floor) && path.Kind != plan.Sealed {
			return // the host does not answer such questions, or not by this way
		}
		m.learn(ctx, h, func(l *learned) { l.MTU = plan.Floor })
		*grown = time.Now()
	}
	found := probe.Largest(from, most, fits)
	if ctx.Err() == nil {
		m.learn(ctx, h, func(l *learned) { l.MTU = found })
	}
}

func (*Mesh) overhead(a netip.Addr) int {
	if a.Is4() {
		return 50
	}
	return 70
}

// most is what fits a path of its kind where nothing narrows it.
func (m *Mesh) most(path plan.Path) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if path.Kind == plan.Sealed && m.last.TunnelMTU != 0 {
		return m.last.TunnelMTU
	}
	if path.Kind == plan.Boxed {
		return max(plan.Floor, m.uplink-m.overhead(path.Address))
	}
	return m.uplink
}

// learn changes what is known of a host, and has the loop look if that is news.
func (m *Mesh) learn(ctx context.Context, h record.Host, change func(*learned)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.paths[h]
	after := before
	if change(&after); after == before {
		return
	}
	m.paths[h] = after
	if err := m.savePaths(); err != nil {
		m.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "what is known of the paths is not kept", slog.Any("error", err))
	}
	m.Nudge()
}

// turn tries the next of the addresses at which a host may be reached.
func (m *Mesh) turn(ctx context.Context, h record.Host) {
	var in plan.Input
	in.Gather(m.cfg.Records.Records)
	if all := in.Endpoints()[h]; len(all) > 0 {
		m.learn(ctx, h, func(l *learned) { l.Endpoint = all[(slices.Index(all, l.Endpoint)+1)%len(all)] })
	}
}
