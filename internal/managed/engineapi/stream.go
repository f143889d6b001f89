package engineapi

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"

	"github.com/remora-plugins/remora/internal/managed"
)

// message is a line of a stream, as the docker command reads it.
type message struct {
	Status         string        `json:"status,omitempty"`
	ProgressDetail *amount       `json:"progressDetail,omitempty"`
	ID             string        `json:"id,omitempty"`
	Error          string        `json:"error,omitempty"`
	ErrorDetail    *errorMessage `json:"errorDetail,omitempty"`
	Aux            any           `json:"aux,omitempty"`
}

type amount struct {
	Current int64 `json:"current,omitempty"`
	Total   int64 `json:"total,omitempty"`
}

type errorMessage struct {
	Message string `json:"message"`
}

// stream does something long and tells of its progress. An error before the first of it is answered as any other.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, do func(context.Context, managed.ProgressFunc) error) error {
	var mu sync.Mutex
	begun := false
	enc, flush := json.NewEncoder(w), http.NewResponseController(w)
	send := func(m message) {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
		}
		_ = enc.Encode(m) // the caller is gone: nobody is left to tell
		_ = flush.Flush() // likewise
	}
	err := do(r.Context(), func(p managed.Progress) {
		mu.Lock()
		defer mu.Unlock()
		send(toMessage(p))
	})
	mu.Lock()
	defer mu.Unlock()
	switch {
	case err != nil && !begun:
		w.Header().Del("Docker-Plugin-Name")
		return err
	case err != nil:
		send(message{Error: text(err), ErrorDetail: &errorMessage{text(err)}})
	case !begun:
		w.WriteHeader(http.StatusOK)
	}
	return nil
}

func toMessage(p managed.Progress) message {
	m := message{Status: p.Status, ID: p.ID}
	if p.Aux != nil {
		return message{Aux: p.Aux}
	}
	if p.Total > 0 || p.Current > 0 || len(p.ID) == 12 {
		m.ProgressDetail = &amount{p.Current, p.Total}
	}
	return m
}
