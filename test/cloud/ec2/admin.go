package ec2

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"
)

// Admin is what a test in another process has in place of the methods of [Cloud]:
//
//	GET    /counts      how often each action was called
//	DELETE /counts      begin to count anew
//	POST   /faults      {"Kind": "hang", "Action": "AttachVolume", "Seconds": 30, "Count": 1}
//	DELETE /faults      no more of them
//	POST   /instances   an [InstanceSpec]; the answer is a [Started]
type Admin struct {
	cloud *Cloud
	mux   *http.ServeMux

	mu       sync.Mutex
	metadata []*httptest.Server
}

// Started is where an instance is to be found.
type Started struct {
	ID       string
	Zone     string
	Dev      string // its /dev
	Sys      string // its /sys
	Metadata string // the address of its metadata service
}

// NewAdmin makes an http.Handler for the cloud.
func NewAdmin(c *Cloud) *Admin {
	a := &Admin{cloud: c, mux: http.NewServeMux()}
	a.mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) { answer(w, c.Counts()) })
	a.mux.HandleFunc("DELETE /counts", func(http.ResponseWriter, *http.Request) { c.ResetCounts() })
	a.mux.HandleFunc("DELETE /faults", func(http.ResponseWriter, *http.Request) { c.Heal() })
	a.mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f struct {
			Fault
			Seconds float64
		}
		if decode(w, r, &f) {
			if !slices.Contains(faultKinds, f.Kind) {
				http.Error(w, fmt.Sprintf("kind %q: want one of %q", f.Kind, faultKinds), http.StatusBadRequest)
				return
			}
			f.For = time.Duration(f.Seconds * float64(time.Second))
			c.Break(f.Fault)
		}
	})
	a.mux.HandleFunc("POST /instances", func(w http.ResponseWriter, r *http.Request) {
		var spec InstanceSpec
		if !decode(w, r, &spec) {
			return
		}
		s, err := a.Start(spec)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(w, s)
	})
	return a
}

// ServeHTTP answers a call of the list above.
func (a *Admin) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// Start adds an instance, and serves its metadata on an address of the loopback.
func (a *Admin) Start(spec InstanceSpec) (Started, error) {
	i, err := a.cloud.AddInstance(spec)
	if err != nil {
		return Started{}, err
	}
	s := httptest.NewServer(i.Metadata())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.metadata = append(a.metadata, s)
	return Started{i.ID, i.Zone, i.Machine().Dev(), i.Machine().Sys(), s.URL}, nil
}

// Close ends the metadata services.
func (a *Admin) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.metadata {
		s.Close()
	}
}

func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
