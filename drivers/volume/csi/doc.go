// Package csi drives the volumes of any CSI driver: what the vendor of a storage made for Kubernetes, for a
// plain "docker run".
//
// A volume goes up by CreateVolume, ControllerPublishVolume, NodeStageVolume and NodePublishVolume, and down in the
// reverse order. Before each of these calls is made it is written down that it will be, and what came of it
// after; what a crash cuts off is asked for again, since all of them may be. Nothing goes down further while
// something is still mounted above it.
//
// # What is written down, and where
//
//	STATE/csi/POOL/volumes/    a file for each volume: its ID, its context, how it was asked for, where it is attached
//	STATE/csi/POOL/snapshots/  a file for each snapshot
//	RUN/csi/POOL/nodes/        a file for each volume that is staged or published, until a reboot
//	RUN/csi/POOL/m/            the staging and target paths that the driver mounts on
//
// What is in these files is in memory too, so that a list asks nobody.
//
// The CSI driver never sees the mountpoint that an engine gets. That is a bind mount of the target path, or of a
// directory in it.
package csi
