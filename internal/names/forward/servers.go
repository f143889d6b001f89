package forward

import (
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// look is how often the file is looked at.
const look = time.Second

// probeAgain is how often servers are looked at again that fail or ask this one: what runs on the host may have been told otherwise
// since, and the file says nothing of that.
const probeAgain = 30 * time.Second

// maxServers bounds the servers that are taken from the file.
const maxServers = 6

// servers are those of the host.
type servers struct {
	mu      sync.Mutex
	looked  time.Time
	file    os.FileInfo
	all     []netip.AddrPort
	failed  map[netip.AddrPort]time.Time
	looping map[netip.AddrPort]bool
	probed  time.Time
}

// list returns the servers in the order in which to ask them, and whether they are others than before: those that are
// given, else the file's. A file that cannot be read, or names none, as it may for a moment while a network comes
// up, changes nothing.
func (s *servers) list(given []netip.AddrPort, path string, port uint16, now time.Time) (all []netip.AddrPort, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(given) > 0:
		s.file, s.looked = nil, time.Time{}
		changed = s.become(given)
	case now.Sub(s.looked) >= look:
		s.looked = now
		if fi, err := os.Stat(path); err == nil && (s.file == nil || !os.SameFile(fi, s.file) || !fi.ModTime().Equal(s.file.ModTime()) || fi.Size() != s.file.Size()) {
			s.file = fi
			changed = s.become(readServers(path, port))
		}
	}
	all = slices.Clone(s.all)
	slices.SortStableFunc(all, func(a, b netip.AddrPort) int { return s.rank(a, now) - s.rank(b, now) })
	return all, changed
}

// become takes other servers for those that there are, unless they are none.
func (s *servers) become(all []netip.AddrPort) (changed bool) {
	if len(all) == 0 || slices.Equal(all, s.all) {
		return false
	}
	s.all = all
	s.failed, s.looping = map[netip.AddrPort]time.Time{}, map[netip.AddrPort]bool{}
	return true
}

// rank is 1 for a server that has failed lately, which is asked after the others.
func (s *servers) rank(a netip.AddrPort, now time.Time) int {
	if at, ok := s.failed[a]; ok && now.Sub(at) < sticky {
		return 1
	}
	return 0
}

func (s *servers) good(a netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failed, a)
}

func (s *servers) bad(a netip.AddrPort, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		s.failed[a] = now
	}
}

// loop notes that a server asks us, and reports whether that is news.
func (s *servers) loop(a netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looping == nil || s.looping[a] {
		return false
	}
	s.looping[a] = true
	return true
}

// straight notes that a server does not ask us, and reports whether that is news.
func (s *servers) straight(a netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.looping[a]
	delete(s.looping, a)
	return was
}

// due reports whether it is time to look for loops: the servers are others, or something is wrong with them.
func (s *servers) due(changed bool, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	wrong := len(s.failed) > 0 || len(s.looping) > 0
	if !changed && (!wrong || now.Sub(s.probed) < probeAgain) {
		return false
	}
	s.probed = now
	return true
}

func (s *servers) loops(a netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looping[a]
}

// readServers returns the servers that a file in the form of resolv.conf(5) names.
func readServers(path string, port uint16) []netip.AddrPort {
	cfg, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil
	}
	var all []netip.AddrPort
	for _, text := range cfg.Servers {
		a, err := netip.ParseAddr(text)
		at := netip.AddrPortFrom(a.Unmap(), port)
		if err == nil && len(all) < maxServers && !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	return all
}
