package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Summary is what a host says of the cluster that it is in.
type Summary struct {
	Cluster record.Cluster
	Host    record.Host
	Hosts   int       // in it; 0 is not known
	Founded time.Time // likewise
}

// OtherError says that a host was found in a cluster that is not this host's. Errors of a Network that are about that are one.
type OtherError struct {
	Summary
	Address string
}

func (o *OtherError) Error() string {
	return fmt.Sprintf("%s: host %s is in another cluster, %s", o.Address, o.Host.Short(), o.Cluster)
}

// Unwrap returns the class.
func (o *OtherError) Unwrap() error { return errdefs.ErrDenied }

// Summary is what this host would say of its own cluster.
func (c *Cluster) Summary() Summary {
	c.mu.Lock()
	o := Summary{Cluster: c.state.Cluster, Host: c.self, Founded: c.state.Founded}
	s := c.store
	c.mu.Unlock()
	if s != nil {
		o.Hosts = len(s.Records(record.KindMember))
	}
	return o
}

func (o Summary) describe(now time.Time) string {
	text := o.Cluster.String()
	switch {
	case o.Hosts == 1:
		text += ", 1 host"
	case o.Hosts > 1:
		text += fmt.Sprintf(", %d hosts", o.Hosts)
	}
	if !o.Founded.IsZero() {
		text += fmt.Sprintf(", founded %v ago", now.Sub(o.Founded).Round(time.Second))
	}
	return text
}

// mixed makes of an error about another cluster one that says what both are. It gives up this host's own
// cluster if nothing depends on that, and returns true then.
func (c *Cluster) mixed(err error) (error, bool) {
	o, ok := errors.AsType[*OtherError](err)
	if !ok {
		return err, false
	}
	own := c.Summary()
	if c.yield(own, o) {
		return err, true
	}
	c.mu.Lock()
	c.others[o.Cluster] = *o
	c.mu.Unlock()
	now := time.Now()
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "%s: two clusters do not mix: host %s is in %s; this host in %s",
		o.Address, o.Host.Short(), o.describe(now), own.describe(now)),
		"reset the host whose cluster is to go, and let it join the other"), false
}

// yield gives this host's cluster up for another, if the host is alone in it and nothing uses it. Of two that are told to connect to
// each other at once the younger one yields, where that is known.
func (c *Cluster) yield(own Summary, o *OtherError) bool {
	if own.Cluster == (record.Cluster{}) {
		return true // it was given up just now
	}
	if own.Hosts > 1 || c.cfg.Spare == nil || !c.cfg.Spare() {
		return false
	}
	if o.Hosts == 1 && (own.Founded.Before(o.Founded) || own.Founded.Equal(o.Founded) && own.Cluster.String() < o.Cluster.String()) {
		return false
	}
	c.entering.Lock()
	defer c.entering.Unlock()
	if c.ID() != own.Cluster || c.life.Err() != nil {
		return false
	}
	c.log.Info("this host is alone in its cluster, and gives it up for another", "own", own.Cluster.String(), "other", o.Cluster.String())
	if err := c.give(); err != nil {
		c.log.Error("cannot give up the cluster", "err", err)
	}
	c.mu.Lock()
	c.state.Join = true
	c.changed()
	c.mu.Unlock()
	return true
}
