package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// use is what somebody does with a volume, as far as others have to know.
type use int

const (
	// looking is a snapshot, or the source of a clone.
	looking use = iota
	// backingUp is a backup.
	backingUp
	// changing is a restore, a rollback, a removal: whoever looked meanwhile would see half of it.
	changing
)

// beside tells whether two may use a volume at the same time.
func (u use) beside(other use) bool {
	return u != changing && other != changing && (u != backingUp || other != backingUp)
}

// claims say who uses which volume. They are in memory alone: what they stand for ends with the
// daemon too. The zero value has none.
type claims struct {
	mu   sync.Mutex
	held map[[2]string][]*claim
}

// claim is one use of a volume.
type claim struct {
	use   use
	what  string
	since time.Time
}

// claimed is the key of the context of one who has claims.
type claimed struct{}

// take claims a volume until release is called, or says who has it. The context that it returns
// is that of the holder, who is not kept out by his own claim.
func (c *claims) take(ctx context.Context, pool, name string, u use, what string) (own context.Context, release func(), err error) {
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

// check says who keeps a volume from being used so.
func (c *claims) check(ctx context.Context, pool, name string, u use) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conflict(ctx, pool, name, u)
}

// conflict is check with mu held.
func (c *claims) conflict(ctx context.Context, pool, name string, u use) error {
	own, _ := ctx.Value(claimed{}).([]*claim)
	for _, x := range c.held[[2]string{pool, name}] {
		if !u.beside(x.use) && !slices.Contains(own, x) {
			err := errdefs.Errorf(errdefs.ErrInUse, "busy: %s, since %s", x.what, x.since.Format(time.TimeOnly))
			return errdefs.As(schedule.ErrBusy, errdefs.Hint(err, "try again when it has ended"))
		}
	}
	return nil
}

// mayRemove refuses the removal of a volume that something is done with, that is being filled, or that
// is protected.
func (d *Daemon) mayRemove(pool string) func(context.Context, string) error {
	protected, filled := d.protected().mayRemove(pool), d.fills.mayRemove(pool)
	return func(ctx context.Context, name string) error {
		if err := d.claims.check(ctx, pool, name, changing); err != nil {
			return err
		}
		if err := filled(ctx, name); err != nil {
			return err
		}
		return protected(ctx, name)
	}
}
