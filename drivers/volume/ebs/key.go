package ebs

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
)

// making is a disk that is to be encrypted, until it is ready. EC2 accepts any key: where that is
// not there, is disabled, or is not for the account to use, the disk fails after the call, and is
// soon not listed any more. Nothing but the user's own log of KMS says why.
type making struct {
	block.Disk
	key     string
	seen    bool      // in a list
	missing time.Time // since when it is in none
}

// longGone is for how long a disk must have been missing, as one list may be behind another.
const longGone = 3 * time.Second

// watch has a disk that may fail for its key be looked after.
func (p *provider) watch(d block.Disk, s block.Spec) {
	if d.State != block.Creating || s.KMSKey == "" && !d.Encrypted {
		return
	}
	key := s.KMSKey
	if key == "" {
		key = "the default of the account"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.making[d.ID] = &making{Disk: d, key: key}
}

func (p *provider) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.making, id)
}

// vanished returns the disks of a query that were there and are not any more, as ones that have
// failed.
func (p *provider) vanished(q block.Query, list []block.Disk) (all []block.Disk) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range list {
		m, ok := p.making[d.ID]
		switch {
		case !ok:
		case d.State == block.Creating:
			m.seen, m.missing = true, time.Time{}
		case d.State == block.Ready:
			delete(p.making, d.ID)
		}
	}
	for id, m := range p.making {
		listed := false
		for _, d := range list {
			listed = listed || d.ID == id
		}
		if listed || q.Namespace != m.Tags[block.TagNamespace] || !q.Takes(id, m.Tags[block.TagName]) {
			continue
		}
		if m.missing.IsZero() {
			m.missing = time.Now()
		}
		if time.Since(m.missing) > young {
			delete(p.making, id)
			continue
		}
		limit := p.vanishedFor
		if !m.seen { // too new, perhaps
			limit = 5 * p.vanishedFor
		}
		if time.Since(m.missing) >= limit {
			d := m.Disk
			d.State, d.Reason = block.Failed, "it disappeared while it was made: "+badKey(m.key)
			all = append(all, d)
		}
	}
	return all
}

func badKey(key string) string {
	return "most likely the key of KMS, " + key + ", is not there, is disabled, is of another region, or is not for these credentials to use"
}

// whyFailed says what is known of a disk in the state "error".
func (p *provider) whyFailed(v types.Volume) string {
	if !aws.ToBool(v.Encrypted) {
		return "EBS says no more than that; it may be an outage of the zone"
	}
	key := aws.ToString(v.KmsKeyId)
	p.mu.Lock()
	defer p.mu.Unlock()
	if m, ok := p.making[aws.ToString(v.VolumeId)]; ok {
		key = m.key
	}
	return badKey(key)
}
