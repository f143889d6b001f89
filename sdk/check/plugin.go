package check

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/client"
)

const activateID = "plugin/activate"

const (
	docAPI      = "docs.docker.com/engine/extend/plugin_api"
	docVolume   = "docs.docker.com/engine/extend/plugins_volume"
	docAuthz    = "docs.docker.com/engine/extend/plugins_authorization"
	docLog      = "docs.docker.com/engine/extend/plugins_logging"
	docMetrics  = "docs.docker.com/engine/extend/plugins_metrics"
	mobyClient  = "moby pkg/plugins/client.go"
	mobyPlugins = "moby pkg/plugins/plugins.go"
	podmanVol   = "podman libpod/plugin/volume_api.go"
)

func pluginCases() []Case {
	return []Case{
		{
			ID: activateID, Basic: true, run: activate,
			Asserts: "Plugin.Activate with an empty body is answered with status 200 and the list of what the plugin implements.",
			Source:  docAPI + ", Handshake API; " + mobyPlugins + ", activateWithLock",
		},
		{
			ID: "plugin/activate-again", run: activateAgain,
			Asserts: "Activation may be repeated, with the headers of Podman too, and says the same: each engine, and each podman process, activates anew.",
			Source:  mobyPlugins + ", activateWithLock; " + podmanVol + ", validatePlugin",
		},
		{
			ID: "plugin/any-host", run: anyHost,
			Asserts: "A request on a socket is answered whatever its Host is: empty, plugin.moby.localhost or plugin, as engines of several ages send it.",
			Source:  "moby issue 45935; " + mobyClient + ", NewClientWithTimeout; " + podmanVol + ", sendRequest",
		},
		{
			ID: "plugin/keep-alive", run: keepAlive,
			Asserts: "A connection serves one request after another, unless the answer says that it closes.",
			Source:  mobyClient + ", newTransport (http.Transport keeps connections); RFC 9112, 9.3",
		},
		{
			ID: "plugin/idle-connection", run: idleConnection,
			Asserts: "A connection that an engine keeps open and idle does not hold up calls on others.",
			Source:  mobyClient + ", newTransport (http.Transport keeps connections)",
		},
		{
			ID: "plugin/calls-at-once", run: callsAtOnce,
			Asserts: "32 calls at once are all answered.",
			Source:  "moby daemon/volume/service/store.go, list (drivers are asked in parallel); " + docAuthz + " (each API request asks the plugin)",
		},
		{
			ID: "plugin/unknown-method", run: unknownMethod,
			Asserts: "A method that the plugin does not have is answered, and not with status 200: that is how engines find out.",
			Source:  mobyClient + ", callWithRetry and IsNotFound (errors.go)",
		},
		{
			ID: "plugin/hang-up", run: hangUp,
			Asserts: "Callers that hang up before the answer do no harm to those who come after.",
			Source:  "moby daemon/volume/drivers/proxy.go (a call is given up after its time limit)",
		},
	}
}

// decode reads one JSON value as an engine does, and leaves what follows.
func decode(body string, v any) error { return json.NewDecoder(strings.NewReader(body)).Decode(v) }

// request is a method and a body.
type request struct{ method, body string }

// pings are methods that every plugin of a kind has and that change nothing.
var pings = map[string]request{
	"":      {"Plugin.Activate", ""},
	Volume:  {"VolumeDriver.List", "{}\n"},
	Network: {"NetworkDriver.GetCapabilities", ""},
	IPAM:    {"IpamDriver.GetDefaultAddressSpaces", ""},
	AuthZ:   {"AuthZPlugin.AuthZReq", `{"RequestMethod":"GET","RequestUri":"/_ping"}` + "\n"},
	Log:     {"LogDriver.Capabilities", ""},
}

// ping is a call that the plugin has as that kind; empty is any.
func (p *Plugin) ping(kind string) request {
	if kind == "" && p.managed() {
		kind = p.kinds[0]
	}
	if r, ok := pings[kind]; ok {
		return r
	}
	return pings[""]
}

// call makes a request. Any answer will do.
func call(ctx context.Context, c *client.Client, r request) error {
	var req any
	if r.body != "" {
		req = json.RawMessage(r.body)
	}
	return c.Call(ctx, r.method, req, nil)
}

// ping is a call that the plugin has, whatever it is.
func (t *T) ping() (method, body string) {
	r := t.p.ping("")
	return r.method, r.body
}

// pinged makes the call of ping.
func (t *T) pinged(ctx context.Context) error { return call(ctx, t.c, t.p.ping("")) }

// activates is what an engine does first in its life, unless the plugin is a managed one.
func (t *T) activates() {
	if t.p.managed() {
		return
	}
	_, err := t.c.Activate(t.ctx)
	t.must("Plugin.Activate", err)
}

func activate(t *T) {
	if t.p.managed() {
		t.Skipf("its kinds were given, as of a managed plugin, which an engine never activates")
	}
	kinds, err := t.c.Activate(t.ctx)
	t.must("Plugin.Activate", err)
	if len(kinds) == 0 {
		t.Fatalf("Plugin.Activate: the plugin says that it implements nothing")
	}
	for _, kind := range kinds {
		if other := strings.ToLower(kind); kind != AuthZ && other == AuthZ {
			t.Errorf("Plugin.Activate: %q is no kind, it is written %q", kind, AuthZ)
		}
		for _, known := range []string{Volume, Network, IPAM, Log, Metrics} {
			if kind != known && strings.EqualFold(kind, known) {
				t.Errorf("Plugin.Activate: %q is no kind, it is written %q", kind, known)
			}
		}
	}
}

func activateAgain(t *T) {
	if t.p.managed() {
		t.Skipf("its kinds were given, as of a managed plugin, which an engine never activates")
	}
	first, err := t.c.Activate(t.ctx)
	t.must("Plugin.Activate", err)
	slices.Sort(first) // in which order it says them is all the same
	for _, headers := range [][]string{nil, {"Content-Type: application/vnd.docker.plugins.v1.1+json"}} {
		a, err := t.once("Plugin.Activate", "", headers...)
		t.must("Plugin.Activate again", err)
		var again struct{ Implements []string }
		err = decode(a.body, &again)
		slices.Sort(again.Implements)
		if a.status != http.StatusOK || err != nil || !slices.Equal(first, again.Implements) {
			t.Errorf("Plugin.Activate again with headers %q: %s, and at first %q", headers, a, first)
		}
	}
}

func anyHost(t *T) {
	hosts := []string{t.p.host}
	if t.p.socket() { // on others an engine names the host of the address, which may be one of many there
		hosts = []string{"", engineHost, "plugin", "localhost"}
	}
	for _, host := range hosts {
		r := t.dial()
		method, body := t.ping()
		a, err := r.send(host, method, body)
		r.conn.Close()
		switch {
		case err != nil:
			t.Errorf("Host %q: no answer: %w", host, err)
		case a.status != http.StatusOK:
			t.Errorf("Host %q: %s", host, a)
		}
	}
}

func keepAlive(t *T) {
	r := t.dial()
	defer r.conn.Close()
	method, body := t.ping()
	for i := range 5 {
		a, err := r.send(t.p.host, method, body)
		if err != nil {
			t.Fatalf("request %d on one connection: no answer, and the one before did not say that it closes: %w", i+1, err)
		}
		if a.closes {
			return
		}
	}
}

// shortWait is how long a plugin may take for what costs it nothing.
const shortWait = 10 * time.Second

func idleConnection(t *T) {
	idle := t.dial()
	defer idle.conn.Close()
	method, body := t.ping()
	_, err := idle.send(t.p.host, method, body)
	t.must(method, err)
	silent := t.dial() // and one that never says anything
	defer silent.conn.Close()
	ctx, cancel := context.WithTimeout(t.ctx, shortWait)
	defer cancel()
	if err := t.pinged(ctx); err != nil {
		t.Errorf("while two other connections are open and idle: %w", err)
	}
}

func callsAtOnce(t *T) {
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			if err := t.pinged(t.ctx); err != nil {
				t.Errorf("one of 32 calls at once: %w", err)
			}
		})
	}
	all.Wait()
}

func unknownMethod(t *T) {
	a, err := t.once("Remora.NoSuchMethod", "{}")
	t.must("Remora.NoSuchMethod", err)
	if a.status == http.StatusOK {
		t.Errorf("Remora.NoSuchMethod: %s; an engine takes that for success", a)
	}
}

func hangUp(t *T) {
	for range 8 {
		r := t.dial()
		_, err := io.WriteString(r.conn, "POST /Plugin.Activate HTTP/1.1\r\nHost: "+t.p.host+"\r\nContent-Length: 100\r\n\r\n{")
		t.must("write", err)
		r.conn.Close()
	}
	time.Sleep(100 * time.Millisecond) // the plugin hears of it a moment later
	ctx, cancel := context.WithTimeout(t.ctx, shortWait)
	defer cancel()
	if err := t.pinged(ctx); err != nil {
		t.Errorf("after 8 callers that hung up: %w", err)
	}
}
