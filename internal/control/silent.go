package control

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// silence is how long a stop waits for a connection on which nothing was asked yet. HTTP
// clients leave such behind, and [http.Server] would wait five seconds for each.
const silence = 100 * time.Millisecond

// silentConns are the connections of a server on which nothing was asked yet.
type silentConns struct {
	mu  sync.Mutex
	all map[net.Conn]bool
}

// trackSilent keeps an eye on the connections of hs, which does not serve yet.
func trackSilent(hs *http.Server) *silentConns {
	s := &silentConns{all: map[net.Conn]bool{}}
	hs.ConnState = func(c net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if state == http.StateNew {
			s.all[c] = true
		} else {
			delete(s.all, c)
		}
	}
	return s
}

func (s *silentConns) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.all {
		_ = c.Close() // nobody has asked anything on it
	}
}
