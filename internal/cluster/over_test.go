package cluster

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/link"
	"github.com/remora-plugins/remora/internal/cluster/password"
	"github.com/remora-plugins/remora/internal/cluster/record"
)

// real is a host on loopback, with links of package link.
type real struct {
	c       *Cluster
	l       *link.Links
	address string
	secret  atomic.Pointer[password.Key]
}

// password has the host ask for one from now on.
func (r *real) password(t *testing.T, text string) {
	t.Helper()
	key, err := password.Derive(text)
	if err != nil {
		t.Fatal(err)
	}
	r.secret.Store(&key)
}

func newReal(t *testing.T, name string, dumb bool, change ...func(*Config)) *real {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &real{address: listener.Addr().String()}
	m := record.Member{Nickname: name, Control: []netip.AddrPort{netip.MustParseAddrPort(r.address)}}
	if dumb {
		m.Control = nil
	}
	conf := Config{Root: root, Member: m}
	for _, f := range change {
		f(&conf)
	}
	if r.c, err = Open(context.WithoutCancel(t.Context()), conf); err != nil {
		t.Fatal(err)
	}
	cfg := r.c.LinkConfig()
	cfg.Password = r.secret.Load
	if cfg.Listener = listener; dumb {
		cfg.Listener = nil
		_ = listener.Close()
	}
	if r.l, err = link.Open(context.WithoutCancel(t.Context()), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.c.Close(); _ = r.l.Close(); _ = root.Close() })
	if err := r.c.Start(Over(r.l)); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRealLinks: four hosts on real links, two of which can only dial.
func TestRealLinks(t *testing.T) {
	hosts := []*real{newReal(t, "a", false)}
	if err := hosts[0].c.Found(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "nat1", "nat2"} {
		h := newReal(t, name, name > "c")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := h.c.Join(ctx, []string{hosts[0].address})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	soon(t, "all know each other", 20*time.Second, func() bool {
		for _, h := range hosts {
			n := 0
			for _, m := range h.c.Members() {
				if m.Reachable {
					n++
				}
			}
			if n != len(hosts) {
				return false
			}
		}
		return true
	})
	if err := hosts[2].c.Store().Put(record.KindName, "x", record.Name{Names: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	took := soon(t, "a name is on all", 10*time.Second, func() bool {
		for _, h := range hosts {
			if h.c.Store().Root() != hosts[0].c.Store().Root() || len(h.c.Store().Records(record.KindName)) != 1 {
				return false
			}
		}
		return true
	})
	t.Logf("a name is on all after %v", took)

	// Another cluster is refused, with what it is.
	other := newReal(t, "other", false)
	if err := other.c.Found(); err != nil {
		t.Fatal(err)
	}
	if err := other.c.Connect([]string{hosts[1].address}, false); err != nil {
		t.Fatal(err)
	}
	soon(t, "it is refused, and told why", 20*time.Second, func() bool {
		w := other.c.Status().Wrong
		return len(w) > 0 && strings.Contains(w[0], hosts[0].c.ID().String()+", 4 hosts, founded ")
	})

	if err := hosts[1].c.Remove(hosts[3].c.Self()); err != nil {
		t.Fatal(err)
	}
	took = soon(t, "the removed one has no links", 30*time.Second, func() bool { return len(hosts[3].l.Peers()) == 0 })
	t.Logf("the removed one has no links after %v", took)
	soon(t, "three are left", 30*time.Second, func() bool {
		return len(hosts[0].c.Members()) == 3 && len(hosts[2].c.Members()) == 3
	})
}
