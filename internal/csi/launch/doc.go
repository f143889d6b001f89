// Package launch starts the CSI drivers of pools and keeps them running: the vendor's own image, a program of the host, or
// nothing where the driver is somebody else's.
//
//	p, err := launch.Start(ctx, launch.Config{Keys: keys, Pool: "fast", Dir: …, RunDir: …, Mounts: …})
//	conn.Open(conn.Config{Node: p.Endpoint(), …})
//	err = p.Close()  // the driver runs on
//
// Start waits for nothing: a pool is served while its driver is fetched, and after a boot without a network. What runs the
// driver is internal/managed/runtime, which also runs managed plugins; what an image is made of comes by
// internal/managed/registry and internal/managed/store.
//
// # What outlives what
//
// A driver outlives the daemon: killed or restarted, the next daemon finds it by its record and takes it over. What is
// mounted outlives the driver. Mounts of the kernel are seen through a directory that is shared between host and driver, at
// the same path on both sides. A FUSE file system is a process; it goes on outside the driver's control group when the driver
// ends (see runtime.Beyond), which is why a driver has the host's process namespace: its own would end with it.
//
// # On disk
//
//	Dir/image.json  which image is unpacked, and what it says of itself
//	Dir/rootfs-…/   the driver's root
//	Dir/log/        what the driver writes
//	RunDir/ID/      the record of the running driver, and s/csi.sock, where it listens
package launch
