package link

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/remora-plugins/remora/internal/cluster/password"
	"github.com/remora-plugins/remora/internal/cluster/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func hostOfKey(k ed25519.PrivateKey) (h record.Host) {
	copy(h[:], k.Public().(ed25519.PublicKey))
	return h
}

var (
	secret  = &password.Key{1}
	wrong   = &password.Key{2}
	cluster = Summary{Cluster: record.Cluster{1}, Hosts: 3, Founded: time.Unix(1_800_000_000, 0).UTC()}
)

// testHost is a host, as what it is told changes in the course of a test.
type testHost struct {
	*Links
	address string

	mu        sync.Mutex
	cluster   Summary
	password  *password.Key
	standing  map[record.Host]Standing
	addresses map[record.Host][]netip.AddrPort
}

func (h *testHost) set(host record.Host, s Standing) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.standing[host] = s
}

type option func(*testHost, *Config)

func in(c Summary) option { return func(h *testHost, _ *Config) { h.cluster = c } }

func with(k *password.Key) option { return func(h *testHost, _ *Config) { h.password = k } }

func knows(s Standing, others ...byte) option {
	return func(h *testHost, _ *Config) {
		for _, o := range others {
			h.standing[hostOfKey(key(o))] = s
		}
	}
}

func deaf(_ *testHost, cfg *Config) {
	if cfg.Listener != nil {
		cfg.Listener.Close()
	}
	cfg.Listener = nil
}

func newHost(t testing.TB, seed byte, options ...option) *testHost {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newHostOn(t, seed, listener, options...)
}

func newHostOn(t testing.TB, seed byte, listener net.Listener, options ...option) *testHost {
	t.Helper()
	h := &testHost{
		cluster: cluster, password: secret, address: listener.Addr().String(),
		standing: map[record.Host]Standing{}, addresses: map[record.Host][]netip.AddrPort{},
	}
	cfg := Config{
		Key: key(seed), Listener: listener, Log: slog.New(slog.DiscardHandler),
		Cluster:   func() Summary { h.mu.Lock(); defer h.mu.Unlock(); return h.cluster },
		Password:  func() *password.Key { h.mu.Lock(); defer h.mu.Unlock(); return h.password },
		Standing:  func(o record.Host) Standing { h.mu.Lock(); defer h.mu.Unlock(); return h.standing[o] },
		Addresses: func(o record.Host) []netip.AddrPort { h.mu.Lock(); defer h.mu.Unlock(); return h.addresses[o] },
	}
	if os.Getenv("LINK_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", hostOfKey(cfg.Key).Short())
	}
	for _, o := range options {
		o(h, &cfg)
	}
	links, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Links = links
	t.Cleanup(func() { links.Close() })
	return h
}

func (h *testHost) mustDial(t testing.TB, to *testHost) Peer {
	t.Helper()
	p, err := h.Dial(t.Context(), to.address)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// until waits for something to become so.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func (h *testHost) linked(to *testHost) bool {
	_, ok := h.Peer(to.Self())
	return ok
}

// message waits for one.
func (h *testHost) message(t *testing.T) Packet {
	t.Helper()
	select {
	case p := <-h.Packets():
		return p
	case <-time.After(10 * time.Second):
		t.Fatal("no message within 10 s")
		panic("not reached")
	}
}

// echo answers on all streams with what it reads.
func (h *testHost) echo(t *testing.T) {
	ctx := t.Context()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-h.Streams():
				go func() {
					_, _ = io.Copy(s, s)
					_ = s.Close()
				}()
			}
		}
	}()
}

func openStream(t *testing.T, from *testHost, to record.Host) *Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := from.OpenStream(ctx, to)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
