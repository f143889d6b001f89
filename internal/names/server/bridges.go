package server

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
)

// Bridges tells who is behind a bridge of this host that leads nowhere else: containers of networks that are not
// the cluster's. They ask this server too when the engine has been told to use it for all. A bridge that a
// network card is a part of has the neighbourhood behind it, which is not served.
type Bridges struct {
	prefixes atomic.Pointer[[]netip.Prefix]
	read     atomic.Int64 // when, in nanoseconds
	mu       sync.Mutex
}

// The least and the longest time after which the bridges are looked at again: for an asker who is not known, and for one
// who is.
const (
	readAgain = 200 * time.Millisecond
	readOld   = 10 * time.Second
)

// Contains reports whether an address is behind such a bridge.
func (b *Bridges) Contains(a netip.Addr) bool {
	old := time.Since(time.Unix(0, b.read.Load()))
	known := old < readOld && b.has(a)
	if known || old < readAgain {
		return known
	}
	b.refresh()
	return b.has(a)
}

func (b *Bridges) has(a netip.Addr) bool {
	if all := b.prefixes.Load(); all != nil {
		for _, p := range *all {
			if p.Contains(a) {
				return true
			}
		}
	}
	return false
}

// refresh keeps what it knew if the kernel does not tell.
func (b *Bridges) refresh() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(time.Unix(0, b.read.Load())) < readAgain {
		return // somebody did it meanwhile
	}
	if all, err := bridged(); err == nil {
		b.prefixes.Store(&all)
	}
	b.read.Store(time.Now().UnixNano())
}

// inner are the kinds of interfaces that end on this host, or in a tunnel.
var inner = map[string]bool{"veth": true, "vxlan": true, "tuntap": true, "dummy": true, "ifb": true}

func bridged() ([]netip.Prefix, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	outward := map[int]bool{}
	for _, l := range links {
		if master := l.Attrs().MasterIndex; master != 0 && !inner[l.Type()] {
			outward[master] = true
		}
	}
	var all []netip.Prefix
	for _, l := range links {
		if l.Type() != "bridge" || outward[l.Attrs().Index] {
			continue
		}
		list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, err
		}
		for _, at := range list {
			ip, ok := netip.AddrFromSlice(at.IP)
			ones, _ := at.Mask.Size()
			if p := netip.PrefixFrom(ip.Unmap(), ones); ok && p.IsValid() {
				all = append(all, p.Masked())
			}
		}
	}
	return all, nil
}
