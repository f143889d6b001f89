// Package probe asks other hosts whether they answer, how fast, and how large a packet they still get. It
// sends the kernel's own echo requests, which the kernel of the other host answers, so that a host whose daemon is
// stopped answers as well.
package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	header4 = 20 + 8
	header6 = 40 + 8
	token   = 16
	// Least is the size of the smallest probe.
	Least = header6 + token
)

// Prober sends probes.
type Prober struct {
	four, six *net.IPConn
	mu        sync.Mutex
	waiting   map[[token]byte]chan struct{}
}

// New opens the sockets. A host without one of the families has none for it.
func New(ctx context.Context) (*Prober, error) {
	p := &Prober{waiting: map[[token]byte]chan struct{}{}}
	var errs [2]error
	p.four, errs[0] = listen(ctx, "ip4:icmp", func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	})
	p.six, errs[1] = listen(ctx, "ip6:ipv6-icmp", func(fd int) error {
		var only unix.ICMPv6Filter
		for i := range only.Data {
			only.Data[i] = ^uint32(0)
		}
		only.Data[reply6/32] &^= 1 << (reply6 % 32)
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1),
			unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &only))
	})
	if p.four == nil && p.six == nil {
		return nil, fmt.Errorf("probe: %w", errors.Join(errs[:]...))
	}
	for _, c := range []*net.IPConn{p.four, p.six} {
		if c != nil {
			go p.read(c)
		}
	}
	return p, nil
}

func listen(ctx context.Context, network string, set func(fd int) error) (*net.IPConn, error) {
	var lc net.ListenConfig
	lc.Control = func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = set(int(fd)) }), err)
	}
	c, err := lc.ListenPacket(ctx, network, "")
	if err != nil {
		return nil, err
	}
	return c.(*net.IPConn), nil
}

// Close ends all probes that are under way.
func (p *Prober) Close() error {
	var errs []error
	for _, c := range []*net.IPConn{p.four, p.six} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// Of ICMP, in both families.
const (
	request4, reply4 = 8, 0
	request6, reply6 = 128, 129
)

func (p *Prober) read(c *net.IPConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromIP(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		kind := byte(reply6)
		if from.IP.To4() != nil {
			kind = reply4
		}
		if n < 8+token || b[0] != kind {
			continue
		}
		t := [token]byte(b[8 : 8+token])
		p.mu.Lock()
		if done := p.waiting[t]; done != nil {
			close(done)
			delete(p.waiting, t)
		}
		p.mu.Unlock()
	}
}

// Ping sends one probe, of a size with all headers of IP, and reports how long the answer took, and whether there was
// one before ctx ended.
func (p *Prober) Ping(ctx context.Context, to netip.Addr, size int) (time.Duration, bool) {
	c, header, kind := p.six, header6, byte(request6)
	if to.Is4() {
		c, header, kind = p.four, header4, request4
	}
	if c == nil {
		return 0, false
	}
	m := make([]byte, max(size, header+token)-header+8)
	m[0] = kind
	var t [token]byte
	_, _ = rand.Read(t[:])
	copy(m[8:], t[:])
	if to.Is4() {
		binary.BigEndian.PutUint16(m[2:], checksum(m))
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.waiting[t] = done
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, t)
		p.mu.Unlock()
	}()
	began := time.Now()
	if _, err := c.WriteToIP(m, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, false
	}
	select {
	case <-done:
		return time.Since(began), true
	case <-ctx.Done():
		return 0, false
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// step is how exactly the largest size is looked for.
const step = 4

// Largest returns the largest size, of those from least to most, that fits. least is not asked for: where
// even that does not fit there is nothing better.
func Largest(least, most int, fits func(size int) bool) int {
	if most <= least || fits(most) {
		return max(least, most)
	}
	low, high := least, most // low fits, high does not
	for high-low > step {
		middle := low + (high-low)/2
		if fits(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}
