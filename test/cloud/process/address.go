package process

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// guard is a port that no server uses.
const guard = "4"

// Address is an address of loopback that belongs to one test at a time, so that its servers
// can listen on their usual ports.
type Address struct {
	IP   string
	hold net.Listener
}

// NewAddress takes an address that nobody else has.
func NewAddress() (*Address, error) {
	var last error
	for range 100 {
		ip := fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(128), rand.IntN(256), 1+rand.IntN(254))
		l, err := net.Listen("tcp", net.JoinHostPort(ip, guard))
		if err == nil {
			return &Address{ip, l}, nil
		}
		last = err
	}
	return nil, errors.Join(errors.New("no address of loopback is free"), last)
}

// At returns the address with a port.
func (a *Address) At(port int) string { return fmt.Sprintf("%s:%d", a.IP, port) }

// Release gives the address back.
func (a *Address) Release() { _ = a.hold.Close() }
