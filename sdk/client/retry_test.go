package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// dialed is a plugin at the other end of pipes. Its serve answers one connection; where
// it returns an error nothing listens.
type dialed struct {
	mu    sync.Mutex
	start time.Time
	at    []time.Duration // of each dial, from start
	serve func(n int, c net.Conn) error
}

func (d *dialed) dial(context.Context, string, string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = append(d.at, time.Since(d.start))
	here, there := net.Pipe()
	if err := d.serve(len(d.at), there); err != nil {
		here.Close()
		there.Close()
		return nil, err
	}
	return here, nil
}

// answerAll answers each request on c with 200 and body, until c is closed.
func answerAll(c net.Conn, body string) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		resp := http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
		if resp.Write(c) != nil {
			return
		}
	}
}

var errRefused = &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}

func TestBackOff(t *testing.T) {
	s := func(seconds ...float64) (out []time.Duration) {
		for _, n := range seconds {
			out = append(out, time.Duration(n*float64(time.Second)))
		}
		return out
	}
	const ok = `{"Implements":["VolumeDriver"]}`
	tests := []struct {
		name  string
		opts  Options
		serve func(n int, c net.Conn) error
		at    []time.Duration
		took  time.Duration
		class error
		text  string
	}{
		{
			name: "nothing listens, no retry", serve: func(int, net.Conn) error { return errRefused },
			at: s(0), class: errdefs.ErrUnavailable, text: "dial unix: connection refused",
		},
		{
			name: "nothing listens", opts: Options{Retry: true}, serve: func(int, net.Conn) error { return errRefused },
			at: s(0, 1, 3, 7, 15), took: 15 * time.Second, class: errdefs.ErrUnavailable, text: "dial unix: connection refused",
		},
		{
			name: "Podman has no patience", opts: Options{Retry: true, Engine: Podman}, serve: func(int, net.Conn) error { return errRefused },
			at: s(0), class: errdefs.ErrUnavailable, text: "dial unix: connection refused",
		},
		{
			name: "comes up after the third try", opts: Options{Retry: true},
			serve: func(n int, c net.Conn) error {
				if n < 4 {
					return errRefused
				}
				go answerAll(c, ok)
				return nil
			},
			at: s(0, 1, 3, 7), took: 7 * time.Second,
		},
		{
			name: "hangs up in the middle, then answers", opts: Options{Retry: true},
			serve: func(n int, c net.Conn) error {
				if n == 1 {
					go func() { _, _ = c.Read(make([]byte, 1000)); c.Close() }()
				} else {
					go answerAll(c, ok)
				}
				return nil
			},
			at: s(0, 1), took: time.Second,
		},
		{
			name: "never answers, each attempt has its time", opts: Options{Retry: true, Timeout: 4 * time.Second},
			serve: func(_ int, c net.Conn) error { go io.Copy(io.Discard, c); return nil },
			// 0-4, 5-9, 11-15, 19-23; the next at 31 would be too late.
			at: s(0, 5, 11, 19), took: 23 * time.Second, class: context.DeadlineExceeded, text: "no answer within 4s",
		},
		{
			name: "a no is an answer", opts: Options{Retry: true},
			serve: func(_ int, c net.Conn) error { go answerAll(c, `{"Implements":7}`); return nil },
			at:    s(0), text: "answer is not the JSON of this method",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &dialed{start: time.Now(), serve: tt.serve}
				var log strings.Builder
				tt.opts.Dial, tt.opts.Logger = d.dial, slog.New(slog.NewTextHandler(&log, nil))
				c, err := New(Endpoint{Name: "x", Addr: "unix:///x.sock"}, tt.opts)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, err = c.Activate(t.Context())
				if took := time.Since(d.start); took != tt.took {
					t.Errorf("took %s, want %s", took, tt.took)
				}
				if !cmp.Equal(d.at, tt.at) {
					t.Errorf("connected at %v, want %v", d.at, tt.at)
				}
				if got := errdefs.Class(err); got != tt.class { //nolint:errorlint // a class itself
					t.Errorf("class %v, want %v", got, tt.class)
				}
				if tt.text == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.text) {
					t.Errorf("error %v, want %q", err, tt.text)
				}
				if n := strings.Count(log.String(), "trying again"); n != len(tt.at)-1 {
					t.Errorf("%d tries are in the log, want %d:\n%s", n, len(tt.at)-1, log.String())
				}
			})
		})
	}
}

// TestTimes: each method has the engine's own limit.
func TestTimes(t *testing.T) {
	tests := []struct {
		method string
		opts   Options
		want   time.Duration
	}{
		{"VolumeDriver.Create", Options{}, 2 * time.Minute},
		{"VolumeDriver.Mount", Options{}, 2 * time.Minute},
		{"VolumeDriver.Get", Options{}, time.Minute},
		{"VolumeDriver.Mount", Options{Engine: Podman}, 5 * time.Second},
		{"VolumeDriver.Mount", Options{Timeout: time.Second}, time.Second},
		{"NetworkDriver.Join", Options{}, time.Hour}, // the test's own limit
		{"VolumeDriver.Get", Options{Timeout: -1}, time.Hour},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			d := &dialed{start: time.Now(), serve: func(_ int, c net.Conn) error { go io.Copy(io.Discard, c); return nil }}
			tt.opts.Dial = d.dial
			c, err := New(Endpoint{Name: "x", Addr: "unix:///x.sock"}, tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("the test gave up"))
			defer cancel()
			err = c.Call(ctx, tt.method, nil, nil)
			if took := time.Since(d.start); took != tt.want || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s %+v: took %s (%v), want %s", tt.method, tt.opts, took, err, tt.want)
			}
		})
	}
}

func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dialed{start: time.Now(), serve: func(int, net.Conn) error { return errRefused }}
		c, err := New(Endpoint{Name: "x", Addr: "unix:///x.sock"}, Options{Retry: true, Dial: d.dial})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(2*time.Second, cancel)
		err = c.Volume().Remove(ctx, "v")
		if took := time.Since(d.start); took != 2*time.Second || err == nil {
			t.Errorf("waited %s after the caller left at 2s: %v", took, err)
		}
		d.serve = func(_ int, c net.Conn) error { go io.Copy(io.Discard, c); return nil }
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(2*time.Second, cancel)
		err = c.Volume().Remove(ctx, "v")
		if !errors.Is(err, context.Canceled) || err.Error() != `plugin "x": VolumeDriver.Remove: context canceled` {
			t.Errorf("error %v, want canceled", err)
		}
	})
}

// TestRetryCarriesTheBody: what dockerd loses on the way, we do not.
func TestRetryCarriesTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bodies []string
		d := &dialed{start: time.Now()}
		d.serve = func(n int, c net.Conn) error {
			go func() {
				defer c.Close()
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				b, _ := io.ReadAll(r.Body)
				bodies = append(bodies, string(b))
				if n == 2 {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
				}
			}()
			return nil
		}
		c, err := New(Endpoint{Name: "x", Addr: "unix:///x.sock"}, Options{Retry: true, Dial: d.dial})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Volume().Remove(t.Context(), "v"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if want := []string{"{\"Name\":\"v\"}\n", "{\"Name\":\"v\"}\n"}; !cmp.Equal(bodies, want) {
			t.Errorf("bodies %q, want %q", bodies, want)
		}
	})
}
