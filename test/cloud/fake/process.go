package fake

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/test/cloud/machine"
)

// Start serves a handler on an address until ctx ends, and returns its URL.
func Start(ctx context.Context, addr string, h http.Handler) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { srv.Close() })
	go srv.Serve(l)
	return "http://" + l.Addr().String(), nil
}

// Hosts are the machines of a cloud that is a process of its own. Other processes on the
// same computer use their devices by the folders.
type Hosts struct {
	mu       sync.Mutex
	machines []*machine.Machine
}

// Add makes a machine below dir; an empty dir is no machine.
func (h *Hosts) Add(dir string) (*machine.Machine, error) {
	if dir == "" {
		return nil, nil
	}
	m, err := machine.New(dir)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.machines = append(h.machines, m)
	return m, nil
}

// Close takes all disks from all machines.
func (h *Hosts) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, m := range h.machines {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Server is a cloud as a process of its own.
type Server struct {
	// API is the cloud's own, Control the one by which tests rule it.
	API, Control http.Handler
	Hosts        *Hosts
}

// Run is the main of a fake cloud. It reads the flags of all clouds and those that make
// has added, and serves until a signal comes. What it prints first is one line of JSON
// that says where: {"api":"http://…","control":"http://…"}.
func Run(name string, args []string, stdout, stderr io.Writer,
	flags func(*flag.FlagSet), make func(context.Context, Clock) (Server, error),
) error {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	listen := fs.String("listen", "127.0.0.1:0", "address of the API")
	control := fs.String("control", "127.0.0.1:0", "address by which tests set faults and read counters")
	manual := fs.Bool("manual-clock", false, "let time stand still until it is advanced through the control address")
	flags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var clock Clock = System{}
	if *manual {
		clock = NewManual(time.Now())
	}
	s, err := make(ctx, clock)
	if err != nil {
		return err
	}
	at := map[string]string{}
	for what, l := range map[string]struct {
		addr string
		h    http.Handler
	}{"api": {*listen, s.API}, "control": {*control, s.Control}} {
		if at[what], err = Start(ctx, l.addr, l.h); err != nil {
			return err
		}
	}
	line, err := json.Marshal(at)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, string(line))
	<-ctx.Done()
	return s.Hosts.Close()
}
