package engineapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/managed"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// events answers GET /events: what has happened since a time, and what happens until one.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	f, err := readFilters(r.URL.Query(), "type", "event", "plugin", "volume", "label", "scope", "container", "image", "network", "daemon")
	if err != nil {
		return err
	}
	since, err := moment(r.URL.Query().Get("since"))
	if err != nil {
		return err
	}
	until, err := moment(r.URL.Query().Get("until"))
	if err != nil {
		return err
	}
	past, next, stop := s.Plugins.Events().Subscribe(since)
	defer stop()
	var end <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		end = t.C
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	enc, flush := json.NewEncoder(w), http.NewResponseController(w)
	send := func(e managed.Event) error {
		if !wanted(f, e) || !until.IsZero() && e.At().After(until) {
			return nil
		}
		return enc.Encode(e)
	}
	for _, e := range past {
		if send(e) != nil {
			return nil // nobody reads any more
		}
	}
	for {
		if flush.Flush() != nil {
			return nil
		}
		select {
		case e, ok := <-next:
			if !ok || send(e) != nil {
				return nil
			}
		case <-end:
			return nil
		case <-r.Context().Done():
			return nil
		case <-s.Life.Done():
			return nil
		}
	}
}

// moment reads a time as the command sends it: seconds, with nanoseconds behind a point.
func moment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	sec, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return time.Time{}, errdefs.Errorf(errdefs.ErrInvalid, "%.40q is not a time in seconds", s)
	}
	nanos := int64(0)
	if frac != "" {
		if nanos, err = strconv.ParseInt((frac + "000000000")[:9], 10, 64); err != nil {
			return time.Time{}, errdefs.Errorf(errdefs.ErrInvalid, "%.40q is not a time in seconds", s)
		}
	}
	return time.Unix(n, nanos), nil
}

func wanted(f filters, e managed.Event) bool {
	is := func(key string, values ...string) bool {
		return len(f[key]) == 0 || slices.ContainsFunc(f[key], func(v string) bool { return slices.Contains(values, v) })
	}
	if !is("type", e.Type) || !is("event", e.Action) || !is("scope", e.Scope) {
		return false
	}
	for _, kind := range []string{"plugin", "volume", "container", "image", "network", "daemon"} {
		if len(f[kind]) > 0 && (e.Type != kind || !is(kind, e.Actor.ID, e.Actor.Attributes["name"])) {
			return false
		}
	}
	return f.labels("label", e.Actor.Attributes)
}
