package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// dial makes a link for the keeper. That it is there the network tells, and so when it is no more: who noted it here as well could do
// so after its end.
func (c *Cluster) dial(ctx context.Context, k *keeper) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	if k.Address == "" {
		return c.dialHost(ctx, k.Host)
	}
	p, err := c.net.Dial(ctx, k.Address)
	if err != nil {
		var again bool
		if err, again = c.mixed(err); again {
			p, err = c.net.Dial(ctx, k.Address)
		}
	}
	if err == nil && p.Host == c.self {
		err = errdefs.Errorf(errdefs.ErrInvalid, "%s: that is this host itself", k.Address)
	}
	if err == nil {
		c.mu.Lock()
		k.Host = p.Host
		delete(c.others, k.Address)
		c.mu.Unlock()
	}
	return err
}

// dialHost makes a link to a host at one of the addresses that it tells. One of them may be dead.
func (c *Cluster) dialHost(ctx context.Context, h record.Host) error {
	all := c.Addresses(h)
	all = all[:min(len(all), maxAddresses)]
	if len(all) == 0 {
		return errdefs.Errorf(errdefs.ErrUnavailable, "host %s: it tells no address at which it can be dialled", h.Short())
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan error, len(all))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel() // who is slower than the first
	var failed []error
	for i, a := range all {
		running.Go(func() {
			p, err := c.net.Dial(ctx, a.String())
			if err == nil && p.Host != h {
				err = errdefs.Errorf(errdefs.ErrUnavailable, "%s: host %s answers there, not %s", a, p.Host.Short(), h.Short())
			}
			results <- err
		})
		next := time.NewTimer(stagger)
		for waiting := true; waiting && len(failed) <= i; {
			var over <-chan time.Time
			if i < len(all)-1 {
				over = next.C
			}
			select {
			case err := <-results:
				if err == nil {
					next.Stop()
					return nil
				}
				failed = append(failed, err)
			case <-over:
				waiting = false
			}
		}
		next.Stop()
	}
	return failed[len(failed)-1]
}
