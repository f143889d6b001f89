package volumetest

import (
	"context"
	"iter"
	"sync"

	"github.com/remora-plugins/remora/sdk/volume"
)

// faults is a driver in front of the driver under test that can be told to misbehave. It
// has no Close: the suite decides when the driver itself is closed.
type faults struct {
	volume.Driver

	mu     sync.Mutex
	before func(ctx context.Context, verb, name string) error
	calls  map[string]int
}

// wrap returns f as a driver that has the optional methods of the one behind it.
func (f *faults) wrap() volume.Driver {
	i, inspects := f.Driver.(volume.Inspector)
	p, pings := f.Driver.(volume.Pinger)
	switch {
	case inspects && pings:
		return struct {
			*faults
			inspecting
			pinging
		}{f, inspecting{f, i}, pinging{f, p}}
	case inspects:
		return struct {
			*faults
			inspecting
		}{f, inspecting{f, i}}
	case pings:
		return struct {
			*faults
			pinging
		}{f, pinging{f, p}}
	}
	return f
}

// inject has every call run before first, with the verb in lower case ("volumes" and
// "inspect" and "ping" too); an error of it is answered in the driver's place. nil ends that.
func (f *faults) inject(before func(ctx context.Context, verb, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

// count returns how often a verb reached the driver.
func (f *faults) count(verb string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[verb]
}

func (f *faults) pass(ctx context.Context, verb, name string) error {
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before != nil {
		if err := before(ctx, verb, name); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[verb]++
	return nil
}

func (f *faults) Create(ctx context.Context, name string, opts map[string]string) error {
	if err := f.pass(ctx, "create", name); err != nil {
		return err
	}
	return f.Driver.Create(ctx, name, opts)
}

func (f *faults) Remove(ctx context.Context, name string) error {
	if err := f.pass(ctx, "remove", name); err != nil {
		return err
	}
	return f.Driver.Remove(ctx, name)
}

func (f *faults) Mount(ctx context.Context, name, target string) (string, error) {
	if err := f.pass(ctx, "mount", name); err != nil {
		return "", err
	}
	return f.Driver.Mount(ctx, name, target)
}

func (f *faults) Unmount(ctx context.Context, name, mountpoint string) error {
	if err := f.pass(ctx, "unmount", name); err != nil {
		return err
	}
	return f.Driver.Unmount(ctx, name, mountpoint)
}

func (f *faults) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	if err := f.pass(ctx, "volumes", ""); err != nil {
		return func(yield func(volume.Info, error) bool) { yield(volume.Info{}, err) }
	}
	return f.Driver.Volumes(ctx)
}

func (f *faults) Scope() string {
	if s, ok := f.Driver.(volume.Scoper); ok {
		return s.Scope()
	}
	return "local"
}

// inspecting is faults before what an Inspector has more than a driver.
type inspecting struct {
	f *faults
	i volume.Inspector
}

func (x inspecting) Inspect(ctx context.Context, name string) (volume.Info, error) {
	if err := x.f.pass(ctx, "inspect", name); err != nil {
		return volume.Info{}, err
	}
	return x.i.Inspect(ctx, name)
}

// pinging is faults before what a Pinger has more than a driver.
type pinging struct {
	f *faults
	p volume.Pinger
}

func (x pinging) Ping(ctx context.Context) error {
	if err := x.f.pass(ctx, "ping", ""); err != nil {
		return err
	}
	return x.p.Ping(ctx)
}

// scoped is a driver with a scope of the suite's choice.
type scoped struct {
	volume.Driver
	scope string
}

func (s scoped) Scope() string { return s.scope }
