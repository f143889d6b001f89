package kubeshim

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// object is one of the API, as JSON has it. One that is in a store is never changed, but replaced.
type object = map[string]any

// key is which object it is.
type key struct {
	r               *resource
	namespace, name string
}

// event is a change, for who watches.
type event struct {
	kind    string // ADDED, MODIFIED, DELETED
	key     key
	object  object
	version uint64
}

const (
	// maxEvents is how many changes are remembered. Who is further behind lists again.
	maxEvents = 1000
	// maxObjects bounds what a driver can have kept.
	maxObjects = 1000
)

// store has the objects, in memory.
type store struct {
	mu      sync.Mutex
	objects map[key]object
	version uint64
	// first is the version before the oldest event.
	first   uint64
	events  []event
	changed chan struct{} // closed at each change
}

// newStore begins with a version that is later than any of a process before, as drivers outlive this one.
func newStore() *store {
	now := uint64(time.Now().UnixMicro()) //nolint:gosec // after 1970
	return &store{objects: map[key]object{}, version: now, first: now, changed: make(chan struct{})}
}

func meta(o object) object {
	m, _ := o["metadata"].(object)
	return m
}

func text(o object, field string) string {
	s, _ := o[field].(string)
	return s
}

// clone copies an object through JSON, whose types it has then.
func clone(o object) object {
	data, err := json.Marshal(o)
	var out object
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return object{}
	}
	return out
}

func (s *store) get(k key) (object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[k]
	if !ok {
		return nil, notFound(k)
	}
	return o, nil
}

// list returns objects by namespace and name, and the version that they are of. Namespace "" is all.
func (s *store) list(r *resource, namespace string) ([]object, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sorted(r, namespace), s.version
}

func (s *store) sorted(r *resource, namespace string) []object {
	keys := slices.SortedFunc(maps.Keys(s.objects), func(a, b key) int {
		if a.namespace != b.namespace {
			return compare(a.namespace, b.namespace)
		}
		return compare(a.name, b.name)
	})
	out := []object{}
	for _, k := range keys {
		if k.r == r && (namespace == "" || namespace == k.namespace) {
			out = append(out, s.objects[k])
		}
	}
	return out
}

func compare(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

// put makes or replaces an object, which is the store's from then on. change gets what is there, nil for nothing, and returns
// what is to be.
func (s *store) put(k key, change func(old object) (object, error)) (object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, there := s.objects[k]
	if !there && len(s.objects) >= maxObjects {
		return nil, failure(http.StatusForbidden, "Forbidden", fmt.Sprintf("there are %d objects already, and this API keeps no more", maxObjects), k)
	}
	next, err := change(old)
	if err != nil {
		return nil, err
	}
	next = clone(next)
	m := meta(next)
	if m == nil {
		m = object{}
		next["metadata"] = m
	}
	s.version++
	m["name"], m["resourceVersion"] = k.name, strconv.FormatUint(s.version, 10)
	if k.namespace != "" {
		m["namespace"] = k.namespace
	}
	for _, field := range []string{"uid", "creationTimestamp"} {
		if there {
			m[field] = meta(old)[field]
		}
	}
	if text(m, "uid") == "" {
		m["uid"] = uuid(k.r.kind, k.namespace, k.name, strconv.FormatUint(s.version, 10))
	}
	if text(m, "creationTimestamp") == "" {
		m["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
	}
	next["kind"], next["apiVersion"] = k.r.kind, k.r.apiVersion()
	s.objects[k] = next
	kind := "ADDED"
	if there {
		kind = "MODIFIED"
	}
	s.tell(event{kind, k, next, s.version})
	return next, nil
}

func (s *store) remove(k key) (object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[k]
	if !ok {
		return nil, notFound(k)
	}
	delete(s.objects, k)
	s.version++
	last := clone(o)
	meta(last)["resourceVersion"] = strconv.FormatUint(s.version, 10)
	s.tell(event{"DELETED", k, last, s.version})
	return o, nil
}

func (s *store) tell(e event) {
	s.events = append(s.events, e)
	if len(s.events) > maxEvents {
		s.first = s.events[0].version
		s.events = s.events[1:]
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// after returns the changes after a version, and what is closed at the next one. ok is false where not all are known.
func (s *store) after(version uint64) (events []event, changed <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version < s.first || version > s.version {
		return nil, nil, false
	}
	i := len(s.events)
	for i > 0 && s.events[i-1].version > version {
		i--
	}
	return slices.Clone(s.events[i:]), s.changed, true
}
