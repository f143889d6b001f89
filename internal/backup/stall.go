package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// stallTime is how long a storage may show no sign of life while it is asked for something: no
// byte, no answer, and none to a small question that is put to it meanwhile.
const stallTime = time.Minute

// stallOnce is how many times that is the limit for one call alone that makes no progress while
// others do.
const stallOnce = 5

// watched is a storage that is given up when it stalls, and whose calls end when nobody waits
// for them any more. Not all of kopia's storages look at their context, and none has a limit.
type watched struct {
	blob.Storage
	limit time.Duration

	mu      sync.Mutex
	calls   map[*watchedCall]struct{}
	last    time.Time // of a sign of life
	asking  bool
	stalled error
	noRoom  error // it is for the rest of this session: each of several writers would find out slowly
	wrong   error // what went wrong last
	cancel  func()
}

// watchedCall is a call that runs. Once it is over for who made it, nothing of theirs is
// touched: the buffers are used for something else by then.
type watchedCall struct {
	w    *watched
	end  chan error
	mu   sync.Mutex // held while what the caller has given is used
	over bool
	last time.Time // under w.mu, as is busy
	busy bool      // the caller's own function runs: the storage is not waited for
}

func watch(ctx context.Context, st blob.Storage, limit time.Duration) *watched {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // until it is closed
	w := &watched{Storage: st, limit: limit, calls: map[*watchedCall]struct{}{}, cancel: cancel}
	go w.guard(ctx)
	return w
}

// errOver ends a call for which nobody waits any more.
var errOver = errors.New("nobody waits for it any more")

func (w *watched) do(ctx context.Context, call func(ctx context.Context, c *watchedCall) error) error {
	w.mu.Lock()
	if w.stalled != nil {
		defer w.mu.Unlock()
		return w.stalled
	}
	now := time.Now()
	c := &watchedCall{w: w, end: make(chan error, 1), last: now}
	if len(w.calls) == 0 {
		w.last = now
	}
	w.calls[c] = struct{}{}
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- call(ctx, c) }()
	var err error
	select {
	case err = <-done:
	case err = <-c.end:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.calls, c)
	if w.last = time.Now(); w.stalled != nil && err != nil {
		err = w.stalled
	}
	return err
}

// note remembers what went wrong.
func (w *watched) note(ctx context.Context, err error) error {
	if err != nil && !errors.Is(err, blob.ErrBlobNotFound) && ctx.Err() == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.wrong = err
	}
	return err
}

// reason returns what went wrong last, for who is told only that something did.
func (w *watched) reason() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return cmp.Or(w.stalled, w.noRoom, w.wrong)
}

// use has f use what the caller has given, unless the call is over.
func (c *watchedCall) use(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return errOver
	}
	c.alive(false)
	return f()
}

// callback is use for a function of the caller's that may take long.
func (c *watchedCall) callback(f func() error) error {
	defer c.alive(false)
	return c.use(func() error {
		c.alive(true)
		return f()
	})
}

func (c *watchedCall) alive(busy bool) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.last, c.w.last, c.busy = time.Now(), time.Now(), busy
}

// guard gives the storage up when it stalls.
func (w *watched) guard(ctx context.Context) {
	every := time.NewTicker(w.limit / 8)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			w.look(ctx)
		}
	}
}

func (w *watched) look(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	waiting := false
	for c := range w.calls {
		waiting = waiting || !c.busy
	}
	silent := time.Since(w.last)
	switch {
	case !waiting:
		w.last = time.Now()
		return
	case silent > w.limit:
		if w.stalled == nil {
			w.stalled = stallError(w.limit)
		}
	case silent > w.limit/2 && !w.asking:
		w.asking = true
		go w.ask(ctx)
	}
	for c := range w.calls {
		if w.stalled != nil || !c.busy && time.Since(c.last) > stallOnce*w.limit {
			select {
			case c.end <- stallError(w.limit):
			default: // it has been told
			}
		}
	}
}

func stallError(limit time.Duration) error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "stalled: nothing moves for %s", limit),
		"when the server is well again, give the same command: it goes on with what is stored")
}

// ask puts a small question: a slow line may take long for a blob, but not for that.
func (w *watched) ask(ctx context.Context) {
	_, err := w.Storage.GetMetadata(ctx, format.KopiaRepositoryBlobID)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asking = false
	if err == nil || errors.Is(err, blob.ErrBlobNotFound) {
		w.last = time.Now()
	}
}

// GetBlob implements [blob.Storage].
func (w *watched) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	return w.note(ctx, w.do(ctx, func(ctx context.Context, c *watchedCall) error {
		return w.Storage.GetBlob(ctx, id, offset, length, watchedOutput{c, out})
	}))
}

// GetMetadata implements [blob.Storage].
func (w *watched) GetMetadata(ctx context.Context, id blob.ID) (m blob.Metadata, err error) {
	got := make(chan blob.Metadata, 1)
	err = w.do(ctx, func(ctx context.Context, _ *watchedCall) error {
		m, err := w.Storage.GetMetadata(ctx, id)
		got <- m
		return err
	})
	if err == nil {
		m = <-got
	}
	return m, err
}

// ListBlobs implements [blob.Storage].
func (w *watched) ListBlobs(ctx context.Context, prefix blob.ID, tell func(blob.Metadata) error) error {
	return w.do(ctx, func(ctx context.Context, c *watchedCall) error {
		return w.Storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
			return c.callback(func() error { return tell(m) })
		})
	})
}

// PutBlob implements [blob.Storage].
func (w *watched) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	w.mu.Lock()
	noRoom := w.noRoom
	w.mu.Unlock()
	if noRoom != nil {
		return noRoom
	}
	at, length := opts.GetModTime, data.Length()
	got := make(chan time.Time, 1)
	err := w.do(ctx, func(ctx context.Context, c *watchedCall) error {
		var t time.Time
		if at != nil {
			opts.GetModTime = &t
		}
		err := w.Storage.PutBlob(ctx, id, watchedBytes{c, data, length}, opts)
		got <- t
		return err
	})
	if err == nil && at != nil {
		*at = <-got
	}
	return w.note(ctx, w.full(ctx, err, length))
}

func (w *watched) hasStalled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stalled != nil
}

// full says of an error that it is for want of room, where the server says it in a way of its
// own: one with SFTP says that it failed.
func (w *watched) full(ctx context.Context, err error, length int) error {
	if err == nil || errdefs.Class(err) != nil || ctx.Err() != nil {
		return err
	}
	got := make(chan blob.Capacity, 1)
	if w.do(ctx, func(ctx context.Context, _ *watchedCall) error {
		c, err := w.Storage.GetCapacity(ctx)
		got <- c
		return err
	}) != nil {
		return err // it cannot say
	}
	if room := <-got; room.FreeB > uint64(length) {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noRoom = fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	return w.noRoom
}

// DeleteBlob implements [blob.Storage].
func (w *watched) DeleteBlob(ctx context.Context, id blob.ID) error {
	return w.do(ctx, func(ctx context.Context, _ *watchedCall) error { return w.Storage.DeleteBlob(ctx, id) })
}

// Close implements [blob.Storage]. A storage that has stalled is closed in the background: it
// would say goodbye to its server first.
func (w *watched) Close(ctx context.Context) error {
	w.cancel()
	done := make(chan error, 1)
	go func() { done <- w.Storage.Close(context.WithoutCancel(ctx)) }()
	if w.hasStalled() {
		return nil
	}
	select {
	case err := <-done:
		return err
	case <-time.After(min(w.limit, loginTime)):
		return nil
	}
}

type watchedOutput struct {
	c   *watchedCall
	out blob.OutputBuffer
}

func (o watchedOutput) Write(b []byte) (n int, err error) {
	err = o.c.use(func() (err error) { n, err = o.out.Write(b); return err })
	return n, err
}

func (o watchedOutput) Reset() { _ = o.c.use(func() error { o.out.Reset(); return nil }) } // the next Write fails too

func (o watchedOutput) Length() (n int) {
	_ = o.c.use(func() error { n = o.out.Length(); return nil }) // likewise
	return n
}

type watchedBytes struct {
	c      *watchedCall
	data   blob.Bytes
	length int
}

func (b watchedBytes) Length() int { return b.length }

func (b watchedBytes) Reader() io.ReadSeekCloser {
	r := &watchedReader{c: b.c}
	_ = b.c.use(func() error { r.r = b.data.Reader(); return nil }) // or reading it fails
	return r
}

// WriteTo copies piece by piece: what is written while the call ends is no longer the caller's.
func (b watchedBytes) WriteTo(to io.Writer) (int64, error) {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{b.Reader()}, *buf)
}

var pieces = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

type watchedReader struct {
	c *watchedCall
	r io.ReadSeekCloser
}

func (r *watchedReader) Read(b []byte) (n int, err error) {
	err = r.c.use(func() (err error) { n, err = r.r.Read(b); return err })
	return n, err
}

func (r *watchedReader) Seek(offset int64, whence int) (n int64, err error) {
	err = r.c.use(func() (err error) { n, err = r.r.Seek(offset, whence); return err })
	return n, err
}

func (r *watchedReader) Close() error {
	return r.c.use(func() error { return r.r.Close() })
}
