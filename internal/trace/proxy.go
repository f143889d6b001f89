package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Call is one call of the plugin that has ended.
type Call struct {
	Time     time.Time     `json:"Time"`
	Method   string        `json:"Method"`
	Status   int           `json:"Status"` // 0 where no answer came
	Duration time.Duration `json:"DurationNs"`
	// Request and Response are the bodies without their secrets.
	Request  string `json:"Request"`
	Response string `json:"Response"`
	// Error is why no answer came, or not all of it.
	Error string `json:"Error,omitempty"`
}

// drain is how long the trace goes on when engines have the plugin's own socket again: for those
// who connected just before and wait, and to tell those who use a connection of ours that it is
// its last call. One that is closed without a word may lose the call that is just being made.
const drain = 300 * time.Millisecond

// patience is how long the end may take before a person is told why.
const patience = time.Second

// follow traces the plugin that listens now, until it ends or ctx does, and puts its socket
// back.
func (n *note) follow(ctx context.Context, o Options) (err error) {
	l, own, err := n.attach()
	if err != nil {
		return err
	}
	// Not by a path: that changes when the plugin has its name back, and calls are under way still.
	upstream, err := unix.Open(n.aside, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return errors.Join(fmt.Errorf("socket %q: %w", n.aside, err), n.detach(own), l.Close())
	}
	defer unix.Close(upstream)
	p := &proxy{upstream: fmt.Sprintf("/proc/self/fd/%d", upstream), show: o.Show}
	s, transport := p.server()
	defer transport.CloseIdleConnections()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	n.wait(ctx, own)
	err = n.detach(own)
	p.draining.Store(true)
	if ctx.Err() != nil {
		slow := time.AfterFunc(patience, func() { o.Say("the plugin has its socket back; waiting for calls that are under way") })
		defer slow.Stop()
	}
	time.Sleep(drain)
	// Calls under way may take as long as an engine lets them.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	if sErr := s.Shutdown(closing); sErr != nil {
		err = errors.Join(err, s.Close())
	}
	if sErr := <-served; !errors.Is(sErr, http.ErrServerClosed) {
		err = errors.Join(err, sErr)
	}
	return err
}

// attach takes the name of the plugin's socket. own is the socket that has it then.
func (n *note) attach() (l net.Listener, own fs.FileInfo, err error) {
	var st unix.Stat_t
	if err := unix.Stat(n.socket, &st); err != nil {
		return nil, nil, fmt.Errorf("socket %q: %w", n.socket, err)
	}
	temp := n.aside + ".new"
	_ = os.Remove(temp) // of one that was killed
	// The path may be too long for the kernel; that of the directory's descriptor is not.
	dir, err := os.Open(filepath.Dir(temp))
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(temp))})
	if err != nil {
		return nil, nil, err
	}
	ul.SetUnlinkOnClose(false)
	for _, step := range []func() error{
		func() error { return os.Lchown(temp, int(st.Uid), int(st.Gid)) },
		func() error { return os.Chmod(temp, fs.FileMode(st.Mode&0o777)) },
		func() (err error) { own, err = os.Lstat(temp); return err },
		func() error { return os.Link(n.socket, n.aside) },
		func() error { return os.Rename(temp, n.socket) },
	} {
		if err := step(); err != nil {
			_ = ul.Close()
			_ = os.Remove(temp)
			return nil, nil, errors.Join(err, n.mend())
		}
	}
	return ul, own, nil
}

// wait returns when ctx ends, when the plugin does, or when another has taken the name.
func (n *note) wait(ctx context.Context, own fs.FileInfo) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
		}
		at, err := os.Lstat(n.socket)
		if err != nil || !os.SameFile(at, own) || gone(n.aside) {
			return
		}
	}
}

// detach gives the name back, unless somebody has taken it.
func (n *note) detach(own fs.FileInfo) error {
	at, err := os.Lstat(n.socket)
	ours := err == nil && os.SameFile(at, own)
	switch {
	case ours && !gone(n.aside):
		return os.Rename(n.aside, n.socket)
	case ours: // the plugin has ended, and would have removed its socket
		err = os.Remove(n.socket)
	default:
		err = nil
	}
	if rErr := os.Remove(n.aside); !errors.Is(rErr, fs.ErrNotExist) { // which an engine may have cleared away
		err = errors.Join(err, rErr)
	}
	return err
}

// proxy passes calls on, and tells of them.
type proxy struct {
	upstream string // the path of the plugin's own socket
	show     func(Call)
	draining atomic.Bool

	mu    sync.Mutex
	known redactor // what was found to be secret
}

func (p *proxy) server() (s *http.Server, transport *http.Transport) {
	transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.upstream)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 16,
	}
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s = &http.Server{
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          quiet,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.serve(w, r, &httputil.ReverseProxy{
				Transport: transport, FlushInterval: -1, ErrorLog: quiet,
				Rewrite: func(pr *httputil.ProxyRequest) {
					pr.Out.URL.Scheme, pr.Out.URL.Host = "http", "plugin"
					pr.Out.Host = pr.In.Host
				},
			})
		}),
	}
	return s, transport
}

// dial connects to a socket whose path may be too long for the kernel. It does not wait: where
// the listener's queue is full, connect(2) says EAGAIN.
func dial(socket string) (*net.UnixConn, error) {
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket))})
}

func (p *proxy) serve(w http.ResponseWriter, r *http.Request, to *httputil.ReverseProxy) {
	c := Call{Time: time.Now(), Method: strings.TrimPrefix(r.URL.Path, "/")}
	request, response := &body{}, &body{}
	told := false
	tell := func() {
		if told {
			return
		}
		told = true
		c.Duration = time.Since(c.Time)
		p.mu.Lock()
		defer p.mu.Unlock()
		c.Request, c.Response, c.Error = p.known.redact(request, response, c.Error)
		p.show(c)
	}
	r.Body = tee(r.Body, request)
	to.ModifyResponse = func(resp *http.Response) error {
		c.Status = resp.StatusCode
		if p.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		if resp.ContentLength < 0 || resp.ContentLength > shown {
			resp.Body = tee(resp.Body, response)
			return nil
		}
		// It is told before the caller has it and makes the next call.
		_, err := io.Copy(response, resp.Body)
		if err != nil {
			c.Status = 0
			return err
		}
		_ = resp.Body.Close()
		tell()
		resp.Body = io.NopCloser(bytes.NewReader(response.text.Bytes()))
		return nil
	}
	failed, ended := false, false
	to.ErrorHandler = func(_ http.ResponseWriter, _ *http.Request, err error) {
		failed = true
		c.Error = reason(err)
	}
	defer func() {
		switch {
		case ended || c.Error != "":
		case r.Context().Err() != nil:
			c.Error = reason(context.Canceled)
		default:
			c.Error = "the answer was cut off"
		}
		tell()
		if failed {
			// As the plugin's own end would look: a status of ours would be taken for its answer.
			panic(http.ErrAbortHandler)
		}
	}()
	to.ServeHTTP(w, r)
	ended = true
}

// tee has what is read from b written to w, too.
func tee(b io.ReadCloser, w io.Writer) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.TeeReader(b, w), b}
}

func reason(err error) string {
	switch {
	case errors.Is(err, context.Canceled):
		return "the caller has gone"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the plugin has gone"
	}
	return err.Error()
}

// shown is how much of a body is kept. No volume or network needs as much; what is longer is
// not shown, as nobody could tell what in half a body is secret.
const shown = 64 << 10

// body keeps what goes through it. A plugin may answer while it is still being sent a request.
type body struct {
	mu   sync.Mutex
	text bytes.Buffer
	size int64
}

// read returns what has gone through, and how much it is, which may be more.
func (b *body) read() (text []byte, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.text.Bytes()), b.size
}

func (b *body) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size += int64(len(p))
	if b.size <= shown {
		_, _ = b.text.Write(p)
	}
	return len(p), nil
}
