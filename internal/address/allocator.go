package address

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Rest is how long an address that was freed is given to nobody who does not ask for it by its value: names and
// neighbours that are out of date may still point to it.
const Rest = 5 * time.Minute

// GatewayKey is the key under which a subnet's gateway on this host is allocated.
const GatewayKey = "gateway"

// PodmanKey begins the keys of what Podman's containers have, which is asked for without a pool. Another engine of the host may have
// the same network beside them, or come and go.
const PodmanKey = "podman/"

// PodmanGatewayKey is the key of a gateway that Podman's containers alone have: an engine that asks for one takes it over.
const PodmanGatewayKey = PodmanKey + "gateway"

// AuxKey is the key of an address that an engine has put aside for nobody ("--aux-address").
const AuxKey = "aux"

const ledgerName = "addresses.log"

// Asker carries requests to other hosts.
type Asker interface {
	// Ask has host answer r by [Allocator.Answer]. One that cannot be reached is ErrUnavailable, soon.
	Ask(ctx context.Context, host record.Host, r Request) (Answer, error)
}

// Config of an [Allocator]. All but Log and Routes is required.
type Config struct {
	// Root is the directory in which it remembers what it gave out. It is the Allocator's alone.
	Root  *os.Root
	Store Store
	Asker Asker
	// Routes returns the destinations to which this host has routes of somebody else's. nil is none.
	Routes func() ([]netip.Prefix, error)
	Log    *slog.Logger
}

// Allocator gives out addresses of what this host owns, and gets more of that, and gives it to others. Make it with
// [New], and call [Allocator.Run].
type Allocator struct {
	config Config
	ledger *ledger

	wake chan struct{}

	mu      sync.Mutex
	view    *view  // nil: look
	seen    uint64 // changes of records before it was made
	bodies  decoded
	used    map[spot]use
	spent   []freed // freed, the oldest first
	left    map[string]bool
	asking  map[wanted]chan struct{}
	low     map[wanted]bool
	offers  map[string]bool // pools that an engine was given by the choice of this host, and has not taken yet
	making  map[string]bool // spaces of which an engine has a pool, but no network yet
	nobodys map[string]bool // spaces of which an engine had a part and has none any more, though it never said so
	// unknown are the spaces that something here is about, and of which there is no network, since when.
	unknown map[string]time.Time
}

// spot is an address of a space.
type spot struct {
	space   string
	address netip.Addr
}

// use is one that is out.
type use struct {
	key       string
	since     time.Time
	suspected time.Time // when it was first found that nobody has it; zero is not
}

type freed struct {
	spot
	at time.Time
}

// wanted is what to ask for.
type wanted struct {
	space   string
	subnet  netip.Prefix
	address netip.Addr
}

// New returns an Allocator that knows what was given out before.
func New(c Config) (*Allocator, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a := &Allocator{
		config: c, wake: make(chan struct{}, 1), used: map[spot]use{}, left: map[string]bool{},
		asking: map[wanted]chan struct{}{}, low: map[wanted]bool{}, making: map[string]bool{}, offers: map[string]bool{},
		unknown: map[string]time.Time{}, nobodys: map[string]bool{},
	}
	l, lines, err := openLedger(c.Root, ledgerName, a.lines)
	if err != nil {
		return nil, err
	}
	if err := a.replay(string(lines)); err != nil {
		return nil, fmt.Errorf("%s: %w", ledgerName, cmp.Or(l.close(), err))
	}
	a.ledger = l
	return a, nil
}

// Close ends it. Calls that come later fail.
func (a *Allocator) Close() error { return a.ledger.close() }

// The lines of the ledger: what, space, address, milliseconds, key.
func giveLine(at spot, u use) string {
	return fmt.Sprintf("give %s %s %d %s\n", at.space, at.address, u.since.UnixMilli(), u.key)
}

func freeLine(f freed) string {
	return fmt.Sprintf("free %s %s %d\n", f.space, f.address, f.at.UnixMilli())
}

func leftLine(space string) string { return fmt.Sprintf("left %s\n", space) }

// lines says all that the ledger has to.
func (a *Allocator) lines() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	for _, f := range a.spent {
		if time.Since(f.at) < Rest {
			b.WriteString(freeLine(f))
		}
	}
	for at, u := range a.used {
		b.WriteString(giveLine(at, u))
	}
	for space := range a.left {
		b.WriteString(leftLine(space))
	}
	return []byte(b.String())
}

func (a *Allocator) replay(lines string) error {
	for line := range strings.Lines(lines) {
		what, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if what == "left" {
			a.left[rest] = true
			continue
		}
		var space, text, key string
		var ms int64
		n, _ := fmt.Sscanf(rest, "%s %s %d", &space, &text, &ms)
		address, err := netip.ParseAddr(text)
		if n != 3 || err != nil || what != "give" && what != "free" {
			return fmt.Errorf("entry %q is not of this version", line)
		}
		at := time.UnixMilli(ms)
		if now := time.Now(); at.After(now) { // the clock was set back
			at = now
		}
		sp := spot{space, address}
		a.spent = without(a.spent, sp)
		if what == "free" {
			delete(a.used, sp)
			a.spent = append(a.spent, freed{sp, at})
			continue
		}
		if f := strings.SplitN(rest, " ", 4); len(f) == 4 {
			key = f[3]
		}
		a.used[sp] = use{key: key, since: at}
		delete(a.left, space)
	}
	return nil
}

func without(list []freed, at spot) []freed {
	for i, f := range list {
		if f.spot == at {
			return append(list[:i:i], list[i+1:]...)
		}
	}
	return list
}

// look returns what this host knows now. The caller holds mu.
func (a *Allocator) look() *view {
	// Who asks may have heard of a change before others are told.
	if now := a.config.Store.Changes(kinds...); now != a.seen {
		a.view, a.seen = nil, now
	}
	if a.view == nil {
		a.view = look(a.config.Store, a.bodies)
		a.bodies = a.view.bodies
	}
	return a.view
}

// Want is what is wanted of a network.
type Want struct {
	Space   string       // ID of the network
	Subnet  netip.Prefix // of it
	Address netip.Addr   // zero is any
	Key     string       // says who has it: no line break
}

// Allocate gives out an address, with the length of its subnet. Once it returns, the address is out until it is
// released, whatever happens to the host. One that somebody has is ErrInUse; where none is left it is
// ErrUnavailable.
func (a *Allocator) Allocate(ctx context.Context, w Want) (netip.Prefix, error) {
	w.Key = strings.ReplaceAll(w.Key, "\n", " ")
	for try := 0; ; try++ {
		address, short, err := a.take(ctx, w)
		if err != nil {
			return netip.Prefix{}, err
		}
		if address.IsValid() {
			return netip.PrefixFrom(address, w.Subnet.Bits()), nil
		}
		if try == 3 {
			return netip.Prefix{}, errdefs.Errorf(errdefs.ErrUnavailable, "%s: others were faster, three times", w.Subnet)
		}
		if err := a.acquire(ctx, wanted{w.Space, w.Subnet, w.Address}); err != nil {
			if w.Address.IsValid() {
				return netip.Prefix{}, err
			}
			return netip.Prefix{}, fmt.Errorf("subnet %s: %s: %w", w.Subnet, short, err)
		}
	}
}

// take allocates one of the addresses that this host owns. Without an error and an address, it owns none that is free.
func (a *Allocator) take(ctx context.Context, w Want) (got netip.Addr, short string, err error) {
	if err := ctx.Err(); err != nil {
		return got, "", err
	}
	a.mu.Lock()
	v := a.look()
	s, err := v.space(w.Space, w.Subnet)
	switch {
	case err != nil:
	case s.network.Going:
		err = s.mayUse()
	case w.Address.IsValid():
		got, err = a.named(v, s, w)
	case w.Key == GatewayKey || w.Key == PodmanGatewayKey:
		var key string
		if got, key = a.gateway(s, w.Subnet); got.IsValid() {
			if key == GatewayKey || key == w.Key {
				a.mu.Unlock()
				return got, "", nil
			}
			break
		}
		fallthrough
	default:
		got, short = a.choose(v, s, w.Subnet)
	}
	if err != nil || !got.IsValid() {
		a.mu.Unlock()
		return netip.Addr{}, short, err
	}
	at, u := spot{s.ID, got}, use{key: w.Key, since: time.Now()}
	before, taken := a.used[at] // by Podman
	a.used[at] = u
	a.spent = without(a.spent, at)
	delete(a.left, w.Space)
	if mine := common(prefixesOf(v.mine(s.ID)), common(s.Range, []netip.Prefix{w.Subnet})); a.full(w, mine) {
		a.low[wanted{space: w.Space, subnet: w.Subnet}] = true
		a.poke()
	}
	last := a.ledger.enter([]byte(giveLine(at, u)))
	a.mu.Unlock()
	if err := last(); err != nil {
		a.mu.Lock()
		if delete(a.used, at); taken {
			a.used[at] = before
		}
		a.mu.Unlock()
		return netip.Addr{}, "", err
	}
	return got, "", nil
}

// gateway returns the gateway that is out already, and its key: an engine's before one that Podman's containers alone have.
func (a *Allocator) gateway(s Space, subnet netip.Prefix) (found netip.Addr, key string) {
	for _, key = range []string{GatewayKey, PodmanGatewayKey} {
		for at, u := range a.used {
			if u.key == key && at.space == s.ID && subnet.Contains(at.address) && (!found.IsValid() || at.address.Less(found)) {
				found = at.address
			}
		}
		if found.IsValid() {
			break
		}
	}
	return found, key
}

// count returns how many addresses of a subnet are out, and how many rest.
func (a *Allocator) count(space string, subnet netip.Prefix) (out, resting int) {
	for at := range a.used {
		if at.space == space && subnet.Contains(at.address) {
			out++
		}
	}
	for _, f := range a.spent {
		if f.space == space && subnet.Contains(f.address) && time.Since(f.at) < Rest {
			resting++
		}
	}
	return out, resting
}

// full reports whether 75 % of what this host owns of a subnet is out.
func (a *Allocator) full(w Want, mine []netip.Prefix) bool {
	room := 0.0
	for _, p := range mine {
		room += float64(uint64(1) << min(p.Addr().BitLen()-p.Bits(), 62))
	}
	out, resting := a.count(w.Space, w.Subnet)
	return float64(out+resting) >= 0.75*room
}

// Release takes an address back; ErrNotFound where it is not out.
func (a *Allocator) Release(_ context.Context, space string, address netip.Addr) error {
	at := spot{space, address}
	a.mu.Lock()
	if _, ok := a.used[at]; !ok {
		a.mu.Unlock()
		return errdefs.Errorf(errdefs.ErrNotFound, "address %s: not out", address)
	}
	last := a.ledger.enter([]byte(freeLine(a.free(at))))
	a.mu.Unlock()
	return last()
}

func (a *Allocator) free(at spot) freed {
	f := freed{at, time.Now()}
	delete(a.used, at)
	a.spent = append(a.spent, f)
	return f
}

// poke has Run look at once.
func (a *Allocator) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}
