package ec2

import (
	"maps"
	"net/http"
	"time"
)

// FaultKind is a way for a call to go wrong.
type FaultKind string

// The ways.
const (
	// Hang waits, and then goes on, whether or not the caller is still there.
	Hang FaultKind = "hang"
	// FailBefore is an InternalError, and nothing was done.
	FailBefore FaultKind = "fail-before"
	// Refuse is the error that Code and Message say, and nothing was done.
	Refuse FaultKind = "refuse"
	// FailAfter does what was asked, and drops the connection in place of an answer.
	FailAfter FaultKind = "fail-after"
	// Throttle is RequestLimitExceeded.
	Throttle FaultKind = "throttle"
	// Stuck answers an AttachVolume or DetachVolume, and then never comes to an end. A
	// forced detach gets out of it.
	Stuck FaultKind = "stuck"
)

var faultKinds = []FaultKind{Hang, FailBefore, Refuse, FailAfter, Throttle, Stuck}

// Fault is something that is to go wrong.
type Fault struct {
	Kind FaultKind
	// Action is the one that it befalls; empty is any.
	Action string
	// Code and Message are those of Refuse, such as InsufficientVolumeCapacity.
	Code, Message string
	// For is how long Hang waits.
	For time.Duration
	// Count is how many calls it befalls; 0 is all until [Cloud.Heal].
	Count int
}

// Break adds a fault. Where more than one fits a call, the first added befalls it.
func (c *Cloud) Break(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, &f)
}

// Heal takes all faults away. Calls that hang already go on to hang.
func (c *Cloud) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// fault returns what befalls a call, and counts it.
func (c *Cloud) fault(action string) Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range c.faults {
		if f.Action != "" && f.Action != action {
			continue
		}
		out := *f
		if f.Count > 0 {
			if f.Count--; f.Count == 0 {
				c.faults = append(c.faults[:i:i], c.faults[i+1:]...)
			}
		}
		return out
	}
	return Fault{}
}

// hang waits for d of the cloud's time, or until the cloud is closed.
func (c *Cloud) hang(d time.Duration) error {
	over := make(chan struct{})
	c.clock.AfterFunc(d, func() { close(over) })
	select {
	case <-over:
		return nil
	case <-c.done:
		return failWith(http.StatusServiceUnavailable, "Unavailable", "The service is unavailable. Please try again shortly.")
	}
}

// Count is how often an action was called.
type Count struct {
	Calls     int // all
	Throttled int // of these, refused as RequestLimitExceeded
	Failed    int // of these, answered with another error
}

// Counts returns how often each action was called since the start or [Cloud.ResetCounts].
func (c *Cloud) Counts() map[string]Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// ResetCounts begins to count anew.
func (c *Cloud) ResetCounts() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.counts)
}

func (c *Cloud) count(action string, err *apiError) {
	n := c.counts[action]
	n.Calls++
	switch {
	case err == nil:
	case err.code == "RequestLimitExceeded":
		n.Throttled++
	default:
		n.Failed++
	}
	c.counts[action] = n
}
