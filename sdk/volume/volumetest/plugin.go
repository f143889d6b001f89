package volumetest

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/leaktest"
	"github.com/remora-plugins/remora/sdk/internal/suitetest"
	"github.com/remora-plugins/remora/sdk/volume"
)

// plugin is a whole plugin on a socket, with the engine that calls it. It can be
// restarted. Its methods end the test where the plugin fails.
type plugin struct {
	t       *testing.T
	config  Config
	driver  volume.Driver
	faults  *faults
	options volume.Options
	socket  string

	handler *volume.Handler
	client  *client.Client
	volumes client.Volume
	stop    func() // nil while it does not run
}

// startPlugin starts a plugin; change, if not nil, has a say in the Handler's options.
// Without one no container is ever seen to hold a mount, nothing runs by the clock, and
// mounts from before a restart have no time of grace.
func startPlugin(t *testing.T, c Config, change func(*volume.Options)) *plugin {
	t.Helper()
	root := t.TempDir()
	t.Cleanup(func() { unmountBelow(t, root) })
	p := &plugin{t: t, config: c, socket: suitetest.Socket(t), options: volume.Options{
		Logger:     slog.New(slog.NewTextHandler(t.Output(), nil)),
		MountRoot:  filepath.Join(root, "mounts"),
		Ledger:     filepath.Join(root, "ledger"),
		MountGrace: time.Nanosecond,
		Refresh:    -1,
		Held:       func(context.Context, string) (held, known bool) { return false, true },
	}}
	if change != nil {
		change(&p.options)
	}
	p.driver = c.New(t)
	t.Cleanup(p.kill)
	p.start()
	return p
}

// checks are the cases of package check.
func checks() cases {
	return suitetest.Checks(check.Volume, func(t *testing.T, c Config) (string, check.Options, func()) {
		p := startPlugin(t, c, nil)
		return p.socket, check.Options{Create: c.Options}, func() {
			if left := leaktest.MountsBelow(t, p.options.MountRoot); len(left) > 0 {
				t.Errorf("left mounted: %q", left)
			}
		}
	})
}

func (p *plugin) start() {
	p.t.Helper()
	p.faults = &faults{Driver: p.driver}
	h, err := volume.NewHandler(p.t.Context(), p.faults.wrap(), p.options)
	if err != nil {
		p.t.Fatalf("NewHandler: %v", err)
	}
	c, stop := suitetest.Serve(p.t, p.socket, h, p.options.Logger, 0)
	p.handler, p.client, p.volumes = h, c, c.Volume()
	p.stop = func() {
		stop()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			p.t.Errorf("Close: %v", err)
		}
	}
}

// kill ends the plugin and leaves everything as it is.
func (p *plugin) kill() {
	if p.stop != nil {
		p.faults.inject(nil)
		p.stop()
		p.stop = nil
	}
}

// restart ends the plugin and starts it again on the same storage, socket and ledger.
func (p *plugin) restart() {
	p.t.Helper()
	p.kill()
	if p.config.Reopen != nil {
		p.driver = p.config.Reopen(p.t, p.driver)
	}
	p.start()
}

// activate is what an engine does first in its life.
func (p *plugin) activate() {
	p.t.Helper()
	kinds, err := p.client.Activate(p.t.Context())
	if err != nil || !slices.Equal(kinds, []string{"VolumeDriver"}) {
		p.t.Fatalf("Activate: %q, %v", kinds, err)
	}
}

func (p *plugin) create(name string) {
	p.t.Helper()
	if err := p.volumes.Create(p.t.Context(), name, clone(p.config.Options)); err != nil {
		p.t.Fatalf("Create: %v", err)
	}
}

func (p *plugin) mount(name, id string) string {
	p.t.Helper()
	mountpoint, err := p.volumes.Mount(p.t.Context(), name, id)
	if err != nil {
		p.t.Fatalf("Mount: %v", err)
	}
	mustBeDirectory(p.t, mountpoint)
	return mountpoint
}

func (p *plugin) unmount(name, id string) {
	p.t.Helper()
	if err := p.volumes.Unmount(p.t.Context(), name, id); err != nil {
		p.t.Fatalf("Unmount: %v", err)
	}
}

func (p *plugin) remove(name string) {
	p.t.Helper()
	if err := p.volumes.Remove(p.t.Context(), name); err != nil {
		p.t.Fatalf("Remove: %v", err)
	}
}

// mounts returns how often each mount ID has the volume mounted.
func (p *plugin) mounts(name string) map[string]int {
	p.t.Helper()
	v, err := p.handler.Get(p.t.Context(), name)
	if err != nil {
		p.t.Fatalf("Get: %v", err)
	}
	counts := map[string]int{}
	for _, m := range v.Mounts {
		counts[m.ID] = m.Count
	}
	return counts
}

// mustBeMounted fails unless the volume is mounted n times in all.
func (p *plugin) mustBeMounted(name string, n int) {
	p.t.Helper()
	total := 0
	for _, count := range p.mounts(name) {
		total += count
	}
	if total != n {
		p.t.Errorf("volume %q is mounted %d times, want %d", name, total, n)
	}
	// The driver was asked once more to mount than to unmount, or as often.
	if n == 0 && len(leaktest.MountsBelow(p.t, filepath.Join(p.options.MountRoot))) > 0 {
		p.t.Errorf("nobody has volume %q mounted, and there is a mount: %q", name, leaktest.MountsBelow(p.t, p.options.MountRoot))
	}
}

// mustGet fails unless the plugin says that the volume exists.
func (p *plugin) mustGet(name string) volume.Info {
	p.t.Helper()
	info, err := p.volumes.Get(p.t.Context(), name)
	if err != nil || info.Name != name {
		p.t.Fatalf("Get(%q): %+v, %v", name, info, err)
	}
	return info
}

// mustBeGone fails unless the plugin says that there is no such volume.
func (p *plugin) mustBeGone(name string) {
	p.t.Helper()
	_, err := p.volumes.Get(p.t.Context(), name)
	mustBeClass(p.t, "Get of a volume that is not there", err, errdefs.ErrNotFound)
}

// list returns the names of all volumes as listed.
func (p *plugin) list() []string {
	p.t.Helper()
	all, err := p.volumes.List(p.t.Context())
	if err != nil {
		p.t.Fatalf("List: %v", err)
	}
	names := []string{}
	for _, info := range all {
		names = append(names, info.Name)
	}
	return names
}

// answer is what a plugin said to a request that no engine's client would make.
type answer struct {
	status int
	body   string
}

// send makes a request of any kind on a connection of its own. An error means that there
// was no answer.
func (p *plugin) send(verb, method, body string, header http.Header) (answer, error) {
	p.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.socket)
	}}
	r, err := http.NewRequestWithContext(p.t.Context(), verb, "http://plugin/VolumeDriver."+method, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	maps.Copy(r.Header, header)
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(text)}, err
}

// eventually waits until ok, which something in another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(time.Millisecond) { // across a real socket there is no clock to fake
		if time.Since(start) > 10*time.Second {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// logTo returns a logger that writes everything to w.
func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
