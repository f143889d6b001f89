package network

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/names/daemonjson"
)

// before are the servers that the engine told its containers before it was told this one: names that are not the
// cluster's are asked there.
type before struct {
	in *inside

	mu    sync.Mutex
	at    time.Time
	known []netip.Addr
}

// servers returns them; none where nothing was installed.
func (b *before) servers() []netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.at) < believeFor {
		return b.known
	}
	b.at, b.known = time.Now(), nil
	i, err := b.in.u.s.installed()
	if err != nil || i == nil {
		return nil
	}
	told, err := daemonjson.Existing(i.File, i.Saved)
	if err != nil {
		return nil
	}
	own := b.in.gateways()
	for _, text := range told.Servers {
		if ip, err := netip.ParseAddr(text); err == nil && !slices.Contains(own, ip) {
			b.known = append(b.known, ip)
		}
	}
	return b.known
}

// believeFor is how long what stands in the engine's file is believed.
const believeFor = 10 * time.Second
