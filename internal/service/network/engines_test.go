package network

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/engine"
)

// some are networks of a cluster.
type some []address.Space

func (s some) Networks() []address.Space                 { return s }
func (some) Rename(_, _ string) error                    { return nil }
func (some) Tell(string, map[string]string) error        { return nil }
func (some) DeleteNetwork(context.Context, string) error { return nil }
func (some) Disown(string)                               {}

func lists(w http.ResponseWriter, id string, subnet string) {
	_, _ = fmt.Fprintf(w, `[{"Id": %q, "Name": "blue", "Driver": "remora", "IPAM": {"Config": [{"Subnet": %q}]}}]`, id, subnet)
}

// TestFollowedByAnother: one network of the engine came in the place of another between two looks. The names of its containers are looked for.
func TestFollowedByAnother(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	id := "first"
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { lists(w, id, "10.9.0.0/16") })}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	refused := &refused{log: slog.New(slog.NewTextHandler(io.Discard, nil)), ids: map[string]bool{}}
	called := 0
	f := &follower{
		engine: engine.Engine{Socket: socket}, driver: "remora", refused: refused, log: refused.log, onEngine: map[string]string{},
		spaces:   some{{ID: "0123456789abcdef", Name: "blue", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}},
		followed: func() { called++ },
	}
	for i, want := range []int{1, 1, 2} {
		if i == 2 {
			id = "second"
		}
		if err := f.compare(t.Context()); err != nil {
			t.Fatal(err)
		}
		if called != want {
			t.Errorf("after look %d containers were looked for %d times, want %d", i+1, called, want)
		}
	}
}
