package rbd

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The guard is an advisory lock of the image, of which there is one at most. Its id says who has
// the image since when, and by which client of the cluster, so that whoever takes it away can put
// that client on the blocklist first: what it still writes is refused by every store from then
// on. Watchers are no guard: those of a host that is gone stay, and a host that hangs loses its
// own, and writes when it goes on.

// lock is a lock of an image.
type lock struct {
	ID      string `json:"id"`
	Locker  string `json:"locker"` // the rbd that took it, which has ended
	Address string `json:"address"`
}

// claim is what the id of one of our locks says.
type claim struct {
	Host, Boot, Nonce string
	Since             time.Time
	Clients           []string // addresses
}

const claimForm = "remora1"

func (c claim) String() string {
	return strings.Join([]string{claimForm, c.Host, c.Boot, c.Nonce, c.Since.UTC().Format(time.RFC3339), strings.Join(c.Clients, ",")}, " ")
}

// claim reads it, and is false for a lock that is not ours.
func (l lock) claim() (c claim, ok bool) {
	f := strings.Split(l.ID, " ")
	if len(f) != 6 || f[0] != claimForm {
		return c, false
	}
	since, err := time.Parse(time.RFC3339, f[4])
	c = claim{Host: f[1], Boot: f[2], Nonce: f[3], Since: since}
	if f[5] != "" {
		c.Clients = strings.Split(f[5], ",")
	}
	return c, err == nil
}

// holder is what the core hears of it. Who holds a lock of another kind is told by his address.
func (l lock) holder() block.Holder {
	if c, ok := l.claim(); ok {
		return block.Holder{Host: c.Host, State: block.Attached, Since: c.Since}
	}
	return block.Holder{Host: l.Address, State: block.Attached}
}

func (p *provider) locks(ctx context.Context, image string) ([]lock, error) {
	return ask[[]lock](ctx, p.cluster, "lock", "ls", p.spec(image))
}

// acquire takes the lock. It is ErrInUse where there is one already.
func (p *provider) acquire(ctx context.Context, image string, c claim) error {
	_, err := p.rbd(ctx, "lock", "add", p.spec(image), c.String())
	if status(err) == syscall.EBUSY {
		return errdefs.Errorf(errdefs.ErrInUse, "image %s was locked by another host meanwhile", image)
	}
	return err
}

// release takes a lock of this host's away. Nobody is put on the blocklist for it: who had the
// image by it has let it go.
func (p *provider) release(ctx context.Context, image string, l lock) error {
	_, err := p.rbd(ctx, "--rbd-blocklist-on-break-lock=false", "lock", "rm", p.spec(image), l.ID, l.Locker)
	if status(err) == enoent {
		return nil
	}
	return err
}

// fenced is how many seconds a client stays on the blocklist: a host that was stopped may be
// started again after years, and what it had in memory must reach nobody then.
const fenced = "157680000"

// steal takes a lock from whoever holds it, of whom nothing reaches the image any more.
func (p *provider) steal(ctx context.Context, image string, l lock) error {
	clients := []string{l.Address}
	if c, ok := l.claim(); ok {
		clients = c.Clients
	}
	for _, address := range clients {
		if _, err := p.within(ctx, 2*p.c.Timeout, "ceph", "osd", "blocklist", "add", address, fenced); err != nil {
			return errdefs.Hint(fmt.Errorf("the client %s cannot be put on the blocklist, so nothing was taken from it: %w", address, err),
				"the user of the pool needs mon 'profile rbd'")
		}
	}
	return p.release(ctx, image, l)
}

// watchers returns the addresses of the clients that have an image open.
func (p *provider) watchers(ctx context.Context, image string) (all []string, err error) {
	s, err := ask[struct {
		Watchers []struct{ Address string }
	}](ctx, p.cluster, "status", p.spec(image))
	for _, w := range s.Watchers {
		all = append(all, w.Address)
	}
	return all, err
}

func nonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// hostName is how this host is called in locks: by a name that no other host has, however often
// "localhost" occurs.
func hostName(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", errdefs.As(errdefs.ErrUnavailable, err)
	}
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil || len(strings.TrimSpace(string(id))) == 0 {
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "/etc/machine-id says nothing, and so two hosts called %q cannot be told apart", name), `say host = "NAME" in the pool, another one on each host`)
	}
	// The id itself is nobody's business (machine-id(5)).
	sum := sha256.Sum256([]byte("remora rbd " + string(id)))
	return fmt.Sprintf("%s-%x", strings.Map(plain, name), sum[:4]), nil
}

func plain(r rune) rune {
	if r <= ' ' || r == ',' || r > '~' {
		return '-'
	}
	return r
}

// bootID tells one run of the kernel from the next.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", errdefs.As(errdefs.ErrUnavailable, err)
	}
	return strings.TrimSpace(string(b)), nil
}
