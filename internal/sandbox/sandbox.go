// Package sandbox puts an interface of the host into a container's network namespace, which an engine of Docker's kind does itself
// and one of Podman's kind leaves to others.
package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// Interface is what there is to be in the namespace.
type Interface struct {
	// Link is the interface's name on the host, Name the one that it gets.
	Link, Name string
	MAC        net.HardwareAddr
	Addresses  []netip.Prefix
	Routes     []network.Route
}

// Attach moves an interface into the namespace at path, and sets it up. Where it fails, the caller deletes the interface.
func Attach(path string, i Interface) error {
	ns, h, err := enter(path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	defer h.Close()
	if _, err := h.LinkByName(i.Name); err == nil {
		return errdefs.Errorf(errdefs.ErrExists, "interface %q: the container has one of that name", i.Name)
	}
	link, err := netlink.LinkByName(i.Link)
	if err != nil {
		return fmt.Errorf("interface %q: %w", i.Link, err)
	}
	if err := netlink.LinkSetNsFd(link, int(ns)); err != nil {
		return fmt.Errorf("interface %q: into the container: %w", i.Link, err)
	}
	if err := setUp(h, i); err != nil {
		return fmt.Errorf("interface %q of the container: %w", i.Name, err)
	}
	return nil
}

// Detach deletes an interface in the namespace at path, and so its other end on the host. What is not there is no error, and a file that is no
// namespace is what is left of one that has gone.
func Detach(path, name string) error {
	ns, h, err := enter(path)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	defer h.Close()
	link, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkDel(link)
	}
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("interface %q of the container: %w", name, err)
	}
	return nil
}

// enter opens a namespace, and a socket in it.
func enter(path string) (netns.NsHandle, *netlink.Handle, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		err = &os.PathError{Op: "open", Path: path, Err: err}
		if errors.Is(err, os.ErrNotExist) {
			err = errdefs.As(errdefs.ErrNotFound, err)
		}
		return -1, nil, fmt.Errorf("network namespace: %w", err)
	}
	// Only files of that file system are namespaces; a handle of anything else fails late and says little.
	var at unix.Statfs_t
	if err := unix.Fstatfs(fd, &at); err != nil || at.Type != unix.NSFS_MAGIC {
		_ = unix.Close(fd)
		return -1, nil, errdefs.Errorf(errdefs.ErrNotFound, "network namespace: %q is none", path)
	}
	ns := netns.NsHandle(fd)
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		_ = ns.Close()
		return -1, nil, errdefs.Errorf(errdefs.ErrInvalid, "network namespace %q: %w", path, err)
	}
	return ns, h, nil
}

func setUp(h *netlink.Handle, i Interface) error {
	link, err := h.LinkByName(i.Link)
	if err != nil {
		return err
	}
	if err := h.LinkSetName(link, i.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if i.MAC != nil {
		if err := h.LinkSetHardwareAddr(link, i.MAC); err != nil {
			return fmt.Errorf("MAC %s: %w", i.MAC, err)
		}
	}
	for _, p := range i.Addresses {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // it is nobody else's, and of use at once
		}
		if err := h.AddrReplace(link, a); err != nil {
			return fmt.Errorf("address %s: %w", p, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	for _, r := range i.Routes {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.Destination), Scope: unix.RT_SCOPE_LINK}
		if r.NextHop.IsValid() {
			route.Gw, route.Scope = r.NextHop.AsSlice(), unix.RT_SCOPE_UNIVERSE
		}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %s: %w", r.Destination, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
