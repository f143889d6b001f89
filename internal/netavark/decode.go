package netavark

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The limits of names, as Podman and the kernel have them.
const (
	maxName      = 255
	maxInterface = 15
)

// DecodeNetwork reads the configuration of a network. What no network can have is ErrInvalid.
func DecodeNetwork(in io.Reader) (n Network, err error) {
	if err := decode(in, &n); err != nil {
		return n, err
	}
	return n, n.check()
}

// DecodeContainer reads which container is to be connected, and where.
func DecodeContainer(in io.Reader) (c Container, err error) {
	if err := decode(in, &c); err != nil {
		return c, err
	}
	if err := c.Network.check(); err != nil {
		return c, err
	}
	switch o := c.Options; {
	case !plain(c.ID):
		return c, errdefs.Errorf(errdefs.ErrInvalid, "container ID %.80q: not letters and digits", c.ID)
	case o.Interface == "" || len(o.Interface) > maxInterface || o.Interface == "." || o.Interface == ".." || strings.ContainsAny(o.Interface, "/: \t\n\v\f\r\x00"):
		return c, errdefs.Errorf(errdefs.ErrInvalid, "interface %.80q: no interface can be called so", o.Interface)
	case o.MAC != "":
		if mac, err := net.ParseMAC(o.MAC); err != nil || len(mac) != 6 {
			return c, errdefs.Errorf(errdefs.ErrInvalid, "MAC %.80q: is none", o.MAC)
		}
	}
	return c, nil
}

func decode(in io.Reader, to any) error {
	limit := &io.LimitedReader{R: in, N: maxInput + 1}
	text, err := io.ReadAll(limit)
	if err != nil {
		return errdefs.Errorf(errdefs.ErrUnavailable, "standard input: %w", err)
	}
	if len(text) > maxInput {
		return errdefs.Errorf(errdefs.ErrInvalid, "standard input: longer than %d bytes", maxInput)
	}
	if err := json.Unmarshal(text, to); err != nil {
		if _, syntax := errors.AsType[*json.SyntaxError](err); syntax {
			return errdefs.Errorf(errdefs.ErrInvalid, "standard input: is not the JSON that netavark sends: %w", err)
		}
		return errdefs.Errorf(errdefs.ErrInvalid, "standard input: %w", err)
	}
	return nil
}

func (n Network) check() error {
	if n.Name == "" || len(n.Name) > maxName || strings.ContainsFunc(n.Name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' }) {
		return errdefs.Errorf(errdefs.ErrInvalid, "network %.80q: is no name of a network", n.Name)
	}
	if !plain(n.ID) {
		return errdefs.Errorf(errdefs.ErrInvalid, "network %q: ID %.80q is not letters and digits", n.Name, n.ID)
	}
	for _, s := range n.Subnets {
		if !s.Subnet.IsValid() {
			return errdefs.Errorf(errdefs.ErrInvalid, "network %q: a subnet is missing", n.Name)
		}
	}
	return nil
}

// plain reports whether an ID is one.
func plain(id string) bool {
	return id != "" && len(id) <= maxName && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}
