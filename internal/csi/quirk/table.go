package quirk

import "google.golang.org/grpc/codes"

// The names of drivers as they give them.
const (
	ebs      = "ebs.csi.aws.com"
	do       = "dobs.csi.digitalocean.com"
	hetzner  = "csi.hetzner.cloud"
	hostpath = "hostpath.csi.k8s.io"
)

var table = []Entry{
	{
		Driver: ebs, ID: InUseInText, Source: "seen with v1.64 against an EC2 of our own",
		Note: "Internal with VolumeInUse, both for an attach and for a removal",
		codes: []correction{{
			from: []codes.Code{codes.Internal, codes.Unknown, codes.AlreadyExists},
			text: []string{"VolumeInUse", "is already attached to", "attached to a different", "is currently attached", "already attached to another", "attached to node", "is in use"},
			to:   codes.FailedPrecondition,
		}},
	},
	{
		Driver: hetzner, Versions: ">=2.0.0", ID: NoListVolumes, Source: "https://github.com/hetznercloud/csi-driver/pull/1478",
		Note: "dies of it as soon as there is a volume",
	},
	{Driver: do, ID: SharedMounts, Source: "seen with v4"},
	{Driver: hostpath, ID: StatsOfBacking, Source: "seen with v1.18"},
}
