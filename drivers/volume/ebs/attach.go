package ebs

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxNames is how many names are tried that EC2 says are in use.
const maxNames = 5

// Attach begins to attach a disk to this instance. EC2 wants a name for it, under which no kernel
// of today will show it.
func (p *provider) Attach(ctx context.Context, d block.Disk, self block.Host) error {
	here, err := p.here(ctx)
	if err != nil {
		return err
	}
	if err := here.refuseXen(); err != nil {
		return err
	}
	if d.Facts[factMulti] != "" {
		return errMulti(d.ID)
	}
	for tries := 1; ; tries++ {
		name, err := p.names.take(d.ID)
		if err != nil {
			return err
		}
		_, err = ask(ctx, p, "AttachVolume", func(ctx context.Context) (*ec2.AttachVolumeOutput, error) {
			return p.ec2.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: aws.String(d.ID), InstanceId: aws.String(self.ID), Device: aws.String(name)})
		})
		if err == nil {
			return nil
		}
		if !nameInUse(err) {
			p.names.free(d.ID, false)
			return p.notAttached(ctx, d, self, err)
		}
		p.names.refused(d.ID, name)
		if tries == maxNames {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "instance %s: EC2 says of %d names of devices that they are in use", self.ID, tries),
				"names that stay in use without a disk are freed by a stop and start of the instance")
		}
		if tries == 1 {
			if err := p.learnNames(ctx, self); err != nil {
				return err
			}
		}
	}
}

// nameInUse tells whether it was the name that was refused. There is no code for it.
func nameInUse(err error) bool {
	return codeOf(err) == "InvalidParameterValue" && strings.Contains(err.Error(), "already in use")
}

// learnNames asks EC2 which names are in use on this instance: other tools attach disks too.
func (p *provider) learnNames(ctx context.Context, self block.Host) error {
	all, err := p.describe(ctx, []types.Filter{filter("attachment.instance-id", self.ID)})
	if err != nil {
		return err
	}
	for _, v := range all {
		for _, a := range v.Attachments {
			if aws.ToString(a.InstanceId) == self.ID {
				p.names.learn(aws.ToString(v.VolumeId), aws.ToString(a.Device))
			}
		}
	}
	return nil
}

// notAttached finds out whether a disk is not attached here after all, by the request before.
func (p *provider) notAttached(ctx context.Context, d block.Disk, self block.Host, err error) error {
	switch codeOf(err) {
	case "InvalidVolume.ZoneMismatch":
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "disk %s is in zone %s, and instance %s in zone %s", d.ID, d.Zone, self.ID, self.Zone), meanings["InvalidVolume.ZoneMismatch"].hint)
	case "VolumeInUse", "IncorrectState":
	default:
		return tooNew(d, err)
	}
	v, lerr := p.one(ctx, d.ID)
	if lerr != nil {
		return tooNew(d, lerr)
	}
	now := p.disk(v)
	if aws.ToBool(v.MultiAttachEnabled) {
		return errMulti(d.ID)
	}
	for _, h := range now.Holders {
		if h.Host == self.ID && (h.State == block.Attaching || h.State == block.Attached) {
			return nil
		}
	}
	if now.State == block.Deleting {
		return errdefs.Errorf(errdefs.ErrNotFound, "disk %s is being deleted", d.ID)
	}
	return err
}

func errMulti(id string) error {
	err := errdefs.Errorf(errdefs.ErrInvalid, "disk %s has multi-attach enabled: other instances could write to it, and its file system would be lost", id)
	return errdefs.Hint(err, "detach it everywhere, and aws ec2 modify-volume --no-multi-attach-enabled --volume-id "+id)
}

// Detach begins to take a disk from an instance.
func (p *provider) Detach(ctx context.Context, d block.Disk, host string, force bool) error {
	_, err := ask(ctx, p, "DetachVolume", func(ctx context.Context) (*ec2.DetachVolumeOutput, error) {
		return p.ec2.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: aws.String(d.ID), InstanceId: aws.String(host), Force: aws.Bool(force)})
	})
	if err == nil {
		p.names.free(d.ID, true)
		return nil
	}
	switch codeOf(err) {
	case "InvalidAttachment.NotFound", "InvalidInstanceID.NotFound":
		p.names.free(d.ID, true)
		return nil
	case "IncorrectState", "IncorrectInstanceState":
	default:
		return tooNew(d, err)
	}
	// It is not attached there, or still on its way there, or on its way off.
	v, lerr := p.one(ctx, d.ID)
	if lerr != nil {
		return tooNew(d, lerr)
	}
	for _, h := range p.disk(v).Holders {
		if h.Host == host && h.State != block.Detaching && h.State != block.Stuck {
			return err
		}
	}
	return nil
}

// Match tells whether a device is the disk: its serial is the ID without the dash.
func (p *provider) Match(d block.Disk, v block.Device) bool {
	serial, ok := strings.CutPrefix(d.ID, "vol-")
	return ok && serial != "" && v.Serial == "vol"+serial
}

// unknownFor is for how long EC2 must not know an instance before it is believed to be gone: of
// one that was just started it may not know yet.
const unknownFor = time.Minute

// Gone tells whether an instance is stopped or terminated, and can write no more.
func (p *provider) Gone(ctx context.Context, host string) (bool, error) {
	out, err := ask(ctx, p, "DescribeInstances", func(ctx context.Context) (*ec2.DescribeInstancesOutput, error) {
		return p.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{host}})
	})
	if errors.Is(err, errdefs.ErrNotFound) {
		return p.absentSince(host), nil
	}
	if err != nil {
		return false, err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if aws.ToString(i.InstanceId) == host && i.State != nil {
				return i.State.Name == types.InstanceStateNameStopped || i.State.Name == types.InstanceStateNameTerminated, nil
			}
		}
	}
	return false, nil
}

func (p *provider) absentSince(host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first, ok := p.absent[host]
	if !ok {
		p.absent[host] = time.Now()
	}
	return ok && time.Since(first) >= unknownFor
}
