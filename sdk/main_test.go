package sdk

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fake is a plugin without methods that remembers what Main did with it.
type fake struct {
	refreshed chan struct{}
	err       error
	closed    bool
}

func (f *fake) Implements() string               { return "VolumeDriver" }
func (f *fake) Methods() map[string]http.Handler { return nil }
func (f *fake) RefreshNow(context.Context) error { f.refreshed <- struct{}{}; return f.err }

func (f *fake) Close(ctx context.Context) error                    { f.closed = ctx.Err() == nil; return nil }
func (f *fake) open(context.Context, *slog.Logger) (Plugin, error) { return f, nil }

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	on   map[string]chan struct{} // closed once the text has the key in it
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	for part, seen := range l.on {
		if strings.Contains(l.text.String(), part) {
			close(seen)
			delete(l.on, part)
		}
	}
	return len(b), nil
}

func TestMainRuns(t *testing.T) {
	dir, err := os.MkdirTemp("", "sdk") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "x.sock")
	f := &fake{refreshed: make(chan struct{}), err: errors.New("disk is away")}
	listening, warned := make(chan struct{}), make(chan struct{})
	out := &lines{on: map[string]chan struct{}{"address=" + socket: listening, `not refreshed" error="disk is away"`: warned}}
	flags := flag.NewFlagSet("x", flag.ContinueOnError)
	root := flags.String("root", "", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	status := make(chan int, 1)
	go func() {
		status <- program{name: "x", open: f.open, flags: flags, out: out}.main(ctx, []string{"start", "-root", "/r", "-socket", socket})
	}()
	wait := func(what string, c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: waited in vain; it said %s", what, out.text.String())
		}
	}
	wait("listening", listening)
	if *root != "/r" {
		t.Errorf("flag of the program is %q", *root)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	wait("refresh", f.refreshed)
	wait("warning", warned)
	cancel()
	if s := <-status; s != 0 {
		t.Errorf("status %d", s)
	}
	if !f.closed {
		t.Error("the plugin was not closed, or had no time for it")
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("socket: %v", err)
	}
}

func TestMainFails(t *testing.T) {
	good := (&fake{}).open
	bad := func(context.Context, *slog.Logger) (Plugin, error) { return nil, errors.New("no disk") }
	for _, tt := range []struct {
		name   string
		open   func(context.Context, *slog.Logger) (Plugin, error)
		args   []string
		status int
		says   string
	}{
		{"other word", good, []string{"stop"}, 2, `x: unknown argument "stop"; usage: x start [flags]`},
		{"other flag", good, []string{"start", "-y"}, 2, "flag provided but not defined: -y"},
		{"help", good, []string{"-h"}, 0, "-socket path"},
		{"plugin", bad, nil, 1, "x: no disk"},
		{"socket", good, []string{"-socket", "relative"}, 1, `x: socket "relative": path is not absolute`},
		{"port", good, []string{"-p", "none"}, 1, `x: listen "127.0.0.1:none": `},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			p := program{name: "x", open: tt.open, flags: flag.NewFlagSet("x", flag.ContinueOnError), out: &out}
			if status := p.main(t.Context(), tt.args); status != tt.status || !strings.Contains(out.String(), tt.says) {
				t.Errorf("status %d, it said %q", status, &out)
			}
		})
	}
}
