package usage

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	// age is how old a figure may be before the files are counted again for who asks.
	age = 10 * time.Minute
	// forget is how long a figure is remembered that nobody asks for.
	forget = time.Hour
)

// Cache remembers how large the volumes of a pool are. It counts only for who asks, one volume
// at a time, at the lowest priority, and nobody waits for it.
type Cache struct {
	log  *slog.Logger
	ctx  context.Context //nolint:containedctx // that of the counting, which Close ends
	stop context.CancelFunc

	mu      sync.Mutex
	figures map[string]*figure
	queue   []string
	working bool
	closed  bool
	workers sync.WaitGroup
}

// figure is what is known of a volume.
type figure struct {
	id, dir string
	used    int64
	at      time.Time // zero before it was counted
	tried   time.Time
	asked   time.Time
	queued  bool
	err     error // why it could not be counted
}

// ErrNotYet says that a volume has not been counted yet.
var ErrNotYet = errors.New("not counted yet")

// NewCache returns an empty cache. The counting ends with ctx too.
func NewCache(ctx context.Context, log *slog.Logger) *Cache {
	c := &Cache{log: log, figures: map[string]*figure{}}
	c.ctx, c.stop = context.WithCancel(ctx)
	return c
}

// Close ends the counting and waits for its end, or that of ctx: a file system that hangs may
// hold it.
func (c *Cache) Close(ctx context.Context) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	done := make(chan struct{})
	go func() { c.workers.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Get returns what is known of a volume whose data lies at dir, and since when. id tells this
// volume from an earlier one of the name. Where nothing is known, or it is old, the files are
// counted meanwhile; until then the error is [ErrNotYet]. What is mounted at dir is not
// counted, which is ErrUnsupported: an unmount would fail for it.
func (c *Cache) Get(name, id, dir string) (used int64, at time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.figures[name]
	if f == nil || f.id != id || f.dir != dir {
		f = &figure{id: id, dir: dir}
		c.figures[name] = f
	}
	f.asked = time.Now()
	if time.Since(f.tried) >= age && !f.queued && !c.closed {
		f.queued = true
		c.queue = append(c.queue, name)
		if !c.working {
			c.working = true
			c.workers.Go(c.work)
		}
	}
	if f.at.IsZero() {
		return 0, f.at, cmp.Or(f.err, ErrNotYet)
	}
	return f.used, f.at, nil
}

// Put remembers what somebody else has counted.
func (c *Cache) Put(name, id, dir string, used int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.figures[name] = &figure{id: id, dir: dir, used: used, at: now, tried: now, asked: now}
}

// work counts until there is nothing more to count.
func (c *Cache) work() {
	// The thread is not unlocked: it ends with the goroutine, and its priority with it.
	runtime.LockOSThread()
	idle()
	for {
		name, f := c.next()
		if f == nil {
			return
		}
		used, err := c.count(f.dir)
		c.mu.Lock()
		f.queued, f.tried, f.err = false, time.Now(), err
		if err == nil {
			f.used, f.at = used, f.tried
		}
		c.mu.Unlock()
		if err != nil && c.ctx.Err() == nil {
			c.log.Debug("volume cannot be measured", slog.String("volume", name), slog.Any("error", err))
		}
	}
}

func (c *Cache) count(dir string) (int64, error) {
	mounts, err := mount.List(dir) // asks the mount table, and so does not hold what is mounted
	if err != nil {
		return 0, err
	}
	if slices.ContainsFunc(mounts, func(m mount.Info) bool { return m.Mountpoint == dir }) {
		return 0, errdefs.Errorf(errdefs.ErrUnsupported, "%s is a mount", dir)
	}
	return Count(c.ctx, dir, nil)
}

// next takes a volume out of the queue. Where there is none the worker ends, and what nobody
// has asked for in a long time is forgotten.
func (c *Cache) next() (name string, f *figure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 && !c.closed {
		name, c.queue = c.queue[0], c.queue[1:]
		if f := c.figures[name]; f != nil && f.queued {
			return name, f
		}
	}
	c.queue, c.working = nil, false
	for name, f := range c.figures {
		if time.Since(f.asked) > forget {
			delete(c.figures, name)
		}
	}
	return "", nil
}

// idle gives the calling thread the processor and the disk only when nobody else wants them
// (setpriority(2), ioprio_set(2)). Where that is not allowed it counts all the same.
func idle() {
	const (
		whoProcess = 1
		classIdle  = 3 << 13
	)
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, classIdle)
}
