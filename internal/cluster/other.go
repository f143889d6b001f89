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
	Spare   bool      // the host is alone in it, and nothing uses it
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
	o.Spare = o.Hosts == 1 && c.spare()
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

// keepFor is how long a cluster counts as used after it could not be given up.
const keepFor = time.Minute

func (c *Cluster) spare() bool {
	c.mu.Lock()
	kept := time.Since(c.kept) < keepFor
	c.mu.Unlock()
	return !kept && c.cfg.Spare != nil && c.cfg.Spare()
}

// mixed makes of an error about another cluster one that says what both are. It gives up this host's own
// cluster if nothing depends on that, and returns true then.
func (c *Cluster) mixed(err error) (error, bool) {
	o, ok := errors.AsType[*OtherError](err)
	if !ok {
		return err, false
	}
	own := c.Summary()
	if own.Cluster == (record.Cluster{}) { // it was given up just now
		return err, true
	}
	if own.yields(o.Summary) && c.giveUp(own.Cluster, o.Cluster) {
		return err, true
	}
	c.mu.Lock()
	if c.targets[o.Address] != nil { // it was not forgotten meanwhile
		c.others[o.Address] = *o
	}
	c.mu.Unlock()
	now := time.Now()
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "%s: two clusters do not mix: host %s is in %s; this host in %s",
		o.Address, o.Host.Short(), o.describe(now), own.describe(now)),
		"reset the host whose cluster is to go, and let it join the other"), false
}

// yields says which of two clusters goes when hosts of them meet: the one that nothing uses, and of two such the younger. Both
// hosts come to the same.
func (o Summary) yields(to Summary) bool {
	switch {
	case !o.Spare:
		return false
	case !to.Spare:
		return true
	case o.Founded.Equal(to.Founded):
		return o.Cluster.String() > to.Cluster.String()
	}
	return o.Founded.After(to.Founded)
}

// Yields tells the links whether this host gives its own cluster up for that of a host that dials it. It is done when there is a link
// to that host, which then has proved that it may.
func (c *Cluster) Yields(o Summary) bool { return c.Summary().yields(o) }

// giveUp gives this host's cluster up for another.
func (c *Cluster) giveUp(own, other record.Cluster) bool {
	c.entering.Lock()
	defer c.entering.Unlock()
	if c.ID() != own || c.life.Err() != nil {
		return false
	}
	c.log.Info("this host is alone in its cluster, and gives it up for another", "own", own.String(), "other", other.String())
	if err := c.give(); err != nil {
		c.log.Error("cannot give up the cluster", "err", err)
		c.mu.Lock()
		c.kept = time.Now()
		c.mu.Unlock()
		return false
	}
	c.mu.Lock()
	c.state.Join = true
	clear(c.others)
	c.changed()
	c.mu.Unlock()
	return true
}

// follow enters the cluster of a host that has dialled this one, in the place of its own, if that may still be given up.
func (c *Cluster) follow(p Peer) {
	own := c.Summary()
	if own.Cluster == p.Cluster {
		c.meet(p)
		return
	}
	if own.Cluster != (record.Cluster{}) && (!own.Spare || !c.giveUp(own.Cluster, p.Cluster)) {
		c.net.Disconnect(p.Host)
		return
	}
	c.adopt(p.Cluster)
}
