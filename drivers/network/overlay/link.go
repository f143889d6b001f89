package overlay

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/network"
)

// portNames are those of the two ends of a pair, of which the first stays on the host.
func portNames(endpoint string) (outside, inside string) {
	hash := sha256.Sum256([]byte(endpoint)) // IDs of other engines may begin alike
	short := hex.EncodeToString(hash[:6])[:11]
	return "rmv" + short, "rmv" + short + "c"
}

// macOf is the MAC of an endpoint, which the same address always has: neighbours of a container that is started
// anew need not learn another one.
func macOf(ep network.Endpoint) net.HardwareAddr {
	if ep.IPv4.IsValid() {
		b := ep.IPv4.Addr().As4()
		return net.HardwareAddr{0x02, 0x72, b[0], b[1], b[2], b[3]}
	}
	hash := sha256.Sum256(ep.IPv6.Addr().AsSlice())
	return append(net.HardwareAddr{0x06, 0x72}, hash[:4]...)
}

// makePair makes a pair of interfaces, or finds it. Half a pair that another call or a sandbox left is made anew.
func makePair(outside, inside string, mtu int, mac net.HardwareAddr) error {
	if _, err := netlink.LinkByName(inside); err != nil {
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); !gone {
			return err
		}
		if err := removeLink(outside); err != nil {
			return err
		}
		a := netlink.NewLinkAttrs()
		a.Name, a.MTU = outside, mtu
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: inside, PeerHardwareAddr: mac, PeerMTU: uint32(mtu)}); err != nil {
			return err
		}
	}
	host, err := netlink.LinkByName(outside)
	if err != nil {
		return err
	}
	// The bridge is the host's end of the network: the port has no addresses of its own.
	if err := netlink.LinkSetIP6AddrGenMode(host, 1); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("addresses of its own: %w", err)
	}
	return netlink.LinkSetUp(host)
}

// removeLink removes an interface, with its other end; one that is not there is no error.
func removeLink(name string) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
