package network

import (
	"fmt"
	"net/netip"
	"strconv"
)

// Protocol is the number of a transport protocol in an IP header.
type Protocol uint8

// The protocols of which Docker publishes ports.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns the word Docker uses, such as "tcp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

// Port is a port of a container.
type Port struct {
	Protocol Protocol
	Number   uint16
}

// String returns the port as Docker writes it, such as "80/tcp".
func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Protocol) }

// PortBinding is a port of a container that the user wants published.
type PortBinding struct {
	// Port is the container's.
	Port Port
	// IP is the container's address, if the engine says it.
	IP netip.Addr
	// HostIP is where to listen; zero is everywhere.
	HostIP netip.Addr
	// HostPort to HostPortEnd are the ports of the host of which one is to be taken; 0 is
	// any.
	HostPort, HostPortEnd uint16
}

// short abbreviates an ID as Docker does.
func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
