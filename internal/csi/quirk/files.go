package quirk

// The names that drivers of file systems, object stores and Ceph give. Some are often given another one.
const (
	hostPath   = "hostpath.csi.k8s.io"
	nfs        = "nfs.csi.k8s.io"
	smb        = "smb.csi.k8s.io"
	cephFS     = "*cephfs.csi.ceph.com"
	cephRBD    = "*rbd.csi.ceph.com"
	seaweed    = "seaweedfs-csi-driver"
	democratic = "org.democratic-csi.*"
	yandexS3   = "ru.yandex.s3.csi"
	ctroxS3    = "ch.ctrox.csi.s3-driver"
	juice      = "csi.juicefs.com"
)

var files = []Entry{
	{Driver: hostPath, ID: StatsOfBacking, Source: "seen in November 2026, v1.18.0"},
	{Driver: hostPath, ID: NeedsVersion, Source: "seen in November 2026, v1.18.0"},
	{Driver: nfs, ID: AnySize, Note: "sizes are not enforced", Source: "v4.13.4, pkg/nfs/controllerserver.go"},
	{Driver: nfs, ID: StatsOfBacking, Note: "those of the whole export", Source: "v4.13.4, pkg/nfs/nodeserver.go"},
	{Driver: nfs, ID: NeedsModules, Needs: []string{"nfs"}, Source: "seen in November 2026: it starts without, and mounts nothing"},
	{Driver: nfs, ID: NeedsTools, Needs: []string{"mount.nfs"}, Source: "https://github.com/kubernetes-csi/csi-driver-nfs"},
	{Driver: smb, ID: AnySize, Note: "sizes are not enforced", Source: "v1.20.3, pkg/smb/controllerserver.go"},
	{Driver: smb, ID: StatsOfBacking, Note: "those of the whole share", Source: "v1.20.3, pkg/smb/nodeserver.go"},
	{Driver: smb, ID: NeedsModules, Needs: []string{"cifs"}, Source: "https://github.com/kubernetes-csi/csi-driver-smb"},
	{Driver: smb, ID: NeedsTools, Needs: []string{"mount.cifs"}, Source: "https://github.com/kubernetes-csi/csi-driver-smb"},
	{Driver: cephFS, ID: AnySize, Source: "seen in November 2026, v3.12.2"},
	{Driver: cephFS, ID: SlowSource, Note: "19 s for a small one", Source: "seen in November 2026, v3.12.2"},
	{Driver: cephFS, ID: SnapshotParameters, Note: "clusterID", Source: "seen in November 2026, v3.12.2"},
	{Driver: cephFS, ID: MountsDieWithDriver, Note: "with mounter=fuse; the kernel's mounts stay", Source: "https://github.com/ceph/ceph-csi/blob/devel/docs/ceph-mount-corruption.md"},
	{Driver: cephRBD, ID: SlowSource, Source: "seen in November 2026, v3.12.2"},
	{Driver: cephRBD, ID: SnapshotParameters, Note: "clusterID", Source: "seen in November 2026, v3.12.2"},
	{Driver: cephRBD, ID: NeedsModules, Needs: []string{"rbd"}, Note: "its node ends without", Source: "seen in November 2026, v3.12.2"},
	{Driver: cephRBD, ID: NeedsSysResource, Source: "as with every driver that lets resize2fs grow a mounted ext4"},
	{Driver: seaweed, ID: AnySize, Source: "seen in November 2026"},
	{Driver: seaweed, ID: ForgetsGrowth, Note: "it would ask Kubernetes", Source: "seen in November 2026, v1.4.29; pkg/driver/nodeserver.go"},
	{Driver: seaweed, ID: LooseValidate, Note: "confirms SINGLE_NODE_WRITER alone", Source: "August 2026, pkg/driver/controllerserver.go"},
	{
		Driver: seaweed, ID: MountsDieWithDriver, Note: "unless its mount service is started by itself",
		Source: "https://github.com/seaweedfs/seaweedfs-csi-driver/issues/201",
	},
	{
		Driver: democratic, ID: SuspectSnapshot, Note: "without rsync it ends in CreateSnapshot, and then calls the empty directory a snapshot",
		Source: "seen in November 2026, v1.9.4; https://github.com/democratic-csi/democratic-csi/issues/166",
	},
	{Driver: democratic, ID: NeedsTools, Needs: []string{"rsync", "lsblk"}, Source: "seen in November 2026, v1.9.4"},
	{Driver: democratic, ID: StatsOfBacking, Note: "where its storage has no quota", Source: "seen in November 2026, v1.9.4, local-hostpath"},
	{Driver: democratic, ID: AnySize, Source: "seen in November 2026, v1.9.4, local-hostpath"},
	{Driver: democratic, ID: NoCapacity, Source: "seen in November 2026, v1.9.4, local-hostpath"},
	{Driver: yandexS3, ID: ManyWriters, Source: "v0.43.7, pkg/driver/controllerserver.go"},
	{Driver: yandexS3, ID: KeepsTarget, Source: "seen in November 2026, v0.43.7"},
	{Driver: yandexS3, ID: DeletesAll, Note: "the whole bucket", Source: "v0.43.7, pkg/driver/controllerserver.go"},
	{Driver: yandexS3, ID: AnySize, Source: "seen in November 2026, v0.43.7"},
	{Driver: yandexS3, ID: NoCapacity, Source: "seen in November 2026, v0.43.7"},
	{Driver: yandexS3, ID: NoChmod, Source: "seen in November 2026, geesefs v0.43.8"},
	{Driver: yandexS3, ID: NeedsTools, Needs: []string{"geesefs"}, Source: "v0.43.7, pkg/mounter/geesefs.go"},
	{
		Driver: yandexS3, ID: MountsDieWithDriver, Note: "unless it can ask systemd to start them",
		Source: "https://github.com/yandex-cloud/k8s-csi-s3/issues/29",
	},
	{Driver: ctroxS3, ID: MountsDieWithDriver, Source: "https://github.com/ctrox/csi-s3/issues/34"},
	{Driver: ctroxS3, ID: DeletesAll, Note: "the whole bucket", Source: "the driver that ru.yandex.s3.csi is made from"},
	{
		Driver: juice, ID: MountsDieWithDriver, Note: "started with --by-process",
		Source: "https://juicefs.com/docs/csi/administration/upgrade-csi-driver",
	},
	{
		Driver: juice, ID: NeedsKubernetes, Note: "unless it is started with --by-process=true, which is what to do",
		Source: "https://juicefs.com/docs/csi/cookbook/csi-in-nomad",
	},
}
