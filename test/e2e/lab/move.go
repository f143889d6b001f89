package lab

import (
	"fmt"
	"net/netip"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Split takes hosts off the switch to another one, where they reach each other and nobody else, until Heal.
func (s *Switch) Split(hosts ...*Host) {
	s.t.Helper()
	for _, h := range hosts {
		s.ip("-n", s.name, "link", "set", s.hosts[h].port, "master", "br1")
	}
}

// Hidden tells whether a host is behind a router.
func (s *Switch) Hidden(h *Host) bool { return s.hosts[h].router != "" }

// Move gives a host another address in the place of the one that it has, as a server of addresses may at any time.
func (s *Switch) Move(h *Host) {
	s.t.Helper()
	w := s.hosts[h]
	w.moves++
	if w.router != "" {
		old, now := fmt.Sprintf("192.168.%d.%d/24", w.n, 2+(w.moves-1)%200), fmt.Sprintf("192.168.%d.%d/24", w.n, 2+w.moves%200)
		h.Must("ip", "addr", "del", old, "dev", "eth0")
		h.Must("ip", "addr", "add", now, "dev", "eth0")
		h.Must("ip", "route", "replace", "default", "via", fmt.Sprintf("192.168.%d.1", w.n))
		return
	}
	old := w.address
	w.address = s.unused()
	h.Must("ip", "addr", "del", old+"/24", "dev", "eth0")
	h.Must("ip", "addr", "add", w.address+"/24", "dev", "eth0")
}

// unused is an address on the switch that nobody has, and nobody had lately.
func (s *Switch) unused() string {
	for {
		s.last++
		address := fmt.Sprintf("10.99.0.%d", 30+s.last%170)
		taken := false
		for _, w := range s.hosts {
			taken = taken || w.address == address
		}
		if !taken {
			return address
		}
	}
}

// natPorts are how many ports a router has for the tunnel of a host: with one alone it would have none left for a host that moved
// while it remembers where that was.
const natPorts = 63

// Rebind has the router before a host forget all connections, and give the host's tunnel other ports outside, one for each host that it
// talks to, as a router does that was started anew. With move it has another address as well.
func (s *Switch) Rebind(h *Host, udp uint16, port uint16, move bool) {
	s.t.Helper()
	w := s.hosts[h]
	old := w.address
	if move {
		w.address = s.unused()
	}
	s.ip("netns", "exec", w.router, "nft", fmt.Sprintf(`flush chain ip nat out
		add rule ip nat out oifname "wan" udp sport %d masquerade to :%d-%d
		add rule ip nat out oifname "wan" masquerade`, udp, port, port+natPorts))
	// With its address the kernel forgets what was translated to it.
	s.ip("-n", w.router, "addr", "del", old+"/24", "dev", "wan")
	s.ip("-n", w.router, "addr", "add", w.address+"/24", "dev", "wan")
}

// Address is where a host is on the switch, or the router before it.
func (s *Switch) Address(h *Host) netip.Addr { return netip.MustParseAddr(s.hosts[h].address) }

// In runs f in the network namespace of a process. Sockets that it opens stay there.
func In(pid int, f func() error) error { return inNamespaceOf("/proc/"+strconv.Itoa(pid)+"/ns/net", f) }

// In runs f in the network namespace of the host.
func (h *Host) In(f func() error) error { return In(h.pid, f) }

// In runs f in the network namespace of the switch.
func (s *Switch) In(f func() error) error { return inNamespaceOf("/run/netns/"+s.name, f) }

func inNamespaceOf(path string, f func() error) error {
	there, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(there)
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine
		err := unix.Setns(there, unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		failed <- err
	}()
	return <-failed
}
