package fake

import (
	"bytes"
	"cmp"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// What a fault does to a call.
const (
	// Hang lets the call wait. If the caller hangs up meanwhile nothing happens, else it
	// is served.
	Hang = "hang"
	// HangAfter serves the call and then lets its answer wait.
	HangAfter = "hang-after"
	// Fail answers with the cloud's own server error; nothing happens.
	Fail = "fail"
	// Lose serves the call, and cuts the connection in place of an answer.
	Lose = "lose"
	// Throttle answers as the cloud does when it is called too often; nothing happens.
	Throttle = "throttle"
	// Errored accepts the call, and what it began ends in an error later.
	Errored = "errored"
)

// Fault is trouble for calls of one kind.
type Fault struct {
	// Call is the kind of call, such as "volumes.attach"; empty is every call.
	Call string `json:"call"`
	What string `json:"what"`
	// Skip lets so many calls pass before the first is hit.
	Skip int `json:"skip"`
	// Times is how many calls are hit; 0 is all until the faults are cleared.
	Times int `json:"times"`
	// For is how long a call hangs, in seconds; 0 is 30.
	For float64 `json:"for"`
}

func (f *Fault) wait() time.Duration {
	return time.Duration(cmp.Or(f.For, 30) * float64(time.Second))
}

// Count is how often a kind of call was made and what became of it.
type Count struct {
	Calls     int `json:"calls"`
	Throttled int `json:"throttled,omitempty"`
	// Failed is how many were answered with any other status of 400 and above.
	Failed int `json:"failed,omitempty"`
}

// Calls counts a cloud's calls by kind and troubles some of them. The zero value is ready.
type Calls struct {
	mu     sync.Mutex
	counts map[string]Count
	faults []*Fault
}

// Add adds a fault. Where several fit a call, the oldest hits it.
func (c *Calls) Add(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, &f)
}

// Clear takes all faults away.
func (c *Calls) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// Counts returns the counters by kind of call.
func (c *Calls) Counts() map[string]Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// Total is how many calls of all kinds were made.
func (c *Calls) Total() (n int) {
	for _, count := range c.Counts() {
		n += count.Calls
	}
	return n
}

// Reset sets the counters to zero.
func (c *Calls) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts = nil
}

// Errored reports whether what a call of this kind begins is to end in an error.
func (c *Calls) Errored(kind string) bool {
	return c.take(kind, func(what string) bool { return what == Errored }) != nil
}

func (c *Calls) take(kind string, wanted func(string) bool) *Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range c.faults {
		switch {
		case f.Call != "" && f.Call != kind, !wanted(f.What):
			continue
		case f.Skip > 0:
			f.Skip--
			continue
		case f.Times == 1:
			c.faults = slices.Delete(c.faults, i, i+1)
		case f.Times > 1:
			f.Times--
		}
		hit := *f
		return &hit
	}
	return nil
}

// Style is how a cloud says no.
type Style struct {
	// Fail answers a call with a server error.
	Fail http.HandlerFunc
	// Throttle answers a call that was one too many, Retry-After and all.
	Throttle http.HandlerFunc
}

// Serve serves one call of a kind: it is counted, and troubled if a fault says so.
func (c *Calls) Serve(w http.ResponseWriter, r *http.Request, kind string, style Style, next http.HandlerFunc) {
	seen := &watcher{ResponseWriter: w, status: http.StatusOK}
	throttled := false
	defer func() { c.count(kind, seen.status, throttled) }()

	f := c.take(kind, func(what string) bool { return what != Errored })
	if f == nil {
		next(seen, r)
		throttled = seen.throttled
		return
	}
	switch f.What {
	case Hang:
		if pause(r, f.wait()) {
			next(seen, r)
		}
	case HangAfter:
		answer := &held{header: http.Header{}, status: http.StatusOK}
		next(answer, r)
		pause(r, f.wait())
		answer.send(seen)
	case Fail:
		style.Fail(seen, r)
	case Lose:
		next(&held{header: http.Header{}}, r)
		panic(http.ErrAbortHandler) // net/http closes the connection and logs nothing
	case Throttle:
		throttled = true
		style.Throttle(seen, r)
	default:
		http.Error(seen, "no fault is called "+f.What, http.StatusInternalServerError)
	}
}

func (c *Calls) count(kind string, status int, throttled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]Count{}
	}
	n := c.counts[kind]
	n.Calls++
	switch {
	case throttled:
		n.Throttled++
	case status >= http.StatusBadRequest:
		n.Failed++
	}
	c.counts[kind] = n
}

// pause waits in real time, for the caller does so too. It reports false where the caller
// hung up.
func pause(r *http.Request, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
		return false
	}
}

// watcher notes the status of an answer.
type watcher struct {
	http.ResponseWriter
	status    int
	throttled bool
}

func (w *watcher) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Throttled tells the counters that the answer to a call is a throttle.
func Throttled(w http.ResponseWriter) {
	if w, ok := w.(*watcher); ok {
		w.throttled = true
	}
}

// held is an answer that is not sent yet, or never.
type held struct {
	header http.Header
	body   bytes.Buffer
	status int
}

func (h *held) Header() http.Header         { return h.header }
func (h *held) WriteHeader(status int)      { h.status = status }
func (h *held) Write(b []byte) (int, error) { return h.body.Write(b) }

func (h *held) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), h.header)
	w.WriteHeader(h.status)
	w.Write(h.body.Bytes())
}
