package daemon

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/remora-plugins/remora/internal/service/pool"
)

// pages are what is read with GET on the control socket.
func (d *Daemon) pages() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /metrics": d.metrics.handler(),
		"GET /healthz": http.HandlerFunc(d.healthz),
		"GET /readyz":  http.HandlerFunc(d.readyz),
	}
}

// healthz says that the process answers.
func (d *Daemon) healthz(w http.ResponseWriter, _ *http.Request) {
	page(w, http.StatusOK, "ok")
}

// readyz says that the storage of every pool is in reach, or of which it is not.
func (d *Daemon) readyz(w http.ResponseWriter, r *http.Request) {
	var down []string
	if d.pools.State() != pool.Running {
		down = append(down, "starting or stopping")
	}
	d.look(r.Context(), true)
	for _, conf := range d.conf.Load().Pools {
		if d.pools.Find(conf.Name) == nil {
			down = append(down, fmt.Sprintf("pool %q: not served", conf.Name))
		}
	}
	for _, p := range d.pools.All() {
		if err := d.reachable(p); err != nil {
			down = append(down, fmt.Sprintf("pool %q: %v", p.Conf.Name, err))
		}
	}
	if len(down) > 0 {
		page(w, http.StatusServiceUnavailable, strings.Join(down, "\n"))
		return
	}
	page(w, http.StatusOK, "ok")
}

func page(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text) // the reader is gone: nobody is left to tell
}
