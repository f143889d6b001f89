package ipam

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func newAllocator(t *testing.T, c Config) *Allocator {
	t.Helper()
	a, err := NewAllocator(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *Allocator) mustPool(t *testing.T, pool, sub string) Pool {
	t.Helper()
	r := PoolRequest{AddressSpace: "local", V6: strings.Contains(pool, ":")}
	if pool != "" && pool != ":" {
		r.Pool = netip.MustParsePrefix(pool)
	}
	if sub != "" {
		r.SubPool = netip.MustParsePrefix(sub)
	}
	p, err := a.RequestPool(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask requests an address and returns it, or its error's class and text.
func (a *Allocator) ask(t *testing.T, p Pool, want string, gateway bool) string {
	t.Helper()
	r := AddressRequest{PoolID: p.ID, Gateway: gateway}
	if want != "" {
		r.Address = netip.MustParseAddr(want)
	}
	got, err := a.RequestAddress(t.Context(), r)
	if err != nil {
		return errdefs.Name(err) + ": " + err.Error()
	}
	return got.Prefix.String()
}

func TestAddresses(t *testing.T) {
	type step struct {
		want    string // address, or "gateway", or "-address" to release it
		answers string
	}
	for _, tt := range []struct {
		name, pool, sub string
		steps           []step
	}{
		{"usual", "10.0.0.0/29", "", []step{
			{"gateway", "10.0.0.1/29"},
			{"", "10.0.0.2/29"},
			{"10.0.0.4", "10.0.0.4/29"},
			{"", "10.0.0.3/29"},
			{"", "10.0.0.5/29"},
			{"10.0.0.5", "in-use: address 10.0.0.5: in use"},
			{"", "10.0.0.6/29"},
			{"", "unavailable: no address is left in 10.0.0.0/29"},
			{"-10.0.0.3", ""},
			{"-10.0.0.3", ""},
			{"", "10.0.0.3/29"},
			{"10.0.0.0", "invalid: address 10.0.0.0: names the network 10.0.0.0/29 itself"},
			{"10.0.0.7", "invalid: address 10.0.0.7: names the network 10.0.0.0/29 itself"},
			{"10.0.0.8", "invalid: address 10.0.0.8: not in 10.0.0.0/29"},
			{"fd00::1", "invalid: address fd00::1: not in 10.0.0.0/29"},
		}},
		{"gateway that is named", "10.0.0.0/24", "", []step{
			{"10.0.0.254", "10.0.0.254/24"},
			{"", "10.0.0.1/24"},
			{"gateway", "10.0.0.2/24"},
		}},
		{"range", "10.98.0.0/24", "10.98.0.128/31", []step{
			{"gateway", "10.98.0.1/24"},
			{"10.98.0.5", "10.98.0.5/24"},
			{"", "10.98.0.128/24"},
			{"", "10.98.0.129/24"},
			{"", "unavailable: no address is left in 10.98.0.128/31"},
		}},
		{"range at the edge", "10.98.0.0/24", "10.98.0.252/30", []step{
			{"", "10.98.0.252/24"},
			{"", "10.98.0.253/24"},
			{"", "10.98.0.254/24"},
			{"", "unavailable: no address is left in 10.98.0.252/30"},
		}},
		{"point to point", "10.0.0.0/31", "", []step{{"gateway", "10.0.0.0/31"}, {"", "10.0.0.1/31"}, {"", "unavailable: no address is left in 10.0.0.0/31"}}},
		{"one", "10.0.0.9/32", "", []step{{"", "10.0.0.9/32"}, {"", "unavailable: no address is left in 10.0.0.9/32"}}},
		{"IPv6", "fd00::/64", "", []step{{"gateway", "fd00::1/64"}, {"", "fd00::2/64"}, {"fd00::ffff", "fd00::ffff/64"}, {"fd00::", "invalid: address fd00::: names the network fd00::/64 itself"}}},
		{"end of all addresses", "255.255.255.248/29", "", []step{{"255.255.255.254", "255.255.255.254/29"}, {"", "255.255.255.249/29"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAllocator(t, Config{State: Dir(t.TempDir())})
			p := a.mustPool(t, tt.pool, tt.sub)
			for i, s := range tt.steps {
				if old, ok := strings.CutPrefix(s.want, "-"); ok {
					if err := a.ReleaseAddress(t.Context(), p.ID, netip.MustParseAddr(old)); err != nil {
						t.Errorf("step %d: %v", i, err)
					}
					continue
				}
				gateway := s.want == "gateway"
				if got := a.ask(t, p, strings.TrimPrefix(s.want, "gateway"), gateway); got != s.answers {
					t.Errorf("step %d: %q answers %q, want %q", i, s.want, got, s.answers)
				}
			}
		})
	}
}

func TestPoolsDoNotOverlap(t *testing.T) {
	a := newAllocator(t, Config{State: Dir(t.TempDir()), Ranges: []Range{{netip.MustParsePrefix("10.1.0.0/22"), 24}}})
	p := a.mustPool(t, "10.1.1.128/25", "")
	a.ask(t, p, "", true)
	for _, want := range []string{"10.1.0.0/24", "10.1.2.0/24", "10.1.3.0/24"} {
		if got := a.mustPool(t, "", "").Prefix.String(); got != want {
			t.Errorf("pool %s, want %s", got, want)
		}
	}
	for _, tt := range []struct {
		r     PoolRequest
		class error
	}{
		{PoolRequest{AddressSpace: "local"}, errdefs.ErrUnavailable},
		{PoolRequest{AddressSpace: "local", V6: true}, errdefs.ErrInvalid},
		{PoolRequest{AddressSpace: "local", Pool: netip.MustParsePrefix("10.0.0.0/8")}, errdefs.ErrInUse},
		{PoolRequest{AddressSpace: "local", Pool: netip.MustParsePrefix("10.1.1.128/25")}, errdefs.ErrInUse},
		{PoolRequest{AddressSpace: "elsewhere"}, errdefs.ErrInvalid},
		{PoolRequest{AddressSpace: "local", Options: map[string]string{"a": "b"}}, errdefs.ErrInvalid},
	} {
		if got, err := a.RequestPool(t.Context(), tt.r); !errors.Is(err, tt.class) {
			t.Errorf("RequestPool(%+v) = %+v, %v; want class %v", tt.r, got, err, tt.class)
		}
	}
	// Another space is another world.
	if _, err := a.RequestPool(t.Context(), PoolRequest{AddressSpace: "global", Pool: netip.MustParsePrefix("10.1.1.128/25")}); err != nil {
		t.Error(err)
	}
	if err := a.ReleasePool(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if again := a.mustPool(t, "10.1.1.128/25", ""); again.ID == p.ID {
		t.Errorf("ID %q was used twice", p.ID)
	}
	if err := a.ReleasePool(t.Context(), p.ID); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("second ReleasePool: %v", err)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	a := newAllocator(t, Config{State: Dir(dir)})
	p := a.mustPool(t, "10.0.0.0/24", "10.0.0.64/26")
	a.ask(t, p, "", true)
	a.ask(t, p, "", false)

	a = newAllocator(t, Config{State: Dir(dir)})
	if got := a.ask(t, p, "", false); got != "10.0.0.65/24" {
		t.Errorf("after a restart: %s", got)
	}
	if got := a.ask(t, p, "10.0.0.1", false); !strings.HasPrefix(got, "in-use") {
		t.Errorf("the gateway's address: %s", got)
	}
	if err := a.ReleasePool(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("state %v, %v; want none", files, err)
	}
	if a.Capabilities().RequiresRequestReplay {
		t.Error("it asks for a replay although it remembers")
	}
}

func TestReplay(t *testing.T) {
	a := newAllocator(t, Config{})
	if !a.Capabilities().RequiresRequestReplay {
		t.Error("it remembers nothing and asks for no replay")
	}
	p := a.mustPool(t, "10.0.0.0/29", "")
	for range 5 {
		a.ask(t, p, "", false)
	}
	// The engine was killed and starts: what it had is there for it, and once only.
	again := a.mustPool(t, "10.0.0.0/29", "")
	if again.ID != p.ID {
		t.Errorf("pool %q, was %q", again.ID, p.ID)
	}
	for _, s := range []struct {
		want, answers string
		gateway       bool
	}{
		{"10.0.0.1", "10.0.0.1/29", true},
		{"10.0.0.3", "10.0.0.3/29", false},
		{"10.0.0.3", "in-use: address 10.0.0.3: in use", false},
		{"", "10.0.0.6/29", false},
		{"", "10.0.0.2/29", false}, // nothing else is left, and nobody claimed it
		{"10.0.0.2", "in-use: address 10.0.0.2: in use", false},
	} {
		if got := a.ask(t, again, s.want, s.gateway); got != s.answers {
			t.Errorf("%q answers %q, want %q", s.want, got, s.answers)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	a := newAllocator(t, Config{State: Dir(t.TempDir())})
	pools := []Pool{a.mustPool(t, "", ""), a.mustPool(t, "", "")}
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				got := a.ask(t, pools[i%2], "", false)
				mu.Lock()
				seen[got]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 160 {
		t.Errorf("%d addresses of 160 asked for: one was given away twice, or none", len(seen))
	}
}

func TestConfigThatMakesNoSense(t *testing.T) {
	for _, r := range []Range{{}, {netip.MustParsePrefix("10.0.0.0/24"), 16}, {netip.MustParsePrefix("10.0.0.0/24"), 33}, {netip.MustParsePrefix("10.0.0.1/24"), 28}} {
		if _, err := NewAllocator(t.Context(), Config{Ranges: []Range{r}}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("NewAllocator with %v: %v, want ErrInvalid", r, err)
		}
	}
}

func TestStateFromOutside(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":         "{",
		"another pool":    `{"Version":1,"ID":"b","Prefix":"10.0.0.0/24"}`,
		"another version": `{"Version":9,"ID":"a","Prefix":"10.0.0.0/24"}`,
		"no prefix":       `{"Version":1,"ID":"a"}`,
		"foreign address": `{"Version":1,"ID":"a","Prefix":"10.0.0.0/24","Used":["10.0.1.1"]}`,
		"no order":        `{"Version":1,"ID":"a","Prefix":"10.0.0.0/24","Used":["10.0.0.5","10.0.0.1"]}`,
		"touching":        `{"Version":1,"ID":"a","Prefix":"10.0.0.0/24","Used":["10.0.0.5","10.0.0.6"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "a.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := NewAllocator(t.Context(), Config{State: Dir(dir)}); err == nil || !strings.HasPrefix(err.Error(), "state of pool a: ") {
				t.Errorf("NewAllocator: %v", err)
			}
		})
	}
	// This is what a version before this one wrote.
	dir := t.TempDir()
	const text = `{"Version":1,"ID":"a","Space":"local","Prefix":"10.0.0.0/24","SubPool":"","Used":["10.0.0.1-10.0.0.3"]}`
	if err := os.WriteFile(filepath.Join(dir, "a.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := newAllocator(t, Config{State: Dir(dir)}).ask(t, Pool{ID: "a"}, "", false); got != "10.0.0.4/24" {
		t.Errorf("address %s", got)
	}
}

func BenchmarkRequestAddress(b *testing.B) {
	a, err := NewAllocator(b.Context(), Config{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := a.RequestPool(b.Context(), PoolRequest{AddressSpace: "local", Pool: netip.MustParsePrefix("10.0.0.0/8")})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		got, err := a.RequestAddress(b.Context(), AddressRequest{PoolID: p.ID})
		if err == nil && n%2 == 0 { // holes
			err = a.ReleaseAddress(b.Context(), p.ID, got.Prefix.Addr())
		}
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
}
