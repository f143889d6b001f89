package check

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// LoadOptions say how a soak is to be.
type LoadOptions struct {
	// Duration is how long; 0 is 30 seconds.
	Duration time.Duration
	// Clients is how many callers there are at once; 0 is 4.
	Clients int
}

// LoadReport is what a soak measured.
type LoadReport struct {
	Clients int     `json:"clients"`
	Seconds float64 `json:"seconds"`
	Calls   int     `json:"calls"`
	Errors  int     `json:"errors"`
	// Methods has the latencies of each method.
	Methods []Latency `json:"methods"`
	// Failed are the first failures, one line each.
	Failed []string `json:"failed,omitempty"`
	// Left is what could not be removed again.
	Left []string `json:"left,omitempty"`
}

// Latency is how long the calls of one method took, in milliseconds.
type Latency struct {
	Method string  `json:"method"`
	Calls  int     `json:"calls"`
	Errors int     `json:"errors"`
	P50    float64 `json:"p50_ms"`
	P90    float64 `json:"p90_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
}

// soak collects what the callers measure.
type soak struct {
	t     *T
	mu    sync.Mutex
	took  map[string][]time.Duration
	wrong map[string]int
	lines []string
}

// Load has several callers use the plugin at once, as containers that come and go do, each
// with things of its own. What was made is removed again. When ctx ends it stops early.
func (p *Plugin) Load(ctx context.Context, o LoadOptions) (*LoadReport, error) {
	if o.Duration <= 0 {
		o.Duration = 30 * time.Second
	}
	if o.Clients <= 0 {
		o.Clients = 4
	}
	kinds, err := p.Kinds(ctx)
	if err != nil {
		return nil, err
	}
	var loops []func(*soak, int) func()
	kind := ""
	for _, k := range []struct {
		kind string
		loop func(*soak, int) func()
	}{{Volume, soakVolume}, {Network, soakNetwork}, {IPAM, soakIPAM}, {AuthZ, soakAuthZ}} {
		if slices.Contains(kinds, k.kind) {
			loops, kind = append(loops, k.loop), k.kind
		}
	}
	if len(loops) == 0 {
		return nil, errdefs.Errorf(errdefs.ErrUnsupported, "plugin %q: there is no load for what it implements: %q", p.endpoint.Name, kinds)
	}
	long := *p
	long.options.Timeout = o.Duration + 10*time.Minute
	t := newT(ctx, &long, Case{ID: "load", Kind: kind})
	s := &soak{t: t, took: map[string][]time.Duration{}, wrong: map[string]int{}}
	start := time.Now()
	t.do(func(*T) { s.run(ctx, loops, o, start) })
	seconds := time.Since(start).Seconds()
	t.cleanUp(ctx)
	r := s.report()
	r.Clients, r.Seconds, r.Left = o.Clients, seconds, t.result.Left
	return r, nil
}

// Soak runs a load, and puts what it measured into the report.
func (p *Plugin) Soak(ctx context.Context, r *Report, o LoadOptions) error {
	load, err := p.Load(ctx, o)
	if err != nil {
		return err
	}
	r.Load, r.Interrupted = load, r.Interrupted || ctx.Err() != nil
	r.judge()
	return nil
}

func (s *soak) run(ctx context.Context, loops []func(*soak, int) func(), o LoadOptions, start time.Time) {
	var all sync.WaitGroup
	for i := range o.Clients {
		for k, loop := range loops {
			all.Go(func() {
				once := loop(s, i*len(loops)+k)
				for once != nil && ctx.Err() == nil && time.Since(start) < o.Duration {
					once()
				}
			})
		}
	}
	all.Wait()
}

// call measures one call, and tells whether it succeeded. After a failure the caller waits a
// little, or those of a dead plugin would be all that is measured.
func (s *soak) call(method string, f func() error) bool {
	start := time.Now()
	err := f()
	took := time.Since(start)
	if err != nil && s.t.ctx.Err() != nil {
		return false
	}
	s.mu.Lock()
	s.took[method] = append(s.took[method], took)
	if err != nil {
		s.wrong[method]++
		if len(s.lines) < 10 {
			s.lines = append(s.lines, s.t.p.fit(fmt.Sprintf("%s: %s", method, errdefs.OneLine(err.Error()))))
		}
	}
	s.mu.Unlock()
	if err != nil {
		time.Sleep(100 * time.Millisecond)
	}
	return err == nil
}

func (s *soak) report() *LoadReport {
	r := &LoadReport{Methods: []Latency{}, Failed: s.lines}
	for method, took := range s.took {
		slices.Sort(took)
		at := func(part float64) float64 {
			i := min(len(took)-1, int(part*float64(len(took))))
			return float64(took[i].Microseconds()) / 1000
		}
		r.Methods = append(r.Methods, Latency{method, len(took), s.wrong[method], at(.5), at(.9), at(.99), at(1)})
		r.Calls += len(took)
		r.Errors += s.wrong[method]
	}
	slices.SortFunc(r.Methods, func(a, b Latency) int {
		if a.Method < b.Method {
			return -1
		}
		return 1
	})
	return r
}

func soakVolume(s *soak, i int) func() {
	t, v := s.t, s.t.c.Volume()
	name := t.name(fmt.Sprint("load", i))
	if !s.call("VolumeDriver.Create", func() error { return t.tryCreate(name) }) {
		return nil
	}
	n := 0
	return func() {
		n++
		id := t.mountID(i<<32 + n)
		s.call("VolumeDriver.Get", func() error { _, err := v.Get(t.ctx, name); return err })
		mounted := s.call("VolumeDriver.Mount", func() error { _, err := t.tryMount(v, name, id); return err })
		s.call("VolumeDriver.List", func() error { _, err := v.List(t.ctx); return err })
		s.call("VolumeDriver.Get", func() error { _, err := v.Get(t.ctx, name); return err })
		if !mounted {
			return
		}
		s.call("VolumeDriver.Unmount", func() error {
			err := t.tryUnmount(v, name, id)
			if err == nil {
				m := t.track(name)
				t.mu.Lock()
				delete(m.mounts, id)
				t.mu.Unlock()
			}
			return err
		})
	}
}

func soakNetwork(s *soak, i int) func() {
	t, c := s.t, s.t.c.Network()
	n := t.network(i)
	if !s.call("NetworkDriver.CreateNetwork", func() error { return t.tryNetwork(n) }) {
		return nil
	}
	k := 0
	return func() {
		k++
		ep := t.endpoint(n, k%200)
		ep.ID = t.hex(64, "load", i, k)
		if !s.call("NetworkDriver.CreateEndpoint", func() error { _, err := t.tryEndpoint(n, ep); return err }) {
			return
		}
		s.call("NetworkDriver.Join", func() error { _, err := c.Join(t.ctx, n.ID, ep.ID, t.sandbox(i)); return err })
		s.call("NetworkDriver.EndpointOperInfo", func() error { _, err := c.Info(t.ctx, n.ID, ep.ID); return err })
		s.call("NetworkDriver.Leave", func() error { return c.Leave(t.ctx, n.ID, ep.ID) })
		if s.call("NetworkDriver.DeleteEndpoint", func() error { return t.tryDeleteEndpoint(n, ep) }) {
			t.forget(n, ep)
		}
	}
}

func soakIPAM(s *soak, i int) func() {
	t, c := s.t, s.t.c.IPAM()
	var p client.Pool
	if !s.call("IpamDriver.RequestPool", func() (err error) {
		space, _, err := c.AddressSpaces(t.ctx)
		if err == nil {
			p, err = t.tryPool(client.PoolRequest{AddressSpace: space, Prefix: t.subnetOf(i)})
		}
		return err
	}) {
		return nil
	}
	return func() {
		var a netip.Addr
		if s.call("IpamDriver.RequestAddress", func() error {
			got, err := t.tryAddress(client.AddressRequest{PoolID: p.ID})
			a = got.Addr()
			return err
		}) {
			s.call("IpamDriver.ReleaseAddress", func() error { return t.tryRelease(p, a) })
		}
	}
}

func soakAuthZ(s *soak, i int) func() {
	n := 0
	return func() {
		n++
		r := probes[(i+n)%len(probes)].call()
		s.call("AuthZPlugin.AuthZReq", func() error { _, _, err := s.t.ask(r); return err })
		s.call("AuthZPlugin.AuthZRes", func() error { return s.t.c.Call(s.t.ctx, "AuthZPlugin.AuthZRes", apiRequest(r), nil) })
	}
}
