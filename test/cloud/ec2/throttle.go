package ec2

import (
	"net/http"
	"strings"
	"time"
)

// Bucket is how many calls of an action there may be at once, and how many more each second.
type Bucket struct {
	Size   float64
	Refill float64
}

// Limits are those of an account in a region. Zero is what AWS gives a new account, or so.
type Limits struct {
	Describe    Bucket // Describe with a filter, ids or pages
	DescribeAll Bucket // Describe without any
	Mutate      Bucket
	Tags        Bucket // CreateTags, DeleteTags

	Volumes     int // in a region: VolumeLimitExceeded
	Snapshots   int // in a region: SnapshotLimitExceeded
	Attachments int // of an instance: AttachmentLimitExceeded

	// SnapshotEvery is the least time between two snapshots of one volume.
	SnapshotEvery time.Duration
	// ModifyEvery is the least time between two modifications of one volume.
	ModifyEvery time.Duration

	// Unthrottled lets any number of calls pass.
	Unthrottled bool
}

func (l *Limits) fill() {
	set := func(b *Bucket, size, refill float64) {
		if b.Size == 0 {
			*b = Bucket{size, refill}
		}
	}
	set(&l.Describe, 100, 20)
	set(&l.DescribeAll, 50, 10)
	set(&l.Mutate, 100, 5)
	set(&l.Tags, 100, 10)
	if l.Volumes == 0 {
		l.Volumes = 100000
	}
	if l.Snapshots == 0 {
		l.Snapshots = 100000
	}
	if l.Attachments == 0 {
		l.Attachments = 27 // 28 of most Nitro types, less a network interface
	}
	if l.SnapshotEvery == 0 {
		l.SnapshotEvery = 15 * time.Second
	}
	if l.ModifyEvery == 0 {
		l.ModifyEvery = 6 * time.Hour
	}
}

// bucket holds tokens of one action in one region.
type bucket struct {
	tokens float64
	at     time.Time
}

// take takes a token of the action's bucket. A call that finds none does not count against
// the next.
func (c *Cloud) take(r *request) error {
	l := c.conf.Limits
	if l.Unthrottled {
		return nil
	}
	limit, name := l.Mutate, r.action
	switch {
	case r.action == "CreateTags", r.action == "DeleteTags":
		limit = l.Tags
	case strings.HasPrefix(r.action, "Describe") && r.bare():
		limit, name = l.DescribeAll, r.action+" unfiltered"
	case strings.HasPrefix(r.action, "Describe"):
		limit = l.Describe
	}
	name = r.region.name + " " + name
	now := c.clock.Now()
	b := c.buckets[name]
	if b == nil {
		b = &bucket{limit.Size, now}
		c.buckets[name] = b
	}
	b.tokens = min(limit.Size, b.tokens+limit.Refill*now.Sub(b.at).Seconds())
	b.at = now
	if b.tokens < 1 {
		return throttled()
	}
	b.tokens--
	return nil
}

func throttled() error {
	return failWith(http.StatusServiceUnavailable, "RequestLimitExceeded", "Request limit exceeded.")
}

// bare tells whether a Describe asks for all there is in one answer.
func (r *request) bare() bool {
	for key := range r.params {
		name, _, _ := strings.Cut(key, ".")
		switch name {
		case "Action", "Version", "DryRun", "NextToken":
		default:
			return false
		}
	}
	return true
}
