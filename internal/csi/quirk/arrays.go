package quirk

// arrays are the drivers of storage that a vendor sells, and of pools of disks.
var arrays = []Entry{
	{Driver: "iscsi.csi.k8s.io", ID: NeedsTools, Needs: []string{"iscsiadm"}, Source: "https://github.com/kubernetes-csi/csi-driver-iscsi"},
	{Driver: "iscsi.csi.k8s.io", ID: NeedsModules, Needs: []string{"iscsi_tcp"}, Source: "https://github.com/kubernetes-csi/csi-driver-iscsi"},
	{Driver: "linstor.csi.linbit.com", ID: NeedsModules, Needs: []string{"drbd"}, Source: "https://github.com/piraeusdatastore/linstor-csi"},
	{Driver: "*moosefs*", ID: NeedsTools, Needs: []string{"mfsmount"}, Note: "it mounts at its start", Source: "seen in November 2026"},
	{
		Driver: "csi.san.synology.com", Versions: ">=1.2.0", ID: NeedsKubernetes, Note: "it does not start without",
		Source: "seen in November 2026, v1.2.1",
	},
	{Driver: "csi.san.synology.com", ID: NeedsTools, Needs: []string{"iscsiadm"}, Note: "for protocol=iscsi", Source: "https://github.com/SynologyOpenSource/synology-csi"},
	{
		Driver: "csi-isilon.dellemc.com", ID: NeedsKubernetes, Note: "not with X_CSI_ISI_NO_PROBE_ON_START=true",
		Source: "v2.16.0, service/node.go",
	},
	{Driver: "csi-isilon.dellemc.com", ID: NeedsModules, Needs: []string{"nfs"}, Source: "https://github.com/dell/csi-powerscale"},
	{Driver: "csi-vxflexos.dellemc.com", ID: NeedsKubernetes, Note: "labels and the UID of the node", Source: "v2.16.1, service/node.go"},
	{Driver: "csi-vxflexos.dellemc.com", ID: NeedsModules, Needs: []string{"scini"}, Source: "https://github.com/dell/csi-powerflex"},
	{
		Driver: "csi-powermax.dellemc.com", ID: NeedsKubernetes, Note: "and its reverse proxy, without which it does not start",
		Source: "seen in November 2026, v2.15.0",
	},
	{Driver: "csi-unity.dellemc.com", ID: NeedsKubernetes, Note: "labels of the node", Source: "v2.16.0, service/node.go"},
	{Driver: "csi-powerstore.dellemc.com", ID: NeedsKubernetes, Note: "its node does not start without", Source: "v2.16.0, pkg/node"},
	{Driver: "topolvm.io", ID: OnlyKubernetes, Note: "LogicalVolume", Source: "https://github.com/topolvm/topolvm"},
	{Driver: "local.csi.openebs.io", ID: OnlyKubernetes, Note: "LVMVolume", Source: "https://github.com/openebs/lvm-localpv"},
	{Driver: "zfs.csi.openebs.io", ID: OnlyKubernetes, Note: "ZFSVolume", Source: "https://github.com/openebs/zfs-localpv"},
	{Driver: "driver.longhorn.io", ID: OnlyKubernetes, Note: "its manager runs in the cluster", Source: "https://github.com/longhorn/longhorn"},
	{Driver: "csi.trident.netapp.io", ID: OnlyKubernetes, Note: "TridentVolume; it has a plugin for Docker of its own", Source: "https://github.com/NetApp/trident"},
	{Driver: "csi.vsphere.vmware.com", ID: OnlyKubernetes, Note: "it asks vCenter for the cluster", Source: "https://github.com/kubernetes-sigs/vsphere-csi-driver/issues/2191"},
}
