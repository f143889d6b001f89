package kernel

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// waysRest is how long changes may go on before they are looked at: they come in bunches.
const waysRest = 100 * time.Millisecond

// WatchWays calls changed whenever the ways out of this host have become others, until ctx ends: an address of a link, whether
// a link is up, a default route. Links that skip names do not count.
func WatchWays(ctx context.Context, skip func(link string) bool, changed func()) {
	before, _ := ways(skip) // without it the first event is one too many
	for ctx.Err() == nil {
		_ = watchWays(ctx, func() {
			if now, err := ways(skip); err == nil && !slices.Equal(now, before) {
				before = now
				changed()
			}
		})
		select { // it fell behind; what happened meanwhile is looked at first
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func watchWays(ctx context.Context, look func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	links, addrs, routes := make(chan netlink.LinkUpdate, 256), make(chan netlink.AddrUpdate, 256), make(chan netlink.RouteUpdate, 256)
	defer func() { // whoever writes to a full one ends when there is room
		cancel()
		go drain(links)
		go drain(addrs)
		go drain(routes)
	}()
	if err := netlink.LinkSubscribe(links, ctx.Done()); err != nil {
		return err
	}
	if err := netlink.AddrSubscribe(addrs, ctx.Done()); err != nil {
		return err
	}
	if err := netlink.RouteSubscribe(routes, ctx.Done()); err != nil {
		return err
	}
	look()
	var rested <-chan time.Time
	for {
		var ok bool
		select {
		case <-ctx.Done():
			return nil
		case <-rested:
			rested = nil
			look()
			continue
		case _, ok = <-links:
		case _, ok = <-addrs:
		case e, more := <-routes:
			if ok = more; e.Protocol == Protocol {
				continue
			}
		}
		if !ok {
			return nil
		}
		if rested == nil {
			rested = time.After(waysRest)
		}
	}
}

// drain reads what is left, until the subscription ends. One that never began has none.
func drain[T any](events <-chan T) {
	for end := time.After(time.Second); ; {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		case <-end:
			return
		}
	}
}

// ways says what WatchWays compares.
func ways(skip func(string) bool) (lines []string, err error) {
	links, err := retry(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		if skip(a.Name) || a.Name == "lo" {
			continue
		}
		names[a.Index] = a.Name
		lines = append(lines, fmt.Sprintf("link %s %d %v", a.Name, a.Index, a.OperState))
	}
	addrs, err := retry(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if name := names[a.LinkIndex]; name != "" {
			lines = append(lines, fmt.Sprintf("address %s %v", name, a.IPNet))
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := retry(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if name := names[r.LinkIndex]; name != "" && (r.Dst == nil || toPrefix(r.Dst).Bits() == 0) {
				lines = append(lines, fmt.Sprintf("route %s %v %d", name, r.Gw, r.Priority))
			}
		}
	}
	slices.Sort(lines)
	return lines, nil
}
