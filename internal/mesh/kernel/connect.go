package kernel

import (
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// buffer is what a connection to nftables may hold, in bytes, each way. The kernel answers each message of a transaction
// before the first answer is read: with its default of 208 KiB the answers about four networks are lost.
const buffer = 32 << 20

// connect opens a connection to nftables.
func connect() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		if err := c.SetReadBuffer(buffer); err != nil {
			return err
		}
		return c.SetWriteBuffer(buffer)
	}))
}
