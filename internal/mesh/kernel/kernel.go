// Package kernel makes the kernel what a plan says: links, addresses, neighbours, routes and rules. It first
// looks at what is there and changes only what differs, so that it can be called at any time, by a daemon
// that was killed a moment ago or because somebody flushed a table, and packets on their way notice nothing.
//
// What is not ours it leaves alone. Ours are the interfaces whose names begin with "rm-", the routes of one
// protocol number, and the tables of nftables that are named remora.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// Protocol is the number by which our routes are known ("ip route show proto 82").
const Protocol netlink.RouteProtocol = 82

// portAlias begins the alias of an interface that is a port of a network's bridge; the network's ID follows.
const portAlias = "remora network "

// Apply brings the kernel from what it is to the plan and returns what differed. An error of one thing does not keep
// the others from being done.
func Apply(ctx context.Context, p plan.Plan) (changes []string, err error) {
	k := &work{}
	k.try(k.links(p))
	k.try(k.neighbours(p))
	k.try(k.fdb(p))
	k.try(k.routes(p.Routes))
	k.try(k.rules(p.Rules))
	k.try(k.shortcuts(p.Shortcuts))
	k.try(k.forward(ctx))
	k.forwarding(p.IPv6)
	return k.changes, errors.Join(k.errs...)
}

// work counts what is done.
type work struct {
	changes []string
	errs    []error
	byName  map[string]netlink.Link
	byIndex map[int]netlink.Link
}

func (k *work) try(err error) {
	if err != nil {
		k.errs = append(k.errs, err)
	}
}

// did notes a change that was tried.
func (k *work) did(what string, err error) {
	k.changes = append(k.changes, what)
	if err != nil {
		k.errs = append(k.errs, fmt.Errorf("%s: %w", what, err))
	}
}

// refresh reads all links.
func (k *work) refresh() error {
	list, err := retry(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	k.byName, k.byIndex = map[string]netlink.Link{}, map[int]netlink.Link{}
	for _, l := range list {
		k.byName[l.Attrs().Name], k.byIndex[l.Attrs().Index] = l, l
	}
	return nil
}

// retry reads again what changed while it was read.
func retry[T any](read func() ([]T, error)) (list []T, err error) {
	for range 5 {
		if list, err = read(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return list, nil // what there is of it; the next look comes soon
}

// Remove takes away all that Apply ever made, by whichever version.
func Remove(ctx context.Context) error {
	k := &work{}
	k.try(k.routes(nil))
	k.try(k.refresh())
	for name, l := range k.byName {
		if strings.HasPrefix(name, plan.Prefix) {
			if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				k.try(fmt.Errorf("interface %q: %w", name, err))
			}
		}
	}
	k.try(noTable(nftables.TableFamilyINet))
	k.try(noTable(nftables.TableFamilyNetdev))
	k.try(k.noForward(ctx))
	return errors.Join(k.errs...)
}

// Exists reports whether there is an interface of a name.
func Exists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

// AttachPort makes an interface a port of a network's bridge, now and whenever the bridge is made again.
func AttachPort(network, name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %q: %w", name, err)
	}
	if err := netlink.LinkSetAlias(l, portAlias+network); err != nil {
		return fmt.Errorf("interface %q: %w", name, err)
	}
	b, err := netlink.LinkByName(plan.BridgeName(network))
	if err != nil {
		return fmt.Errorf("interface %q: %w", plan.BridgeName(network), err)
	}
	if err := errors.Join(netlink.LinkSetMasterByIndex(l, b.Attrs().Index), netlink.LinkSetUp(l)); err != nil {
		return fmt.Errorf("interface %q: %w", name, err)
	}
	return nil
}

// sysctl sets a value unless it is there. A kernel that lacks the key does not need it.
func (k *work) sysctl(value string, elems ...string) {
	path := filepath.Join(append([]string{"/proc/sys/net"}, elems...)...)
	now, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && strings.TrimSpace(string(now)) == value {
		return
	}
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0o644)
	}
	k.did("sysctl "+strings.Join(elems, "."), err)
}

// forwarding lets the host route. A host that takes its own way out from router advertisements would no longer
// listen to them; it is told to go on.
func (k *work) forwarding(v6 bool) {
	k.sysctl("1", "ipv4", "ip_forward")
	if !v6 {
		return
	}
	path := "/proc/sys/net/ipv6/conf"
	if now, err := os.ReadFile(path + "/all/forwarding"); err == nil && strings.TrimSpace(string(now)) == "0" {
		entries, _ := os.ReadDir(path)
		for _, e := range entries {
			if now, err := os.ReadFile(filepath.Join(path, e.Name(), "accept_ra")); err == nil && strings.TrimSpace(string(now)) == "1" {
				k.sysctl("2", "ipv6", "conf", e.Name(), "accept_ra")
			}
		}
	}
	k.sysctl("1", "ipv6", "conf", "all", "forwarding")
}

func toNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func toPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if bits == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones)
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func toIP(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}

func sameMAC(a net.HardwareAddr, text string) bool {
	b, err := net.ParseMAC(text)
	return err == nil && slices.Equal(a, b)
}
