package address

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestBlocksOfTwoHosts(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	s := a.network("blue")
	l.gossip()
	if s.Prefixes[0] != pfx("10.32.0.0/16") {
		t.Errorf("subnet %s", s.Prefixes[0])
	}
	for i, h := range l.hosts {
		gw, err := h.Allocate(t.Context(), Want{Space: s.ID, Subnet: s.Prefixes[0], Key: GatewayKey})
		must(t, err)
		if want := []string{"10.32.0.1/16", "10.32.128.1/16"}[i]; gw.String() != want {
			t.Errorf("gateway %s, want %s", gw, want)
		}
		if again, err := h.Allocate(t.Context(), Want{Space: s.ID, Subnet: s.Prefixes[0], Key: GatewayKey}); err != nil || again != gw {
			t.Errorf("gateway again: %s, %v", again, err)
		}
		if got, err := h.any(s); err != nil || got != gw.Addr().Next() {
			t.Errorf("first address %s, %v", got, err)
		}
	}
	c := l.join(b)
	l.gossip()
	if got, err := c.any(s); err != nil || got != addr("10.32.192.1") && got != addr("10.32.64.1") {
		t.Errorf("third host: %s, %v", got, err)
	}
	l.gossip()
	l.same()
	owned := a.Owned(s.ID)
	if len(owned) < 3 {
		t.Errorf("owned: %v", owned)
	}
}

func TestNamedAddress(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	s := a.network("blue")
	l.gossip()
	want := func(h *labHost, at string) error {
		t.Helper()
		p, err := h.Allocate(t.Context(), Want{Space: s.ID, Subnet: s.Prefixes[0], Address: addr(at), Key: "c"})
		if err == nil && p.Addr() != addr(at) {
			t.Errorf("got %s, want %s", p, at)
		}
		return err
	}
	must(t, want(a, "10.32.0.77"))
	for at, class := range map[string]error{
		"10.32.0.77": errdefs.ErrInUse, "10.33.0.1": errdefs.ErrInvalid, "10.32.0.0": errdefs.ErrInvalid, "10.32.255.255": errdefs.ErrInvalid,
	} {
		if err := want(a, at); !errors.Is(err, class) {
			t.Errorf("%s: %v, want %v", at, err, class)
		}
	}
	if err := want(b, "10.32.0.78"); !errors.Is(err, errdefs.ErrInUse) || !strings.Contains(err.Error(), "host0") {
		t.Errorf("an address in another host's block: %v", err)
	}
	must(t, want(b, "10.32.5.9")) // of a block that nobody uses: it moves
	if err := want(a, "10.32.5.10"); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("an address of a block that was given away: %v", err)
	}
	must(t, a.Release(t.Context(), s.ID, addr("10.32.0.77")))
	must(t, want(a, "10.32.0.77")) // who names it need not wait
}

func TestRange(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	s, err := a.CreateNetwork(t.Context(), NewNetwork{Name: "blue", Network: record.Network{
		Subnets: []netip.Prefix{pfx("10.9.0.0/16")}, Range: []netip.Prefix{pfx("10.9.4.0/22")},
	}})
	must(t, err)
	l.gossip()
	for _, h := range []*labHost{a, b, a, b} {
		if got, err := h.any(s); err != nil || !pfx("10.9.4.0/22").Contains(got) {
			t.Errorf("%s, %v", got, err)
		}
	}
}

func TestSmallSubnet(t *testing.T) {
	l := newLab(t, 3)
	s, err := l.hosts[0].CreateNetwork(t.Context(), NewNetwork{Name: "blue", Network: record.Network{Subnets: []netip.Prefix{pfx("192.0.2.0/24")}}})
	must(t, err)
	l.gossip()
	seen := map[netip.Addr]bool{}
	for _, h := range l.hosts {
		got, err := h.any(s)
		must(t, err)
		seen[got] = true
	}
	l.gossip()
	for _, h := range l.hosts {
		for {
			got, err := h.any(s)
			if err != nil {
				if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "all that it has is in use") {
					t.Errorf("exhaustion: %v", err)
				}
				break
			}
			if seen[got] {
				t.Fatalf("%s twice", got)
			}
			seen[got] = true
		}
	}
	if len(seen) != 8*30 {
		t.Errorf("%d addresses of 8 blocks", len(seen))
	}
}

func TestCutOffHostSaysSo(t *testing.T) {
	l := newLab(t, 2)
	s := l.hosts[0].network("blue")
	l.gossip()
	l.cutOff[l.hosts[1].store.self] = 1
	_, err := l.hosts[1].any(s)
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "host0: not reachable") || len(errdefs.Hints(err)) == 0 {
		t.Errorf("%v, hints %q", err, errdefs.Hints(err))
	}
}

func TestFreedAddressesRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1)
		a := l.hosts[0]
		s, err := a.CreateNetwork(t.Context(), NewNetwork{Name: "blue", Network: record.Network{Subnets: []netip.Prefix{pfx("192.0.2.0/29")}}})
		must(t, err)
		var all []netip.Addr
		for range 6 {
			got, err := a.any(s)
			must(t, err)
			all = append(all, got)
		}
		for _, i := range []int{3, 1, 4} {
			must(t, a.Release(t.Context(), s.ID, all[i]))
			time.Sleep(time.Minute)
		}
		if _, err := a.any(s); !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "free again in 2m0s") {
			t.Errorf("while they rest: %v", err)
		}
		a.kill()
		a.start()
		time.Sleep(2 * time.Minute)
		for _, i := range []int{3, 1, 4} {
			if got, err := a.any(s); err != nil || got != all[i] {
				t.Errorf("got %s, %v, want %s", got, err, all[i])
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1)
		a := l.hosts[0]
		s := a.network("blue")
		var all []netip.Addr
		for range 3 {
			got, err := a.any(s)
			must(t, err)
			all = append(all, got)
		}
		time.Sleep(time.Second)
		look := func(in ...netip.Addr) []netip.Addr {
			t.Helper()
			freed, err := a.Reconcile(t.Context(), time.Now(), in, func(key string) bool { return key == "kept" })
			must(t, err)
			return freed
		}
		kept, err := a.Allocate(t.Context(), Want{Space: s.ID, Subnet: s.Prefixes[0], Key: "kept"})
		must(t, err)
		asked := time.Now()
		young, err := a.any(s)
		must(t, err)
		if freed := look(all[0], all[1]); freed != nil {
			t.Errorf("freed at the first look: %s", freed)
		}
		if freed := look(all[0]); freed != nil {
			t.Errorf("freed after a moment: %s", freed)
		}
		time.Sleep(time.Minute)
		if freed, err := a.Reconcile(t.Context(), asked, []netip.Addr{all[0]}, nil); err != nil || freed != nil {
			t.Errorf("freed by a list of before: %s, %v", freed, err)
		}
		if freed := look(all[0], all[1], young); !slices.Equal(freed, []netip.Addr{all[2]}) {
			t.Errorf("freed %s, want %s", freed, all[2])
		}
		if out := a.Addresses(); len(out) != 4 || !slices.ContainsFunc(out, func(x Address) bool { return x.Address == kept.Addr() }) {
			t.Errorf("out: %v", out)
		}
	})
}

func TestFetchBeforeItIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 2)
		a, b := l.hosts[0], l.hosts[1]
		s, err := a.CreateNetwork(t.Context(), NewNetwork{Name: "blue", Network: record.Network{Subnets: []netip.Prefix{pfx("192.0.2.0/24")}}})
		must(t, err)
		l.gossip()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { b.Run(ctx); close(done) }()
		_, err = b.any(s)
		must(t, err)
		for range 95 {
			_, err := b.any(s)
			must(t, err)
		}
		time.Sleep(time.Second)
		room := 0
		for _, o := range b.Owned(s.ID) {
			if o.Owner == b.store.self {
				room += 1 << (32 - o.Prefix.Bits())
			}
		}
		if room <= 128 {
			t.Errorf("room for %d addresses, 96 of which are out", room)
		}
		cancel()
		<-done
	})
}

// TestKilled ends the allocator between any two writes of its file, and in the middle of one: what was answered is
// there afterwards.
func TestKilled(t *testing.T) {
	l := newLab(t, 1)
	a := l.hosts[0]
	s := a.network("blue")
	var whole []int64
	for range 20 {
		_, err := a.any(s)
		must(t, err)
		whole = append(whole, a.ledger.end)
	}
	a.kill()
	data, err := os.ReadFile(filepath.Join(a.dir, ledgerName))
	must(t, err)
	step := int64(1)
	if testing.Short() {
		step = 7
	}
	for size := int64(0); size <= whole[len(whole)-1]; size += step {
		want := 0
		for _, end := range whole {
			if end <= size {
				want++
			}
		}
		for _, tail := range []string{"", strings.Repeat("\x00", 100), "RMA1\xff\xff\xff\xff", "RMA1garbage that was there"} {
			must(t, os.WriteFile(filepath.Join(a.dir, ledgerName), append(data[:size:size], tail...), 0o600))
			root, err := os.OpenRoot(a.dir)
			must(t, err)
			b, err := New(Config{Root: root, Store: a.store, Asker: a})
			if err != nil {
				t.Fatalf("cut after %d bytes: %v", size, err)
			}
			if n := len(b.Addresses()); n != want {
				t.Fatalf("cut after %d bytes: %d addresses, want %d", size, n, want)
			}
			must(t, b.Close())
			must(t, root.Close())
		}
	}
	data[whole[4]+30] ^= 1
	must(t, os.WriteFile(filepath.Join(a.dir, ledgerName), data, 0o600))
	root, err := os.OpenRoot(a.dir)
	must(t, err)
	defer root.Close()
	if _, err := New(Config{Root: root, Store: a.store, Asker: a}); err == nil || !strings.Contains(err.Error(), "damaged") || errdefs.Hints(err) == nil {
		t.Errorf("damage in the middle: %v", err)
	}
}

func TestLedgerIsWrittenAnew(t *testing.T) {
	l := newLab(t, 1)
	a := l.hosts[0]
	s := a.network("blue")
	kept, err := a.any(s)
	must(t, err)
	a.ledger.anew, a.ledger.least = 4096, 4096
	for range 200 {
		got, err := a.any(s)
		must(t, err)
		must(t, a.Release(t.Context(), s.ID, got))
	}
	if a.ledger.seq > 150 {
		t.Errorf("%d entries in the file", a.ledger.seq)
	}
	before := a.Addresses()
	a.kill()
	a.start()
	after := a.Addresses()
	if len(after) != 1 || after[0].Address != kept || len(before) != 1 {
		t.Errorf("%v, before %v", after, before)
	}
	if _, err := a.any(s); err != nil {
		t.Error(err)
	}
}

func TestFullDisk(t *testing.T) {
	l := newLab(t, 1)
	a := l.hosts[0]
	s := a.network("blue")
	first, err := a.any(s)
	must(t, err)
	f := a.ledger.f
	ro, err := os.Open(filepath.Join(a.dir, ledgerName)) // nothing can be written to it
	must(t, err)
	defer ro.Close()
	a.ledger.f = ro
	if got, err := a.any(s); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("%s, %v although it is not on disk", got, err)
	}
	a.ledger.f = f
	second, err := a.any(s)
	must(t, err)
	a.kill()
	a.start()
	if out := a.Addresses(); len(out) != 2 || out[0].Address != first || out[1].Address != second {
		t.Errorf("%v, want %s and %s", out, first, second)
	}
}

func BenchmarkAllocate(b *testing.B) {
	dir := b.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	m := newMemory(hostNumber(0))
	_ = m.Put(record.KindMember, "", record.Member{})
	a, err := New(Config{Root: root, Store: m})
	if err != nil {
		b.Fatal(err)
	}
	s, err := a.CreateNetwork(b.Context(), NewNetwork{Name: "blue", Network: record.Network{Subnets: []netip.Prefix{pfx("10.0.0.0/8")}}})
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := a.Allocate(b.Context(), Want{Space: s.ID, Subnet: s.Prefixes[0], Key: "c"}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	if err := a.Close(); err != nil {
		b.Fatal(err)
	}
}
