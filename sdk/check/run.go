package check

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Prefix begins the name of every volume that a run makes; random letters follow.
const Prefix = "remora-check-"

// callTime bounds a call for which engines have no limit, and a call that cleans up.
const callTime = time.Minute

// Plugin is a plugin under test.
type Plugin struct {
	endpoint client.Endpoint
	options  Options
	run      string // random, in the name of everything that is made
	host     string // that an engine names in its requests
	subnet   netip.Prefix
	away     bool
	hide     func(string) string
	kinds    []string
}

// Open prepares a run against the plugin at ep and calls nothing yet. Wrong options, or an
// address at which no plugin can be, are errors.
func Open(ep client.Endpoint, o Options) (*Plugin, error) {
	o = o.defaults()
	c, err := client.New(ep, client.Options{})
	if err != nil {
		return nil, err
	}
	_ = c.Close() // returns nil
	subnet, err := netip.ParsePrefix(o.Subnet)
	if err != nil || !subnet.Addr().Is4() || subnet.Bits() > 24 {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "subnet %q: want an IPv4 prefix of 24 bits or less, such as 198.18.0.0/16", o.Subnet)
	}
	if _, err := o.Select(o.Kinds); err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	p := &Plugin{
		endpoint: ep, options: o, run: hex.EncodeToString(random[:]), host: engineHost, subnet: subnet.Masked(), hide: hider(o.Create), kinds: o.Kinds,
	}
	if u, err := url.Parse(ep.Addr); err == nil && u.Host != "" {
		p.host = u.Host
	}
	p.away = o.Away || !p.socket()
	return p, nil
}

// engineHost is the host that engines name to a plugin on a socket (since 23.0.7).
const engineHost = "plugin.moby.localhost"

// subnet6 is a prefix of IPv6 that nobody else has (RFC 4193).
func (p *Plugin) subnet6() netip.Prefix {
	a := [16]byte{0: 0xfd}
	copy(a[1:], p.run)
	return netip.PrefixFrom(netip.AddrFrom16(a), 64).Masked()
}

// socket tells whether the plugin is on a unix socket.
func (p *Plugin) socket() bool { return strings.HasPrefix(p.endpoint.Addr, "unix:") }

// managed tells whether the plugin is not to be activated.
func (p *Plugin) managed() bool { return len(p.options.Kinds) > 0 }

// Kinds asks the plugin what it is, unless the options say.
func (p *Plugin) Kinds(ctx context.Context) ([]string, error) {
	if p.kinds != nil {
		return p.kinds, nil
	}
	c, err := client.New(p.endpoint, client.Options{Timeout: callTime})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // returns nil
	kinds, err := c.Activate(ctx)
	if err == nil {
		p.kinds = kinds
	}
	return kinds, err
}

// Plan says what a run against a plugin of these kinds would make, one sentence each.
func (p *Plugin) Plan(kinds []string) (all []string) {
	opts := ""
	if len(p.options.Create) > 0 {
		opts = ", made with the options " + p.hide(pairs(p.options.Create))
	}
	for _, kind := range kinds {
		switch kind {
		case Volume:
			all = append(all, fmt.Sprintf("volumes called %s%s-…, up to 8 at a time%s", Prefix, p.run, opts))
		case Network:
			all = append(all, fmt.Sprintf("networks and endpoints with IDs that begin with %s, in subnets of %s and %s%s", p.run, p.subnet, p.subnet6(), opts))
		case IPAM:
			all = append(all, fmt.Sprintf("pools of addresses, in %s, %s and wherever the plugin likes", p.subnet, p.subnet6()))
		case Log:
			all = append(all, "a log of a container that is not there, with a few lines in it")
		}
	}
	return all
}

func pairs(m map[string]string) string {
	var all []string
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Run checks the plugin at ep. An error is one of the options or of the address; what is
// wrong with the plugin is in the report. When ctx ends the run cleans up and returns what
// it has.
func Run(ctx context.Context, ep client.Endpoint, o Options) (*Report, error) {
	p, err := Open(ep, o)
	if err != nil {
		return nil, err
	}
	return p.Run(ctx), nil
}

// Run checks the plugin.
func (p *Plugin) Run(ctx context.Context) *Report {
	r := &Report{Plugin: p.endpoint.Name, Address: p.endpoint.Addr, Started: time.Now().UTC().Truncate(time.Second), Kinds: []string{}, Results: []Result{}}
	kinds, err := p.Kinds(ctx)
	if err != nil && ctx.Err() == nil {
		// The case of activation says so itself.
		kinds = nil
	}
	for _, kind := range kinds {
		r.Kinds = append(r.Kinds, kind)
		if !slices.ContainsFunc(Cases(), func(c Case) bool { return c.Kind == kind }) {
			r.Unchecked = append(r.Unchecked, kind)
		}
	}
	cases, _ := p.options.Select(kinds) // Open has checked it
	if len(kinds) == 0 {
		cases = slices.DeleteFunc(cases, func(c Case) bool { return c.ID != activateID })
	}
	dead := ""
	for _, c := range cases {
		var result Result
		switch reason, skip := p.options.Skip[c.ID]; {
		case skip:
			result = c.result(Deviates, errdefs.OneLine(reason))
		case ctx.Err() != nil:
			r.Interrupted = true
			result = c.result(Skipped, "interrupted")
		case dead != "":
			result = c.result(Skipped, dead)
		default:
			result = p.Check(ctx, c)
			if result.Outcome == Broken && c.ID != activateID && !p.alive(ctx, c.Kind) {
				dead = "the plugin gives no answer since " + c.ID
			}
		}
		r.Results = append(r.Results, result)
		if p.options.Done != nil {
			p.options.Done(result)
		}
	}
	r.Interrupted = r.Interrupted || ctx.Err() != nil
	r.judge()
	return r
}

// alive tells whether the plugin answers at all, be it nonsense, and as that kind.
func (p *Plugin) alive(ctx context.Context, kind string) bool {
	c, err := client.New(p.endpoint, client.Options{Timeout: shortWait})
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }() // returns nil
	return !unanswered(call(ctx, c, p.ping(""))) && !unanswered(call(ctx, c, p.ping(kind)))
}

func (c Case) result(o Outcome, reasons ...string) Result {
	return Result{ID: c.ID, Kind: c.Kind, Asserts: c.Asserts, Source: c.Source, Basic: c.Basic, Outcome: o, Reasons: reasons}
}

// Check runs one case, and cleans up behind it.
func (p *Plugin) Check(ctx context.Context, c Case) Result {
	start := time.Now()
	t := newT(ctx, p, c)
	t.do(c.run)
	t.cleanUp(ctx)
	t.result.Seconds = time.Since(start).Seconds()
	return t.result
}

// unanswered tells whether err is of a call that had no answer, or none that an engine could
// read.
func unanswered(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	if _, refused := errors.AsType[*client.Error](err); refused {
		return false
	}
	switch errdefs.Class(err) {
	case nil, errdefs.ErrUnavailable, context.DeadlineExceeded: //nolint:errorlint // Class returns the class itself
		return true
	}
	return false
}
