package quirk

import "google.golang.org/grpc/codes"

// The names that drivers of clouds give.
const (
	ebs       = "ebs.csi.aws.com"
	efs       = "efs.csi.aws.com"
	pd        = "pd.csi.storage.gke.io"
	do        = "dobs.csi.digitalocean.com"
	hetzner   = "csi.hetzner.cloud"
	linode    = "linodebs.csi.linode.com"
	vultr     = "block.csi.vultr.com"
	scaleway  = "csi.scaleway.com"
	azureDisk = "disk.csi.azure.com"
	azureFile = "file.csi.azure.com"
	cinder    = "cinder.csi.openstack.org"
	manila    = "*.manila.csi.openstack.org"
)

// clouds are the drivers of disks that a cloud attaches to a host, and of its shares.
var clouds = []Entry{
	{
		Driver: ebs, ID: InUseInText, Note: "Internal, both for an attach and for a removal",
		Source: "seen in November 2026, driver of August, against an EC2 of our own; v1.64.0, pkg/driver/controller.go",
		codes: []correction{{
			from: []codes.Code{codes.Internal, codes.AlreadyExists},
			text: []string{"VolumeInUse", "already attached to", "attached to a different", "currently attached to", "is in use"},
			to:   codes.FailedPrecondition,
		}},
	},
	{
		Driver: ebs, ID: WrongCodes, Note: "Aborted for every failed CreateVolume that it does not know, such as one without the right to it",
		Source: "v1.64.0, pkg/driver/controller.go",
		codes: []correction{
			{[]string{"CreateVolume"}, []codes.Code{codes.Aborted}, []string{"UnauthorizedOperation", "AuthFailure", "AccessDenied"}, codes.PermissionDenied},
			{[]string{"CreateVolume"}, []codes.Code{codes.Aborted}, []string{"LimitExceeded"}, codes.ResourceExhausted},
			{[]string{"CreateVolume"}, []codes.Code{codes.Aborted}, []string{"InvalidParameter"}, codes.InvalidArgument},
		},
	},
	{Driver: ebs, ID: NeedsMetadata, Source: "v1.64.0, pkg/cloud/metadata"},
	{Driver: ebs, ID: NeedsSysResource, Source: "seen in November 2026: ext4 could not be mounted any more after its disk had grown"},
	{Driver: efs, ID: NeedsMetadata, Source: "https://github.com/kubernetes-sigs/aws-efs-csi-driver"},
	{Driver: efs, ID: NeedsTools, Needs: []string{"mount.efs"}, Source: "https://github.com/kubernetes-sigs/aws-efs-csi-driver"},
	{Driver: efs, ID: NeedsModules, Needs: []string{"nfsv4"}, Source: "https://github.com/kubernetes-sigs/aws-efs-csi-driver"},
	{
		Driver: pd, ID: InUseInText, Note: "InvalidArgument for a disk that another instance has",
		Source: "August 2026, pkg/gce-cloud-provider/compute/gce-compute.go",
		codes: []correction{{
			from: []codes.Code{codes.InvalidArgument, codes.Internal},
			text: []string{"RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"},
			to:   codes.FailedPrecondition,
		}},
	},
	{Driver: pd, ID: NeedsMetadata, Source: "https://github.com/kubernetes-sigs/gcp-compute-persistent-disk-csi-driver"},
	{Driver: pd, ID: NeedsSysResource, Source: "as with every driver that lets resize2fs grow a mounted ext4"},
	{
		Driver: do, ID: SharedMounts, Note: "also when it unmounts, so that a mount made in the wrong place cannot be undone",
		Source: "seen in November 2026; v4.16.0, driver/mounter.go",
	},
	{Driver: do, ID: NeedsMetadata, Note: "started with -region it has no region at all", Source: "seen in November 2026, v4.16.0"},
	{Driver: do, ID: NeedsSysResource, Source: "as with every driver that lets resize2fs grow a mounted ext4"},
	{
		Driver: hetzner, Versions: ">=2.0.0 <2.22.2", ID: NoListVolumes, Note: "it ends as soon as there is a volume",
		Source: "https://github.com/hetznercloud/csi-driver/pull/1478",
	},
	{Driver: hetzner, ID: NeedsOwnRoot, Note: "settings of mkfs.xfs, and cryptsetup", Source: "seen in November 2026, v2.22.1"},
	{Driver: hetzner, ID: NeedsMetadata, Source: "seen in November 2026, v2.22.1"},
	{Driver: hetzner, ID: NeedsModules, Needs: []string{"dm_mod"}, Source: "seen in November 2026, v2.22.1"},
	{Driver: hetzner, ID: NeedsSysResource, Source: "as with every driver that lets resize2fs grow a mounted ext4"},
	{Driver: linode, ID: NeedsMetadata, Source: "https://github.com/linode/linode-blockstorage-csi-driver"},
	{Driver: linode, ID: NeedsSysResource, Source: "as with every driver that lets resize2fs grow a mounted ext4"},
	{Driver: vultr, ID: NeedsMetadata, Source: "https://github.com/vultr/vultr-csi"},
	{Driver: vultr, ID: NeedsVersion, Source: "seen in November 2026, v0.18.0"},
	{Driver: vultr, ID: NeedsSysResource, Source: "as with every driver that lets resize2fs grow a mounted ext4"},
	{Driver: scaleway, ID: NeedsMetadata, Source: "https://github.com/scaleway/scaleway-csi"},
	{Driver: scaleway, ID: NeedsSysResource, Source: "as with every driver that lets resize2fs grow a mounted ext4"},
	{
		Driver: azureDisk, ID: StealsDisks, Note: "unless Kubernetes has a VolumeAttachment of the disk",
		Source: "August 2026, pkg/azuredisk/controllerserver.go",
	},
	{Driver: azureDisk, ID: NeedsKubernetes, Note: "unless the metadata service answers", Source: "seen in November 2026"},
	{
		Driver: azureDisk, ID: InUseInText, Source: "August 2026, pkg/azuredisk/azure_managedDiskController.go",
		Note: "Unknown for a removal of a disk that a machine has, and for an expansion",
		codes: []correction{{
			from: []codes.Code{codes.Unknown, codes.Internal},
			text: []string{"already attached to", "is still attached to", "only supported on Unattached disk"},
			to:   codes.FailedPrecondition,
		}},
	},
	{Driver: azureDisk, ID: NeedsSysResource, Source: "as with every driver that lets resize2fs grow a mounted ext4"},
	{Driver: azureFile, ID: NeedsModules, Needs: []string{"cifs"}, Source: "https://github.com/kubernetes-sigs/azurefile-csi-driver"},
	{Driver: azureFile, ID: NeedsTools, Needs: []string{"mount.cifs"}, Source: "https://github.com/kubernetes-sigs/azurefile-csi-driver"},
	{
		Driver: cinder, ID: InUseInText, Note: "Internal, both for an attach and for a removal", Source: "v1.36.0, pkg/csi/cinder/controllerserver.go",
		codes: []correction{{
			from: []codes.Code{codes.Internal},
			text: []string{"still attached to a node", "already attached", "status must be available", "Invalid volume: Volume status must be", "in-use"},
			to:   codes.FailedPrecondition,
		}},
	},
	{Driver: cinder, ID: NeedsMetadata, Note: "or a config drive", Source: "v1.36.0, pkg/csi/cinder"},
	{Driver: cinder, ID: NeedsSysResource, Source: "as with every driver that lets resize2fs grow a mounted ext4"},
	{Driver: manila, ID: NeedsTools, Needs: []string{"mount.nfs"}, Note: "it hands mounts to a driver of NFS or CephFS, which must run too", Source: "v1.36.0, pkg/csi/manila"},
}
