package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// wiretap reads all that passes the switch.
type wiretap struct {
	t       *testing.T
	fd      int
	secrets []string
	inner   netip.Prefix // addresses that must not be seen on a packet

	mu     sync.Mutex
	frames int
	bytes  int64
	found  map[string]int
	lost   uint32
}

// inTheClear is what is sent as it is, to see that it is found.
const inTheClear = "this one is meant to be found"

// listen begins to read, and has made sure that it reads: what one host sends the other in the clear is found.
func listen(t *testing.T, s *lab.Switch, from, to *lab.Host, secrets ...string) *wiretap {
	t.Helper()
	w := &wiretap{t: t, secrets: append(secrets[:len(secrets)-1:len(secrets)-1], inTheClear), inner: netip.MustParsePrefix(secrets[len(secrets)-1]), found: map[string]int{}}
	noErr(t, s.In(func() (err error) {
		every := uint16(unix.ETH_P_ALL)
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(every<<8|every>>8)); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000})
	}))
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); w.read(done) }()
	t.Cleanup(func() { close(done); <-ended; _ = unix.Close(w.fd) })
	at := s.Address(to)
	if !within(10*time.Second, func() bool {
		noErr(t, from.In(func() error {
			conn, err := net.Dial("udp4", net.JoinHostPort(at.String(), "9"))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte(inTheClear))
			return err
		}))
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.found[inTheClear] > 0
	}) {
		t.Fatal("what is sent in the clear is not seen")
	}
	return w
}

func (w *wiretap) read(done <-chan struct{}) {
	b := make([]byte, 64<<10)
	for {
		select {
		case <-done:
			return
		default:
		}
		n, _, err := unix.Recvfrom(w.fd, b, 0)
		if err != nil {
			continue // nothing came for a moment
		}
		w.look(b[:n])
	}
}

// look looks at one frame.
func (w *wiretap) look(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames++
	w.bytes += int64(len(b))
	for _, s := range w.secrets {
		if bytes.Contains(b, []byte(s)) {
			w.found[s]++
		}
	}
	const ethernet, v4 = 14, 20
	if len(b) < ethernet+v4 || b[12] != 0x08 || b[13] != 0 {
		return
	}
	for _, at := range [][]byte{b[ethernet+12 : ethernet+16], b[ethernet+16 : ethernet+20]} {
		if ip, _ := netip.AddrFromSlice(at); w.inner.Contains(ip) {
			w.found[w.inner.String()]++
		}
	}
}

// check fails the test for what was found.
func (w *wiretap) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for what, n := range w.found {
		if what != inTheClear {
			w.t.Errorf("%q was seen %d times between the hosts", what, n)
		}
	}
	if w.found[inTheClear] == 0 {
		w.t.Error("nothing was looked at")
	}
}

func (w *wiretap) summary() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		w.lost += s.Drops
	}
	var found []string
	for what := range w.found {
		if what != inTheClear {
			found = append(found, what)
		}
	}
	return fmt.Sprintf("%d packets with %d bytes looked at between the hosts, %d missed; in the clear: [%s]", w.frames, w.bytes, w.lost, strings.Join(found, ", "))
}
