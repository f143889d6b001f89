package block

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// place is that of a request which waits for room, among all of its account.
type place struct {
	number uint64        // in the order in which they came
	wake   chan struct{} // has something in it when this may be the first one now
}

// number returns the next one. A request that is made again keeps the one it has.
func (c *Client) number() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.numbers++
	return c.numbers
}

// admit waits until a request may be made. Who came first goes first: a mount does not wait for ever
// behind a list of many pages that began later.
func (c *Client) admit(ctx context.Context, number uint64) error {
	p := c.join(number)
	defer c.leave(p)
	for {
		wait := c.take(p, time.Now())
		if wait <= 0 {
			return nil
		}
		t := time.NewTimer(wait)
		select {
		case <-p.wake:
			t.Stop()
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			if wait := c.isClosed(); wait > 0 {
				return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s: too many requests; the cloud wants none for another %s: %w", c.account, wait.Round(time.Second), context.Cause(ctx)),
					"wait; if it comes again, lower rate in the pools of this account, or see what else uses it")
			}
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s: no room for another request: %w", c.account, context.Cause(ctx)),
				"more is asked for than rate lets through: raise it in the pools of this account, if the cloud takes more")
		}
	}
}

// join puts a request in line.
func (c *Client) join(number uint64) *place {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &place{number, make(chan struct{}, 1)}
	i, _ := slices.BinarySearchFunc(c.line, number, func(o *place, n uint64) int { return cmp.Compare(o.number, n) })
	c.line = slices.Insert(c.line, i, p)
	return p
}

// leave takes it out, and has the next one look whether there is room.
func (c *Client) leave(p *place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.line, p)
	c.line = slices.Delete(c.line, i, i+1)
	if i == 0 && len(c.line) > 0 {
		select {
		case c.line[0].wake <- struct{}{}:
		default:
		}
	}
}

// take takes a token for the first in line, or tells how long it is until there may be one. Any other is woken
// when it is the first.
func (c *Client) take(p *place, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line[0] != p {
		return maxClosed
	}
	if wait := c.closed.Sub(now); wait > 0 {
		return wait
	}
	c.tokens = min(c.tokens+now.Sub(c.at).Seconds()*c.rate, burst*c.rate)
	c.at = now
	if c.tokens >= 1 {
		c.tokens--
		return 0
	}
	return time.Duration((1-c.tokens)/c.rate*float64(time.Second)) + time.Millisecond
}
