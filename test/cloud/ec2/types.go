package ec2

import "slices"

// rules are those of a type of volume.
type rules struct {
	minSize, maxSize int // GiB
	minIOPS, maxIOPS int // 0: they cannot be chosen
	perGiB           int // IOPS
	mustIOPS         bool
	throughput       bool
	multiAttach      bool
}

// volumeTypes as of 2026.
var volumeTypes = map[string]rules{
	"standard": {minSize: 1, maxSize: 1024},
	"gp2":      {minSize: 1, maxSize: 16384},
	"gp3":      {minSize: 1, maxSize: 65536, minIOPS: 3000, maxIOPS: 80000, perGiB: 500, throughput: true},
	"io1":      {minSize: 4, maxSize: 16384, minIOPS: 100, maxIOPS: 64000, perGiB: 50, mustIOPS: true, multiAttach: true},
	"io2":      {minSize: 4, maxSize: 65536, minIOPS: 100, maxIOPS: 256000, perGiB: 1000, mustIOPS: true, multiAttach: true},
	"st1":      {minSize: 125, maxSize: 16384},
	"sc1":      {minSize: 125, maxSize: 16384},
}

const (
	minThroughput = 125
	maxThroughput = 2000
	perThroughput = 4 // IOPS for each MiB/s
)

// shape is what of a volume depends on its type.
type shape struct {
	Type       string
	Size       int
	IOPS       int
	Throughput int
	Multi      bool
}

// check holds a shape that was asked for to the rules of its type, and fills in what AWS
// chooses.
func (s *shape) check() error {
	t, ok := volumeTypes[s.Type]
	if !ok {
		return fail("UnknownVolumeType", "Unknown volume type: %s", s.Type)
	}
	switch {
	case s.Size < t.minSize:
		return invalid("Volume of %dGiB is too small for volume type %s; minimum is %dGiB.", s.Size, s.Type, t.minSize)
	case s.Size > t.maxSize:
		return invalid("Volume of %dGiB is too large for volume type %s; maximum is %dGiB.", s.Size, s.Type, t.maxSize)
	case s.IOPS != 0 && t.maxIOPS == 0:
		return combination("The parameter iops is not supported for %s volumes.", s.Type)
	case s.Throughput != 0 && !t.throughput:
		return combination("The parameter throughput is not supported for %s volumes.", s.Type)
	case s.Multi && !t.multiAttach:
		return combination("The parameter multiAttachEnabled is not supported for %s volumes.", s.Type)
	case s.IOPS == 0 && t.mustIOPS:
		return missing("iops")
	}
	s.fill(t)
	if t.maxIOPS == 0 {
		return nil
	}
	switch {
	case s.IOPS < t.minIOPS:
		return invalid("Volume iops of %d is too low; minimum is %d.", s.IOPS, t.minIOPS)
	case s.IOPS > t.maxIOPS:
		return invalid("Volume iops of %d is too high; maximum is %d.", s.IOPS, t.maxIOPS)
	case s.IOPS > t.minIOPS && s.IOPS > t.perGiB*s.Size:
		return combination("Iops to volume size ratio of %.1f is too high; maximum is %d iops per GiB.", float64(s.IOPS)/float64(s.Size), t.perGiB)
	case !t.throughput:
		return nil
	case s.Throughput < minThroughput:
		return invalid("Throughput of %d MiB/s is too low; minimum is %d MiB/s.", s.Throughput, minThroughput)
	case s.Throughput > maxThroughput:
		return invalid("Throughput of %d MiB/s is too high; maximum is %d MiB/s.", s.Throughput, maxThroughput)
	case s.Throughput*perThroughput > s.IOPS:
		return combination("Throughput (MiBps) to iops ratio of %.6f is too high; maximum is 0.250000 MiBps per iops.", float64(s.Throughput)/float64(s.IOPS))
	}
	return nil
}

// fill chooses what was left open.
func (s *shape) fill(t rules) {
	switch {
	case s.Type == "gp2":
		s.IOPS = max(100, min(16000, 3*s.Size))
	case s.IOPS == 0:
		s.IOPS = t.minIOPS
	}
	if t.throughput && s.Throughput == 0 {
		s.Throughput = minThroughput
	}
}

// shape reads what CreateVolume asks for.
func (p params) shape() (s shape, err error) {
	s.Type = p.get("VolumeType")
	if s.Type == "" {
		s.Type = "gp2"
	}
	for name, to := range map[string]*int{"Size": &s.Size, "Iops": &s.IOPS, "Throughput": &s.Throughput} {
		if *to, err = p.number(name); err != nil {
			return s, err
		}
	}
	s.Multi, err = p.yes("MultiAttachEnabled")
	return s, err
}

// key returns the ARN of a key that was named by ARN, id or alias.
func (c *Cloud) key(r *region, name string) string {
	switch {
	case name == "":
		name = "alias/aws/ebs"
	case len(name) > 4 && name[:4] == "arn:":
		return name
	}
	if len(name) < 6 || name[:6] != "alias/" {
		name = "key/" + name
	}
	return "arn:aws:kms:" + r.name + ":" + c.conf.Account + ":" + name
}

// usable tells whether a key, as it was named, is there.
func (c *Cloud) usable(r *region, name string) bool {
	return name == "" || name == "alias/aws/ebs" || slices.ContainsFunc(c.conf.KmsKeys, func(k string) bool {
		return c.key(r, k) == c.key(r, name)
	})
}
