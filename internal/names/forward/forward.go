// Package forward asks the host's own DNS servers what the cluster does not know. It asks one, and a second beside
// it when that is slow; it asks each question once at a time, whoever waits for it; it remembers
// answers for a short while, and gives old ones for longer when no server answers any more.
package forward

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/remora-plugins/remora/internal/names"
	"github.com/remora-plugins/remora/internal/names/server"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The times of one question. An engine's own resolver gives up after 4 s.
const (
	total    = 3400 * time.Millisecond // in all
	hedge    = 300 * time.Millisecond  // until a second server is asked beside the first
	attempt  = 1500 * time.Millisecond // for one server
	patience = time.Second             // for a name without a dot, and where there is an old answer
	down     = 5 * time.Second         // how long after nobody answered an old answer is given at once
	sticky   = 30 * time.Second        // how long a server that failed comes last
)

// maxAsked bounds the questions that are asked at a time.
const maxAsked = 512

// Config is what a forwarder stands on. The zero value asks the servers of /etc/resolv.conf.
type Config struct {
	// ResolvConf is the file that names the servers.
	ResolvConf string
	// Servers, if it is there and returns any, are asked instead: those that containers were told before they were told this
	// one.
	Servers func() []netip.Addr
	// Port is that of all of them; 0 is 53.
	Port uint16
	// Own returns where this host's own server listens: that is never asked.
	Own func() []netip.AddrPort
	Log *slog.Logger
}

// Forwarder asks other servers.
type Forwarder struct {
	cfg     Config
	servers servers
	cache   cache
	probes  probes

	mu       sync.Mutex
	asked    map[key]*call
	failedAt time.Time // when the last question ended that no server answered
	asking   sync.WaitGroup
	base     func() context.Context // ends with the forwarder
	stop     context.CancelFunc
}

// key is a question, as the cache and those who wait know it.
type key struct {
	name  string // in lower case
	qtype uint16
	flags server.Flags
}

// call is a question that is being asked.
type call struct {
	done  chan struct{}
	reply *dns.Msg
	err   error
}

// New returns a forwarder. When ctx ends it gives up what is being asked, as Close does.
func New(ctx context.Context, cfg Config) *Forwarder {
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.Port == 0 {
		cfg.Port = 53
	}
	if cfg.Own == nil {
		cfg.Own = func() []netip.AddrPort { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Forwarder{cfg: cfg, asked: map[key]*call{}}
	f.cache.entries = map[key]*entry{}
	ctx, f.stop = context.WithCancel(ctx)
	f.base = func() context.Context { return ctx }
	return f
}

// Close gives up what is being asked.
func (f *Forwarder) Close() {
	f.stop()
	f.asking.Wait()
}

// Forward returns an answer, which the caller may change.
func (f *Forwarder) Forward(ctx context.Context, q dns.Question, flags server.Flags) (*dns.Msg, error) {
	k := key{strings.ToLower(q.Name), q.Qtype, flags}
	fresh, old := f.cache.get(k, time.Now())
	if fresh != nil {
		return fresh, nil
	}
	c, err := f.ask(k, q) //nolint:contextcheck // it goes on when who asked has gone
	if err != nil {
		return orOld(old, err)
	}
	wait := total + attempt // the call ends by itself
	if old != nil || names.Single(q.Name) {
		wait = patience
	}
	if old != nil && f.down() {
		wait = 0
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case <-c.done:
		if c.err != nil {
			return orOld(old, c.err)
		}
		return c.reply.Copy(), nil
	case <-late.C:
		return orOld(old, errdefs.Errorf(errdefs.ErrUnavailable, "dns: no server has answered"))
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func orOld(old *dns.Msg, err error) (*dns.Msg, error) {
	if old != nil {
		return old, nil
	}
	return nil, err
}

// down reports whether no server has answered lately.
func (f *Forwarder) down() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.failedAt.IsZero() && time.Since(f.failedAt) < down
}

// ask returns the call that asks k, which may have begun already. It goes on when who began it has gone.
func (f *Forwarder) ask(k key, q dns.Question) (*call, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.asked[k]; c != nil {
		return c, nil
	}
	if len(f.asked) >= maxAsked || f.base().Err() != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "dns: too many questions are waiting")
	}
	c := &call{done: make(chan struct{})}
	f.asked[k] = c
	f.asking.Go(func() {
		ctx, cancel := context.WithTimeout(f.base(), total)
		defer cancel()
		c.reply, c.err = f.exchange(ctx, q, k.flags)
		if c.err == nil {
			f.cache.put(k, c.reply, time.Now())
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.asked, k)
		f.failedAt = time.Time{}
		if c.err != nil && !errors.Is(c.err, errSaid) {
			f.failedAt = time.Now()
		}
		close(c.done)
	})
	return c, nil
}

// outcome is what one server said.
type outcome struct {
	turn  int
	from  netip.AddrPort
	reply *dns.Msg
	err   error
}

// exchange asks the servers in turn, at most two at a time, until one answers or ctx ends. What the first one knows counts: a later one,
// which may know the names of the world alone, denies none for as long as the first may still answer.
func (f *Forwarder) exchange(ctx context.Context, q dns.Question, flags server.Flags) (*dns.Msg, error) {
	all := f.targets() //nolint:contextcheck // what looks for loops is not waited for
	if len(all) == 0 {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "dns: %s names no server beside this one", f.cfg.ResolvConf)
	}
	answers := make(chan outcome, 2*len(all)+int(total/hedge)) // more than are ever asked: nobody waits to be heard
	flying, next, first := 0, 0, true
	begin := func() { //nolint:contextcheck // it goes on when another has answered
		turn, to := next, all[next%len(all)]
		next, flying = next+1, flying+1
		f.asking.Go(func() { answers <- f.one(turn, to, q, flags) })
	}
	begin()
	second := time.NewTimer(hedge)
	defer second.Stop()
	var last outcome
	var denied *dns.Msg
	refusals := 0
	for {
		select {
		case <-ctx.Done():
			if denied != nil {
				return denied, nil
			}
			return fallen(last, errdefs.Errorf(errdefs.ErrUnavailable, "dns: no server has answered within %s", total))
		case <-second.C:
			if flying < 2 && denied == nil {
				begin()
			}
		case o := <-answers:
			flying--
			first = first && o.turn != 0
			switch {
			case o.err == nil && usable(o.reply) && (len(o.reply.Answer) > 0 || !first || o.from == all[0]):
				return o.reply, nil
			case o.err == nil && usable(o.reply):
				denied = o.reply
				continue
			case denied != nil:
				return denied, nil
			}
			if last.reply == nil || o.reply != nil {
				last = o
			}
			if o.reply != nil || o.err != nil && ctx.Err() == nil && quick(o.err) {
				refusals++
			}
			if refusals >= len(all) { // each has said no at once: to ask again is no use
				return fallen(last, o.err)
			}
			begin()
			second.Reset(hedge)
		}
	}
}

// one asks one server. One that does not answer in its time is asked after the others from then on; that another was faster
// is no reason, or a name that takes the first one long would hide what only that one knows.
func (f *Forwarder) one(turn int, to netip.AddrPort, q dns.Question, flags server.Flags) outcome {
	ctx, cancel := context.WithTimeout(f.base(), attempt)
	defer cancel()
	reply, err := exchange(ctx, to, q, flags)
	if err == nil && usable(reply) {
		f.servers.good(to)
	} else if f.base().Err() == nil {
		f.servers.bad(to, time.Now())
	}
	return outcome{turn, to, reply, err}
}

// usable reports whether an answer is one: a server that fails or refuses has none, and another may.
func usable(m *dns.Msg) bool { return m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError }

// errSaid marks an error that a server has told, which so is there.
var errSaid = errors.New("has no answer")

// fallen returns the best of what was said when no server gave an answer.
func fallen(last outcome, err error) (*dns.Msg, error) {
	if last.reply != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "dns server %s: %w: %s", last.from, errSaid, dns.RcodeToString[last.reply.Rcode])
	}
	if err == nil {
		err = last.err
	}
	return nil, err
}

// targets are the servers to ask now, without ourselves.
func (f *Forwarder) targets() []netip.AddrPort {
	var given []netip.AddrPort
	if f.cfg.Servers != nil {
		for _, a := range f.cfg.Servers() {
			given = append(given, netip.AddrPortFrom(a.Unmap(), f.cfg.Port))
		}
	}
	all, changed := f.servers.list(given, f.cfg.ResolvConf, f.cfg.Port, time.Now())
	if changed {
		f.cfg.Log.Info("dns: other servers are asked", "file", f.cfg.ResolvConf, "servers", all)
	}
	if f.servers.due(changed, time.Now()) {
		f.probe(all)
	}
	own := f.cfg.Own()
	var to []netip.AddrPort
	for _, a := range all {
		if !slices.Contains(own, a) && !f.servers.loops(a) {
			to = append(to, a)
		}
	}
	return to
}

// probe asks each server for a name that only this process knows. If it comes in as a question here, the server asks us
// what we ask it; if the server answers without that, it does so no more.
func (f *Forwarder) probe(all []netip.AddrPort) {
	for _, to := range all {
		name := f.probes.add(to)
		f.asking.Go(func() {
			ctx, cancel := context.WithTimeout(f.base(), attempt)
			defer cancel()
			_, err := exchange(ctx, to, dns.Question{Name: name, Qtype: dns.TypeHINFO, Qclass: dns.ClassINET}, server.Flags{})
			if err == nil && !f.probes.heard(name) && f.servers.straight(to) {
				f.cfg.Log.Info("dns: a server of the host asks this one no more and is asked again", "server", to)
			}
		})
	}
}

// Heard implements [server.Forwarder].
func (f *Forwarder) Heard(name string) bool {
	from, ours := f.probes.take(name)
	if ours && f.servers.loop(from) {
		f.cfg.Log.Warn("dns: a server of the host asks this one and is no longer asked", "server", from, "file", f.cfg.ResolvConf)
	}
	return ours
}

// Servers returns the servers that would be asked now.
func (f *Forwarder) Servers() []netip.AddrPort { return f.targets() }

// probes are the names that were asked to find loops.
type probes struct {
	mu   sync.Mutex
	sent map[string]*probe
}

type probe struct {
	to    netip.AddrPort
	heard bool // it has come in here
}

// maxProbes bounds them; the file names three servers or so.
const maxProbes = 64

func (p *probes) add(to netip.AddrPort) string {
	const digits = "abcdefghijklmnopqrstuvwxyz234567"
	var b [27]byte
	for i := range b {
		b[i] = digits[rand.IntN(len(digits))]
	}
	b[13] = '.' // two labels, as no container is called
	name := string(b[:]) + "."
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent == nil || len(p.sent) >= maxProbes {
		p.sent = map[string]*probe{}
	}
	p.sent[name] = &probe{to: to}
	return name
}

// heard reports whether one has come in here.
func (p *probes) heard(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent, ok := p.sent[name]
	return !ok || sent.heard // of one that is forgotten nothing is known
}

func (p *probes) take(name string) (netip.AddrPort, bool) {
	if len(name) != 28 {
		return netip.AddrPort{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	sent, ok := p.sent[strings.ToLower(name)]
	if !ok {
		return netip.AddrPort{}, false
	}
	sent.heard = true
	return sent.to, true
}
