package registry

import (
	"context"
	"io"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// watch ends a transfer in which nothing moves.
type watch struct {
	timer  *time.Timer
	every  time.Duration
	cancel context.CancelCauseFunc
}

// silence is why a transfer was ended in which nothing moved.
type silence struct{ error }

func (s silence) Unwrap() error { return s.error }

// watch returns a context that ends when nothing was read for too long.
func (c *Client) watch(ctx context.Context) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{every: c.stall, cancel: cancel}
	w.timer = time.AfterFunc(c.stall, func() {
		cancel(silence{errdefs.Errorf(errdefs.ErrUnavailable, "nothing has come or gone for %v", c.stall)})
	})
	return ctx, w
}

func (w *watch) moved() { w.timer.Reset(w.every) }

// sent is called when all of a blob is on its way.
func (w *watch) sent() { w.timer.Reset(max(w.every, commitTime)) }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

func (w *watch) reader(r io.Reader) io.Reader { return &watched{r: r, w: w} }

// watched is a stream that is watched, and counted.
type watched struct {
	r    io.Reader
	w    *watch
	told func(n int64)
	end  func() // is called at the end
	n    int64
}

func (r *watched) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.w.moved()
		r.n += int64(n)
		if r.told != nil {
			r.told(r.n)
		}
	}
	if err == io.EOF && r.end != nil {
		r.end()
	}
	return n, err
}

// resumed goes on after a break, where the registry can.
type resumed struct {
	body io.ReadCloser
	n    int64
	left int // how often
}

func (r *resumed) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	r.n += int64(n)
	if err == nil || err == io.EOF {
		return n, err
	}
	seeker, ok := r.body.(io.Seeker)
	if !ok || r.left == 0 {
		return n, err
	}
	r.left--
	// To where it stands it would not seek, so it goes to the end first, which asks for nothing.
	for _, whence := range []int{io.SeekEnd, io.SeekStart} {
		offset := int64(0)
		if whence == io.SeekStart {
			offset = r.n
		}
		if _, serr := seeker.Seek(offset, whence); serr != nil {
			return n, err
		}
	}
	return n, nil
}
