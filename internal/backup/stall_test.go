package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// proxy forwards to a server until it is frozen: then it takes what comes, and says nothing.
type proxy struct {
	addr string
	up   atomic.Int64 // bytes to the server

	mu     sync.Mutex
	rate   int   // bytes a second to the server; 0 is as fast as it goes
	after  int64 // freeze after so many bytes; 0 is never
	frozen bool
	thaw   chan struct{}
	open   []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	p := &proxy{addr: l.Addr().String(), thaw: make(chan struct{})}
	var open sync.WaitGroup
	end := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		close(end)
		open.Wait()
	})
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				s, err := net.Dial("tcp", to)
				if err != nil {
					_ = c.Close()
					return
				}
				stop := context.AfterFunc(t.Context(), func() { _, _ = c.Close(), s.Close() })
				p.mu.Lock()
				p.open = append(p.open, c, s)
				p.mu.Unlock()
				defer stop()
				open.Go(func() { p.pass(s, c, true, end) })
				p.pass(c, s, false, end)
			})
		}
	})
	return p
}

func (p *proxy) pass(to, from net.Conn, up bool, end chan struct{}) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if up {
			p.up.Add(int64(n))
		}
		p.mu.Lock()
		if p.after > 0 && p.up.Load() > p.after {
			p.frozen = true
		}
		frozen, thaw, rate := p.frozen, p.thaw, p.rate
		p.mu.Unlock()
		if up && rate > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
		}
		if frozen {
			select { // and then the connection is dead
			case <-thaw:
			case <-end:
			}
			return
		}
		if _, err2 := to.Write(buf[:n]); err != nil || err2 != nil {
			return
		}
	}
}

func (p *proxy) freeze(after int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if after > 0 {
		p.after = p.up.Load() + after
		return
	}
	p.frozen = true
}

func (p *proxy) melt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after, p.frozen = 0, false
	close(p.thaw)
	p.thaw = make(chan struct{})
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		_ = c.Close()
	}
	p.open = nil
}

// frozen has a repository behind a proxy stall in the middle of everything.
func frozen(t *testing.T, p Place, x *proxy) {
	t.Helper()
	dir := t.TempDir()
	put(t, dir+"/a", noise(t, 1<<20))
	p.stall = 2 * time.Second
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r := must[*Repository](t)(Open(t.Context(), p))
	first := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	want := tree(t, dir)
	put(t, dir+"/b", noise(t, 64<<20))

	soon := func(what string, limit time.Duration, f func() error) error {
		t.Helper()
		started := time.Now()
		err := f()
		if d := time.Since(started); d > underRace*limit {
			t.Errorf("%s: it took %s", what, d)
		}
		return err
	}
	create := func(ctx context.Context) error {
		_, err := r.Create(ctx, Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true})
		return err
	}
	x.freeze(8 << 20)
	wants(t, soon("create", 15*time.Second, func() error { return create(t.Context()) }), errdefs.ErrUnavailable, "stalled: nothing moves for 2s")
	wants(t, soon("again", time.Second, func() error { return create(t.Context()) }), errdefs.ErrUnavailable, "stalled: nothing moves for 2s")
	if err := soon("close", 2*time.Second, func() error { return r.Close(t.Context()) }); err != nil {
		t.Errorf("close: %v", err)
	}
	p.login = time.Second
	wants(t, soon("open", 10*time.Second, func() error { _, err := Open(t.Context(), p); return err }), errdefs.ErrUnavailable, "does not answer within 1s")
	p.login = 0
	x.melt()

	r = must[*Repository](t)(Open(t.Context(), p))
	if all := must[[]Backup](t)(r.List(t.Context())); len(all) != 1 {
		t.Errorf("there are %d backups, want the one that is whole", len(all))
	}
	// Who is weary of it need not wait for the limit.
	x.freeze(8 << 20)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := soon("cancel", 8*time.Second, func() error { return create(ctx) }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("canceled: %v", err)
	}
	if err := soon("close", 5*time.Second, func() error { return r.Close(t.Context()) }); err != nil {
		t.Logf("close: %v", err) // of a connection that is dead
	}
	x.melt()

	r = must[*Repository](t)(Open(t.Context(), p))
	if err := create(t.Context()); err != nil {
		t.Error(err)
	}
	x.freeze(0)
	wants(t, soon("restore", 15*time.Second, func() error {
		fresh := p
		fresh.login = time.Second
		_, err := Verify(t.Context(), fresh, nil, nil)
		return err
	}), errdefs.ErrUnavailable, "")
	x.melt()
	_ = r.Close(t.Context()) // likewise
	if v := must[Verified](t)(Verify(t.Context(), p, nil, nil)); v.Backups != 2 || len(v.Damaged) > 0 {
		t.Errorf("then, %+v", v)
	}
	to := t.TempDir()
	must[Backup](t)(reopened(t, p).Restore(t.Context(), first.ID, to, nil))
	same(t, want, tree(t, to))
}

func TestFrozenS3(t *testing.T) {
	testenv.Require(t, testenv.S3)
	p, addr, _ := s3Place(t)
	x := newProxy(t, addr)
	p.S3.Endpoint = &url.URL{Scheme: "http", Host: x.addr}
	frozen(t, p, x)
}

func TestFrozenSFTP(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Sshd)
	p, addr, known, _ := sftpPlace(t)
	x := newProxy(t, addr)
	p.URL.Host = x.addr
	p.SFTP.KnownHosts = known("known-proxy", x.addr, "host")
	frozen(t, p, x)
}

// A backup that is cut off goes on where it was: what was stored is not sent again, whether a
// person has ended it or the server was gone from one moment to the next.
func TestResumed(t *testing.T) {
	testenv.Require(t, testenv.S3)
	if testing.Short() {
		t.Skip("short: it sends half a gigabyte, slowly")
	}
	const size, files = 320 << 20, 8
	dir := t.TempDir()
	for i := range files {
		put(t, fmt.Sprintf("%s/%d", dir, i), noise(t, size/files))
	}
	for _, canceled := range []bool{false, true} {
		t.Run(fmt.Sprint("canceled=", canceled), func(t *testing.T) {
			p, addr, _ := s3Place(t)
			x := newProxy(t, addr)
			x.rate = 10 << 20 // for each connection
			p.S3.Endpoint = &url.URL{Scheme: "http", Host: x.addr}
			p.stall, p.checkpoint = 4*time.Second, 500*time.Millisecond
			if canceled {
				p.checkpoint = time.Minute
			}
			if err := Init(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			r := must[*Repository](t)(Open(t.Context(), p))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			q := Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}
			if canceled {
				q.Tell = func(Progress) {
					if x.up.Load() > size*6/10 {
						cancel()
					}
				}
			} else {
				x.freeze(size * 6 / 10)
			}
			_, err := r.Create(ctx, q)
			if canceled != errors.Is(err, context.Canceled) || canceled == errors.Is(err, errdefs.ErrUnavailable) {
				t.Fatalf("error is %v", err)
			}
			_ = r.Close(t.Context()) // of a connection that may be dead
			x.melt()
			p.Dir = t.TempDir() // nothing of it is remembered but in the repository
			sent := x.up.Load()
			r = must[*Repository](t)(Open(t.Context(), p))
			q.Tell = nil
			b := must[Backup](t)(r.Create(t.Context(), q))
			sent = x.up.Load() - sent
			t.Logf("of %d bytes %d were sent again or for the first time, %d stored", size, sent, b.Stored)
			if sent > size*7/10 {
				t.Errorf("sent are %d bytes of %d, of which 60 %% were there", sent, size)
			}
			if err := r.Close(t.Context()); err != nil {
				t.Error(err)
			}
			restores(t, p, cached, b.ID, dir)
		})
	}
}

// A line that is slow, but moves, is no stall.
func TestSlowIsNoStall(t *testing.T) {
	st := &slow{left: make(chan error, 1)}
	w := watch(t.Context(), st, 200*time.Millisecond)
	defer w.Close(t.Context())
	if err := w.PutBlob(t.Context(), "x", slice(make([]byte, 64)), blob.PutOptions{}); err != nil {
		t.Errorf("a slow one: %v", err)
	}
	if d := st.took; d < 400*time.Millisecond {
		t.Fatalf("it took %s: not slow enough", d)
	}
	if err := w.reason(); err != nil {
		t.Errorf("nothing went wrong, but %v", err)
	}
	st.dead.Store(true)
	wants(t, w.PutBlob(t.Context(), "x", slice(make([]byte, 64)), blob.PutOptions{}), errdefs.ErrUnavailable, "stalled")
	if err := <-st.left; !errors.Is(err, errOver) {
		t.Errorf("what is late may go on: %v", err)
	}
	wants(t, w.reason(), errdefs.ErrUnavailable, "stalled")
	other := watch(t.Context(), wrong{st}, time.Hour)
	defer other.Close(t.Context())
	if err := other.PutBlob(t.Context(), "x", slice(nil), blob.PutOptions{}); !errors.Is(err, errOver) || !errors.Is(other.reason(), errOver) {
		t.Errorf("error is %v, and the reason %v", err, other.reason())
	}
}

// wrong is a storage to which nothing can be written.
type wrong struct{ *slow }

func (wrong) PutBlob(context.Context, blob.ID, blob.Bytes, blob.PutOptions) error { return errOver }

func (wrong) GetCapacity(context.Context) (blob.Capacity, error) {
	return blob.Capacity{}, blob.ErrNotAVolume
}

// slow is a storage that takes a byte now and then, or none when it is dead.
type slow struct {
	blob.Storage
	dead atomic.Bool
	took time.Duration
	left chan error
}

func (s *slow) GetMetadata(ctx context.Context, _ blob.ID) (blob.Metadata, error) {
	if s.dead.Load() {
		<-ctx.Done() // never
	}
	return blob.Metadata{}, nil
}

func (s *slow) Close(context.Context) error { return nil }

func (s *slow) PutBlob(_ context.Context, _ blob.ID, data blob.Bytes, _ blob.PutOptions) error {
	started := time.Now()
	r := data.Reader()
	if s.dead.Load() {
		time.Sleep(time.Second)
		_, err := r.Read(make([]byte, 8))
		s.left <- err
		return err
	}
	for {
		_, err := r.Read(make([]byte, 8))
		if errors.Is(err, io.EOF) {
			s.took = time.Since(started)
			return nil
		}
		if err != nil {
			return err
		}
		time.Sleep(60 * time.Millisecond)
	}
}

// Where what notes how far it is fails, and nothing else does, it is said why.
func TestFailedCheckpoint(t *testing.T) {
	p, dir := newPlace(t), t.TempDir()
	p.checkpoint = 2 * tick
	r := opened(t, p)
	put(t, dir+"/a", "x")
	q := Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}
	must[Backup](t)(r.Create(t.Context(), q))
	if err := os.Truncate(dir+"/a", 1<<40); err != nil { // of zeros, which are stored once
		t.Fatal(err)
	}
	var move sync.Once
	q.Tell = func(Progress) {
		move.Do(func() { // it can be written to, but the lists of backups are gone
			lists, err := filepath.Glob(p.URL.Path + "/q*")
			if err != nil || len(lists) == 0 {
				t.Errorf("there are the lists %q, %v", lists, err)
			}
			for _, name := range lists {
				if err := os.RemoveAll(name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	_, err := r.Create(t.Context(), q)
	if err == nil || !strings.Contains(err.Error(), "a part of it is missing: ") {
		t.Errorf("error is %v", err)
	}
}
