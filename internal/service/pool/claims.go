package pool

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Use is what somebody does with a volume, as far as others have to know.
type Use int

const (
	// Looking is a snapshot, or the source of a clone.
	Looking Use = iota
	// BackingUp is a backup.
	BackingUp
	// Changing is a restore, a rollback, a removal: whoever looked meanwhile would see half of it.
	Changing
)

// beside tells whether two may use a volume at the same time.
func (u Use) beside(other Use) bool {
	return u != Changing && other != Changing && (u != BackingUp || other != BackingUp)
}

// Claims say who uses which volume. They are in memory alone: what they stand for ends with the
// daemon too. The zero value has none.
type Claims struct {
	mu   sync.Mutex
	held map[[2]string][]*claim
}

// claim is one use of a volume.
type claim struct {
	use   Use
	what  string
	since time.Time
}

// claimed is the key of the context of one who has claims.
type claimed struct{}

// Take Claims a volume until release is called, or says who has it. The context that it returns
// is that of the holder, who is not kept out by his own claim.
func (c *Claims) Take(ctx context.Context, pool, name string, u Use, what string) (own context.Context, release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.conflict(ctx, pool, name, u); err != nil {
		return ctx, nil, fmt.Errorf("volume %q: %w", name, err)
	}
	mine := &claim{u, what, time.Now()}
	key := [2]string{pool, name}
	if c.held == nil {
		c.held = map[[2]string][]*claim{}
	}
	c.held[key] = append(c.held[key], mine)
	release = sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.held[key] = slices.DeleteFunc(c.held[key], func(x *claim) bool { return x == mine })
		if len(c.held[key]) == 0 {
			delete(c.held, key)
		}
	})
	before, _ := ctx.Value(claimed{}).([]*claim)
	return context.WithValue(ctx, claimed{}, append(slices.Clone(before), mine)), release, nil
}

// Check says who keeps a volume from being used so.
func (c *Claims) Check(ctx context.Context, pool, name string, u Use) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conflict(ctx, pool, name, u)
}

// conflict is Check with mu held.
func (c *Claims) conflict(ctx context.Context, pool, name string, u Use) error {
	own, _ := ctx.Value(claimed{}).([]*claim)
	for _, x := range c.held[[2]string{pool, name}] {
		if !u.beside(x.use) && !slices.Contains(own, x) {
			err := errdefs.Errorf(errdefs.ErrInUse, "busy: %s, since %s", x.what, x.since.Format(time.TimeOnly))
			return errdefs.As(schedule.ErrBusy, errdefs.Hint(err, "try again when it has ended"))
		}
	}
	return nil
}
