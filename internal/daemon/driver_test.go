package daemon

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"sync"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// gate is where the calls of a slow driver wait.
type gate struct {
	entered chan struct{}
	open    chan struct{}
}

// memory is a driver that remembers names, and does nothing else but what a test wants.
type memory struct {
	mu     *sync.Mutex
	names  map[string]bool
	gate   *gate
	closed func()
	ping   func(context.Context) error
	list   func()
}

func (d memory) Create(ctx context.Context, name string, _ map[string]string) error {
	if d.gate != nil {
		d.gate.entered <- struct{}{}
		<-d.gate.open
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[name] = true
	return ctx.Err()
}

func (d memory) Remove(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.names[name] {
		return errdefs.ErrNotFound
	}
	delete(d.names, name)
	return nil
}

func (d memory) Mount(context.Context, string, string) (string, error) { return "/", nil }
func (d memory) Unmount(context.Context, string, string) error         { return nil }

func (d memory) Volumes(context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		if d.list != nil {
			d.list()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for name := range d.names {
			if !yield(volume.Info{Name: name}, nil) {
				return
			}
		}
	}
}

func (d memory) Ping(ctx context.Context) error {
	if d.ping != nil {
		return d.ping(ctx)
	}
	return nil
}

func (d memory) Close() error {
	if d.closed != nil {
		d.closed()
	}
	return nil
}

func newMemory() memory { return memory{mu: &sync.Mutex{}, names: map[string]bool{}} }

// slowDriver is a driver whose Create tells that it was entered, and waits for the gate to
// open. What it remembers outlives its pools.
func slowDriver() (catalog.Volume, *gate) {
	d := newMemory()
	d.gate = &gate{entered: make(chan struct{}), open: make(chan struct{})}
	return catalog.NewVolume("slow", "waits", func(context.Context, struct{}, catalog.Env) (volume.Driver, error) {
		return d, nil
	}), d.gate
}

// stuckConfig is something to change.
type stuckConfig struct {
	Hang bool   `opt:"hang" help:"wait before it is there"`
	Text string `opt:"text" help:"something to change"`
}

// stuckDriver is a driver that does all but end: its Close waits for the gate, nil being
// one that never opens. So does its beginning where that is asked for; opening tells of it.
func stuckDriver(gate, opening chan struct{}) catalog.Volume {
	return catalog.NewVolume("stuck", "never ends", func(_ context.Context, c stuckConfig, _ catalog.Env) (volume.Driver, error) {
		if c.Hang {
			close(opening)
			<-gate
		}
		d := newMemory()
		d.closed = func() { <-gate }
		return d, nil
	})
}

// deadDriver is a driver whose storage does not answer until the gate opens.
func deadDriver(gate chan struct{}) catalog.Volume {
	return catalog.NewVolume("dead", "does not answer", func(context.Context, struct{}, catalog.Env) (volume.Driver, error) {
		d := newMemory()
		d.ping = func(context.Context) error { <-gate; return nil }
		d.list = func() { <-gate }
		return d, nil
	})
}

// fickleConfig breaks what the pool needs to start, behind the driver's back.
type fickleConfig struct {
	Break bool   `opt:"break" help:"put a file where the mountpoints are"`
	Text  string `opt:"text" help:"something to change"`
}

// fickleDriver is a driver that opens with any configuration. It counts those that are open.
func fickleDriver() (catalog.Volume, func() int) {
	var mu sync.Mutex
	open := 0
	count := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		open += n
		return open
	}
	return catalog.NewVolume("fickle", "opens, and starts or does not", func(_ context.Context, c fickleConfig, env catalog.Env) (volume.Driver, error) {
		root := filepath.Join(env.RunDir, "mounts", env.PoolName)
		if err := os.RemoveAll(root); err != nil {
			return nil, err
		}
		if c.Break {
			if err := os.WriteFile(root, nil, 0o600); err != nil {
				return nil, err
			}
		}
		d := newMemory()
		count(1)
		d.closed = func() { count(-1) }
		return d, nil
	}), func() int { return count(0) }
}
