package kubeshim

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// maxWatch is how long a watch goes on; clients begin another then.
const maxWatch = 10 * time.Minute

// refreshTime is how often, while somebody watches, it is looked whether the files of secrets and config maps have changed.
const refreshTime = 15 * time.Second

// watch sends changes, one line of JSON each, until the client has enough of them.
func (s *Shim) watch(w http.ResponseWriter, r *http.Request, res *resource, namespace string, want selector) {
	q := r.URL.Query()
	limit := maxWatch
	if n, err := strconv.Atoi(q.Get("timeoutSeconds")); err == nil && n > 0 {
		limit = min(limit, time.Duration(n)*time.Second)
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	sender := &sender{w: w, out: json.NewEncoder(w)}
	version, err := s.begin(sender, q, res, namespace, want)
	if err != nil {
		writeError(w, err)
		return
	}
	sender.flush()
	ticker := time.NewTicker(refreshTime)
	defer ticker.Stop()
	for {
		events, changed, ok := s.store.after(version)
		if !ok {
			sender.send("ERROR", failure(http.StatusGone, "Expired", "too old resource version: "+strconv.FormatUint(version, 10), key{}).object())
			return
		}
		for _, e := range events {
			version = e.version
			if e.key.r == res && (namespace == "" || namespace == e.key.namespace) && want.matches(e.object) {
				sender.send(e.kind, e.object)
			}
		}
		sender.flush()
		select {
		case <-changed:
		case <-ticker.C:
			_ = s.refresh(key{r: res}) // who gets it is told
		case <-ctx.Done():
			return
		case <-s.closing:
			return
		}
	}
}

// begin sends what is there, where it is asked for, and returns the version after which changes are to be sent.
func (s *Shim) begin(to *sender, q url.Values, res *resource, namespace string, want selector) (uint64, error) {
	asked := q.Get("resourceVersion")
	initial := q.Get("sendInitialEvents") == "true"
	if asked != "" && asked != "0" && !initial {
		version, err := strconv.ParseUint(asked, 10, 64)
		if err != nil {
			return 0, badRequest("invalid resource version %q", asked)
		}
		return version, nil
	}
	all, version := s.store.list(res, namespace)
	for _, o := range all {
		if want.matches(o) {
			to.send("ADDED", o)
		}
	}
	if initial {
		// Who asks so waits for this before it believes that it has all.
		to.send("BOOKMARK", object{"kind": res.kind, "apiVersion": res.apiVersion(), "metadata": object{
			"resourceVersion": strconv.FormatUint(version, 10), "annotations": object{"k8s.io/initial-events-end": "true"},
		}})
	}
	return version, nil
}

type sender struct {
	w     http.ResponseWriter
	out   *json.Encoder
	begun bool
}

func (s *sender) send(kind string, o object) {
	s.start()
	_ = s.out.Encode(object{"type": kind, "object": o})
}

func (s *sender) start() {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/json")
		s.w.WriteHeader(http.StatusOK)
	}
}

func (s *sender) flush() {
	s.start()
	if f, ok := s.w.(http.Flusher); ok {
		f.Flush()
	}
}
