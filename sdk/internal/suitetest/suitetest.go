// Package suitetest is what the conformance suites have in common: cases by name, on the
// driver itself and over the wire, and the plugin and the engine's end of the wire.
package suitetest

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/internal/leaktest"
)

// Cases are cases by name. A C says how to get at a driver.
type Cases[C any] map[string]func(t *testing.T, c C)

// Suite is the cases for one kind of driver. A name is there once in all of them.
type Suite[C any] struct {
	// Name is that of the package, for messages.
	Name string
	// Direct are the cases that call the driver itself.
	Direct []Cases[C]
	// Wire are the cases that call it as an engine does.
	Wire []Cases[C]
}

// Run runs every case as a subtest of t, in the order of names. A case that leaves
// something behind fails. One that deviates names is skipped, with the reason given there;
// a name that is no case's, or no reason, ends t.
func (s Suite[C]) Run(t *testing.T, c C, deviates map[string]string) {
	t.Helper()
	known := map[string]bool{}
	direct, wire := s.join(t, known, s.Direct), s.join(t, known, s.Wire)
	for name, reason := range deviates {
		if !known[name] || strings.TrimSpace(reason) == "" {
			t.Fatalf("%s: Deviates[%q] = %q: want the name of a case, and a reason", s.Name, name, reason)
		}
	}
	t.Run("direct", func(t *testing.T) { direct.run(t, c, deviates) })
	t.Run("wire", func(t *testing.T) { wire.run(t, c, deviates) })
}

// join makes one of several Cases and adds their names to known.
func (s Suite[C]) join(t *testing.T, known map[string]bool, several []Cases[C]) Cases[C] {
	t.Helper()
	all := Cases[C]{}
	for _, cases := range several {
		for name, run := range cases {
			if known[name] {
				t.Fatalf("%s: two cases are called %q", s.Name, name)
			}
			known[name], all[name] = true, run
		}
	}
	return all
}

func (cases Cases[C]) run(t *testing.T, c C, deviates map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			if reason, ok := deviates[name]; ok {
				t.Skip("deviates: " + reason)
			}
			leaktest.Check(t)
			cases[name](t, c)
		})
	}
}

// Socket returns the path for a socket, in a directory of its own that goes with the test.
func Socket(t *testing.T) string {
	t.Helper()
	// The path of a socket is short, and that of a test's own directory is not.
	dir, err := os.MkdirTemp("", "suite-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "p.sock")
}

// Serve serves p on the socket, and returns the client that an engine has of it. A call
// takes timeout at the most; zero is as long as an engine waits. stop ends both and leaves
// p and the socket's directory as they are; it is called once, before the test has ended.
func Serve(t *testing.T, socket string, p sdk.Plugin, log *slog.Logger, timeout time.Duration) (c *client.Client, stop func()) {
	t.Helper()
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: socket})
	if err != nil {
		t.Fatalf("ListenUnix: %v", err)
	}
	c, err = client.New(client.Endpoint{Name: "test", Addr: "unix://" + socket}, client.Options{Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- sdk.New(sdk.Options{Logger: log}, p).Serve(ctx, l) }()
	return c, func() {
		_ = c.Close() // returns nil
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}
