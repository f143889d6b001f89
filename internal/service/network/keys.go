package network

import (
	"crypto/ecdh"
	"crypto/rand"

	"github.com/remora-plugins/remora/internal/mesh/tunnel"
)

// newTunnelKey makes a WireGuard key.
func newTunnelKey() (tunnel.Key, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return tunnel.Key{}, err
	}
	return tunnel.Key(k.Bytes()), nil
}

// publicKey is the other half of one.
func publicKey(private tunnel.Key) ([32]byte, error) {
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(k.PublicKey().Bytes()), nil
}
