package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/internal/cluster/password"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/mesh"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
	"github.com/remora-plugins/remora/internal/names"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	savedName    = "launch.json"
	savedVersion = 1
)

// defaultRange is whence subnets are cut where nobody chose.
var defaultRange = netip.MustParsePrefix("10.32.0.0/12")

// saved is what a launch leaves for the next start. It holds secrets: the file is of mode 0600.
type saved struct {
	// Launched is false after a stop.
	Launched bool `json:"launched"`
	// Once: there was a launch.
	Once      bool           `json:"once"`
	Nickname  string         `json:"nickname"`
	Listen    string         `json:"listen"`
	Tunnel    uint16         `json:"tunnel"`
	Advertise []netip.Addr   `json:"advertise,omitempty"`
	Trusted   []netip.Prefix `json:"trusted,omitempty"`
	Domain    string         `json:"domain"`
	MTU       int            `json:"mtu,omitempty"`
	Range     netip.Prefix   `json:"range"`
	Subnet    netip.Prefix   `json:"subnet"`
	// Password is what the password became; none where there is none.
	Password *password.Key `json:"password,omitempty"`
	// TunnelKey is this host's WireGuard key.
	TunnelKey tunnel.Key `json:"tunnelKey"`
}

func (s *saved) read(root *os.Root) error {
	if err := state.Read(root, savedName, savedVersion, s); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.Hint(fmt.Errorf("network: what was launched: %w", err), "restore the file, or remove it and launch again")
	}
	return nil
}

func (s *saved) write(root *os.Root) error { return state.Write(root, savedName, savedVersion, s) }

// take puts what a launch asks for over what is remembered, and fills what is left with what is usual.
func (s *saved) take(r control.NetworkLaunchRequest) error {
	set := func(to *string, asked, usual string) {
		if asked != "" {
			*to = asked
		} else if *to == "" {
			*to = usual
		}
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	set(&s.Nickname, r.Nickname, host)
	set(&s.Listen, r.Listen, ":"+strconv.Itoa(controlPort))
	if r.Domain != "" {
		if r.Domain, err = names.Clean(r.Domain); err != nil {
			return err
		}
	}
	set(&s.Domain, r.Domain, names.DefaultDomain)
	if r.Tunnel != 0 || s.Tunnel == 0 {
		s.Tunnel = r.Tunnel
	}
	if s.Tunnel == 0 {
		s.Tunnel = mesh.TunnelPort
	}
	if r.Advertise != nil {
		s.Advertise = r.Advertise
	}
	if r.Trusted != nil {
		s.Trusted = r.Trusted
	}
	if r.MTU != 0 {
		s.MTU = r.MTU
	}
	if err := s.takeRange(r); err != nil {
		return err
	}
	return s.check()
}

func (s *saved) takeRange(r control.NetworkLaunchRequest) error {
	asked := r.Range.IsValid() || r.Subnet.IsValid()
	if asked && len(r.Peers) > 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "range: only the host that founds a cluster chooses it, and one that is given peers founds none")
	}
	if !asked && s.Range.IsValid() {
		return nil
	}
	s.Range = defaultRange
	if r.Range.IsValid() {
		s.Range = r.Range
	}
	s.Subnet = netip.PrefixFrom(s.Range.Addr(), max(s.Range.Bits(), min(16, s.Range.Bits()+4)))
	if r.Subnet.IsValid() {
		s.Subnet = r.Subnet
	}
	if !s.Range.Overlaps(s.Subnet) || s.Subnet.Bits() < s.Range.Bits() {
		return errdefs.Errorf(errdefs.ErrInvalid, "subnet %s: it is not in the range %s", s.Subnet, s.Range)
	}
	if !s.Range.Addr().Is4() || s.Subnet.Bits() > 28 {
		return errdefs.Errorf(errdefs.ErrInvalid, "range %s, subnet %s: want IPv4, and no less than a /28", s.Range, s.Subnet)
	}
	return nil
}

func (s *saved) check() error {
	if _, _, err := net.SplitHostPort(s.Listen); err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "listen %q: want an address and a port, such as :%d", s.Listen, controlPort)
	}
	if s.Nickname == "" || len(s.Nickname) > 253 || strings.ContainsFunc(s.Nickname, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errdefs.Errorf(errdefs.ErrInvalid, "nickname %.60q: want 1 to 253 letters without spaces", s.Nickname)
	}
	if s.MTU != 0 && (s.MTU < 1280 || s.MTU > 65535) {
		return errdefs.Errorf(errdefs.ErrInvalid, "mtu %d: want 1280 to 65535", s.MTU)
	}
	return nil
}
