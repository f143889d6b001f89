package gcepd

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"

	"google.golang.org/api/compute/v1"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// labelled is the labels of a disk and the fingerprint with which they can be changed: Google
// refuses a change of labels that the caller has not seen.
type labelled struct {
	labels      map[string]string
	fingerprint string
}

// maxSeen is of how many disks the labels are remembered.
const maxSeen = 1000

func (p *provider) remember(id string, d *compute.Disk) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) >= maxSeen {
		clear(p.seen)
	}
	p.seen[id] = labelled{d.Labels, d.LabelFingerprint}
}

// recall returns the labels of a disk as they were last told, once.
func (p *provider) recall(id string) (labelled, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.seen[id]
	delete(p.seen, id)
	return l, ok
}

// maxTries is how often labels are read again that somebody else has changed.
const maxTries = 10

// SetTags changes tags of a disk, and comes back when that is so: nothing that depends on them may
// come first.
func (p *provider) SetTags(ctx context.Context, d block.Disk, tags block.Tags) error {
	zone, name := split(d.ID)
	was, known := p.recall(d.ID)
	for range maxTries {
		if !known {
			now, err := p.one(ctx, d.ID)
			if err != nil {
				return err
			}
			was = labelled{now.Labels, now.LabelFingerprint}
		}
		labels, err := relabel(was.labels, tags)
		if err != nil || maps.Equal(labels, was.labels) {
			return err
		}
		in := &compute.ZoneSetLabelsRequest{Labels: labels, LabelFingerprint: was.fingerprint, ForceSendFields: []string{"Labels"}}
		op, err := ask(ctx, p, "disks.setLabels", "zone "+zone, p.api.Disks.SetLabels(p.c.Project, zone, name, in).Context(ctx))
		if reasonOf(err) == condition {
			known = false
			continue
		}
		if err != nil {
			return passing(err)
		}
		return p.wait(ctx, op)
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the labels of disk %s are changed by others all the time", d.ID), "which other tool writes labels? Ask again when it is done")
}

// requestID makes the token of a request of parts: a UUID (version 8, RFC 9562).
func requestID(parts ...string) string {
	b := sha256.Sum256(fmt.Append(nil, parts))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
