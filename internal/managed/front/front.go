// Package front stands between engines and a managed plugin that has volumes.
//
// Such a plugin says of a volume where it is for the plugin, in a root of its own. dockerd makes a path of the host
// of that, for the plugins that it runs itself; to a plugin found by its socket it believes every path, and
// so do podman and all others. So what is published is the front: it passes calls on, and makes paths in answers
// those of the host. It answers the activation too, of which a managed plugin need not know.
//
// While the plugin is started again, callers wait. Where it does not come they are hung up on, since to an engine an answer that
// is an error would mean that the volume is gone.
package front

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Options is what a [Front] is made of.
type Options struct {
	// Dir is the discovery directory, and Name the plugin's, with its tag.
	Dir, Name string
	// Socket has owner and mode of the socket.
	Socket sdk.UnixSocket
	// Implements is the answer to an activation.
	Implements []string
	// Dial connects to the plugin. It waits for one that is being started.
	Dial func(ctx context.Context) (net.Conn, error)
	// HostPath makes of a path in the plugin the one on the host.
	HostPath func(string) string
	Log      *slog.Logger
}

// Front is the published socket of a plugin.
type Front struct {
	o     Options
	stop  context.CancelFunc
	done  chan struct{}
	links []string
}

// latest is the tag that people leave out.
const latest = ":latest"

// grace is how long the end waits for calls in flight.
const grace = 2 * time.Second

// Open publishes a plugin under its name, without ":latest", until the front is closed. A name that somebody else has is
// ErrInUse.
func Open(ctx context.Context, o Options) (*Front, error) {
	short, isLatest := strings.CutSuffix(o.Name, latest)
	u := o.Socket
	u.Path = filepath.Join(o.Dir, short+".sock")
	l, err := sdk.ListenUnix(u)
	if err != nil {
		if errors.Is(err, errdefs.ErrInUse) {
			err = errdefs.Hint(err, "stop that plugin, or install this one under another name with --alias")
		}
		return nil, err
	}
	f := &Front{o: o, done: make(chan struct{})}
	if isLatest {
		// Engines find a link, and do not list it: no volume is listed twice.
		if err := f.link(ctx, u.Path, filepath.Join(o.Dir, o.Name+".sock")); err != nil {
			_ = l.Close() // nobody has come yet
			return nil, err
		}
	}
	ctx, f.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(f.done)
		if err := sdk.ServeHandler(ctx, sdk.Options{Logger: o.Log, Grace: grace}, f.handler(), l); err != nil {
			o.Log.ErrorContext(ctx, "published socket of a plugin has ended", slog.String("plugin", o.Name), slog.Any("error", err))
		}
	}()
	return f, nil
}

// listens reports whether somebody does at a socket.
func listens(ctx context.Context, at string) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // a call that was given up is no answer
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", at)
	if err != nil {
		return false
	}
	_ = c.Close() // it has answered
	return true
}

func (f *Front) link(ctx context.Context, socket, at string) error {
	target := filepath.Base(socket)
	if is, err := os.Readlink(at); err != nil || is != target {
		if listens(ctx, at) { // somebody else's plugin
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "socket %q: another plugin listens there", at),
				"stop that plugin, or install this one under another name with --alias")
		}
		if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("publish: %w", err)
		}
		if err := os.Symlink(target, at); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	f.links = append(f.links, at)
	return nil
}

// Close takes the name away, and waits a little for calls in flight.
func (f *Front) Close() {
	for _, link := range f.links {
		_ = os.Remove(link) // it leads nowhere soon
	}
	f.stop()
	<-f.done
	for dir := filepath.Dir(filepath.Join(f.o.Dir, f.o.Name)); dir != filepath.Clean(f.o.Dir) && len(dir) > len(f.o.Dir); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break // others have something there
		}
	}
}

// withPaths are the methods in whose answers there are paths.
var withPaths = map[string]bool{
	"/VolumeDriver.Mount": true, "/VolumeDriver.Path": true, "/VolumeDriver.Get": true, "/VolumeDriver.List": true,
}

func (f *Front) handler() http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "plugin.moby.localhost"})
			r.Out.Header.Del("Accept-Encoding")
		},
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return f.o.Dial(ctx) },
			DisableCompression: true, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second,
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode != http.StatusOK || !withPaths[r.Request.URL.Path] {
				return nil
			}
			return f.translate(r)
		},
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			f.o.Log.WarnContext(r.Context(), "call not answered", slog.String("plugin", f.o.Name), slog.String("method", r.URL.Path), slog.Any("error", err))
			panic(http.ErrAbortHandler)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/Plugin.Activate" {
			proxy.ServeHTTP(w, r)
			return
		}
		c, err := f.o.Dial(r.Context()) // an engine remembers for its life that it was activated
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_ = c.Close() // it was there
		w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.2+json")
		_ = json.NewEncoder(w).Encode(map[string][]string{"Implements": f.o.Implements}) // the caller is gone: nobody is left to tell
	})
}

// maxAnswer bounds an answer in bytes. A list of 100,000 volumes takes 10 MiB.
const maxAnswer = 64 << 20

// translate makes the paths in an answer those of the host. An answer that is none stays as it is.
func (f *Front) translate(r *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	_ = r.Body.Close() // it has been read
	if err != nil {
		return err
	}
	if len(body) > maxAnswer {
		return errdefs.Errorf(errdefs.ErrInvalid, "its answer is larger than %d MiB", maxAnswer>>20)
	}
	var answer map[string]any
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if dec.Decode(&answer) == nil && answer != nil {
		f.paths(answer)
		if again, err := json.Marshal(answer); err == nil {
			body = again
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	r.Header.Del("Transfer-Encoding")
	r.TransferEncoding = nil
	return nil
}

// paths looks for the field Mountpoint at the places where the protocol has it, in any case of letters.
func (f *Front) paths(answer map[string]any) {
	for key, v := range answer {
		switch strings.ToLower(key) {
		case "mountpoint":
			if path, ok := v.(string); ok && path != "" {
				answer[key] = f.o.HostPath(path)
			}
		case "volume":
			if one, ok := v.(map[string]any); ok {
				f.paths(one)
			}
		case "volumes":
			all, _ := v.([]any)
			for _, one := range all {
				if one, ok := one.(map[string]any); ok {
					f.paths(one)
				}
			}
		}
	}
}
