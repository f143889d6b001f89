package check_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/check"
)

// pools is the model of an IPAM plugin.
type pools struct {
	model
	all  map[string]*lent
	last int
}

type lent struct {
	prefix, part netip.Prefix
	out          map[netip.Addr]bool
}

func newPools(_ *testing.T, b bug) *model {
	p := &pools{all: map[string]*lent{}}
	p.bug, p.kinds = b, []string{"IpamDriver"}
	p.call = func(method string, req object) (any, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.do(strings.TrimPrefix(method, "IpamDriver."), req)
	}
	p.activate = func() {
		if b == "forgets at activation" {
			for _, l := range p.all {
				l.out = map[netip.Addr]bool{}
			}
		}
	}
	return &p.model
}

func (p *pools) do(method string, req object) (any, error) {
	switch method {
	case "GetCapabilities":
		if p.bug == "talks nonsense" {
			return "yes", nil
		}
		return object{"RequiresMACAddress": false}, nil
	case "GetDefaultAddressSpaces":
		if p.bug == "no space" {
			return object{"GlobalDefaultAddressSpace": "global"}, nil
		}
		return object{"LocalDefaultAddressSpace": "local", "GlobalDefaultAddressSpace": "global"}, nil
	case "RequestPool":
		return p.pool(req)
	case "ReleasePool":
		if l := p.all[text(req, "PoolID")]; l != nil && len(l.out) > 0 && p.bug == "wants its addresses first" {
			return nil, refuse("has addresses out")
		}
		if p.bug == "keeps pools" {
			return nil, refuse("no")
		}
		if p.bug != "pools once" {
			delete(p.all, text(req, "PoolID"))
		}
		return object{}, nil
	case "RequestAddress", "ReleaseAddress":
	default:
		return nil, nil
	}
	l := p.all[text(req, "PoolID")]
	if l == nil {
		if method == "ReleaseAddress" {
			return object{}, nil
		}
		return nil, refuse("no such pool")
	}
	if method == "RequestAddress" {
		return p.address(l, req)
	}
	a, _ := netip.ParseAddr(text(req, "Address"))
	if !l.out[a] && p.bug == "releases count" {
		l.out = map[netip.Addr]bool{}
	}
	delete(l.out, a)
	return object{}, nil
}

func (p *pools) pool(req object) (any, error) {
	want, _ := netip.ParsePrefix(text(req, "Pool"))
	part, _ := netip.ParsePrefix(text(req, "SubPool"))
	switch {
	case p.bug == "gives no pools":
		return object{"PoolID": "x"}, nil
	case req["V6"] == true && p.bug != "takes IPv6 for IPv4":
		return nil, refuse("no IPv6")
	case req["V6"] == true:
		want = netip.Prefix{}
	}
	for _, l := range p.all {
		if want.IsValid() && l.prefix.Overlaps(want) {
			return nil, refuse("overlaps")
		}
	}
	for !want.IsValid() || p.bug == "another pool" {
		p.last++
		want = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 200, byte(p.last)}), 24)
		if p.bug == "one pool for all" {
			want = netip.MustParsePrefix("10.200.0.0/24")
		}
		if p.bug == "another pool" {
			break
		}
	}
	p.last++
	id := fmt.Sprint("pool", p.last)
	p.all[id] = &lent{want, part, map[netip.Addr]bool{}}
	return object{"PoolID": id, "Pool": want.String()}, nil
}

func (p *pools) address(l *lent, req object) (any, error) {
	a, _ := netip.ParseAddr(text(req, "Address"))
	opts, _ := req["Options"].(object)
	isGateway := opts["RequestAddressType"] != nil
	if p.bug == "refuses options" && len(opts) > 0 && !isGateway {
		return nil, refuse("unknown option")
	}
	switch {
	case a.IsValid() && l.out[a] && p.bug != "gives to two", a.IsValid() && !l.prefix.Contains(a) && p.bug != "gives anything":
		return nil, refuse("cannot be had")
	case !a.IsValid():
		a = p.free(l)
	case p.bug == "forgets names":
		return object{"Address": netip.PrefixFrom(a, 24).String()}, nil
	}
	if !isGateway || p.bug != "container has the gateway" {
		l.out[a] = p.bug != "hands out twice"
	}
	bits := l.prefix.Bits()
	if p.bug == "has no prefix" {
		bits = 32
	}
	return object{"Address": netip.PrefixFrom(a, bits).String()}, nil
}

// free finds an address that nobody has.
func (p *pools) free(l *lent) netip.Addr {
	in := l.prefix
	if l.part.IsValid() && p.bug != "ignores ranges" {
		in = l.part
	}
	a := in.Addr()
	if in == l.prefix && p.bug != "hands out the network" {
		a = a.Next()
	}
	for l.out[a] {
		a = a.Next()
	}
	if p.bug == "forgets locks" {
		p.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
		p.mu.Lock()
	}
	return a
}

func TestPools(t *testing.T) {
	t.Parallel()
	all := mutants{
		"gives no pools":            {"ipam/lifecycle", "ipam/engine-network"},
		"container has the gateway": {"ipam/lifecycle", "ipam/gateway", "ipam/engine-network"},
		"no space":                  {"ipam/address-spaces"},
		"talks nonsense":            {"ipam/capabilities"},
		"pools once":                {"ipam/named-pool", "ipam/release-twice", "ipam/engine-network"},
		"another pool":              {"ipam/named-pool"},
		"one pool for all":          {"ipam/pools-apart"},
		"ignores ranges":            {"ipam/sub-pool"},
		"releases count":            {"ipam/release-twice"},
		"Err beside 200":            {"ipam/errors"},
		"takes no body for success": {"ipam/empty-body"},
		"hands out twice":           {"ipam/addresses-apart", "ipam/addresses-at-once"},
		"hands out the network":     {"ipam/addresses-apart"},
		"forgets names":             {"ipam/named-address"},
		"has no prefix":             {"ipam/prefix-length"},
		"takes IPv6 for IPv4":       {"ipam/ipv6-pool"},
		"gives to two":              {"ipam/address-in-use"},
		"gives anything":            {"ipam/address-outside"},
		"refuses options":           {"ipam/endpoint-options"},
		"forgets locks":             {"ipam/addresses-at-once"},
		"forgets at activation":     {"ipam/engine-crash"},
	}
	all.check(t, check.IPAM, newPools, check.Options{})
}

// TestPoolsThatConform: what engines do not ask of a plugin, no case does.
func TestPoolsThatConform(t *testing.T) {
	t.Parallel()
	r, err := check.Run(t.Context(), serve(t, newPools(t, "wants its addresses first")), check.Options{Engine: true})
	if err != nil || r.Verdict != check.Conforms || len(r.Left()) > 0 {
		t.Errorf("%v, left %q, %+v", err, r.Left(), r.Failed())
	}
}
