// Package block makes a volume driver of a cloud's block storage: disks that are attached to a
// host over the cloud's API, and follow their containers to another one.
//
// What clouds have in common is here: which disks are ours, to make one of a name once, to attach
// it where it is mounted and nowhere else, to know it again among the host's devices, to format
// it once and never again, to detach it, to grow it, snapshots and clones, what goes on when a
// process is killed between any two lines, and to ask the cloud for all this as seldom as may be.
// What is different is a [Provider], of nine methods without a loop in any of them.
//
// # A provider
//
//	type config struct {
//		block.Config                  // namespace, size, fs, detach_after, preempt …
//		Region string         `opt:"region,required" help:"…"`
//		Token  catalog.Secret `opt:"token" help:"…"`
//	}
//
//	func Driver() catalog.Volume {
//		return catalog.NewVolume("dobs", "volumes of DigitalOcean", open).WithOptions(block.Options(traits))
//	}
//
//	func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
//		client := block.NewClient("dobs "+accountOf(c.Token), c.Rate)
//		http := &http.Client{Transport: client.Transport(http.DefaultTransport, opOf, nil)}
//		t := traits
//		t.Client, t.Scope = client, "region "+c.Region
//		return block.Open(ctx, &provider{api.New(http, c.Token), t}, c.Config, env)
//	}
//
// Every request goes through the account's [Client], which keeps to the rate, backs off where the
// cloud says so, and counts. What the provider can do beyond the nine methods it says by having
// more of them: [Snapshotter], [Rollbacker],
// [SnapshotCopier], [Resizer], [Prober], [Finder].
//
// Package blocktest has the scenarios that a provider is proved by.
//
// # What is written down, and where
//
// In the cloud, as tags of the disk: its UUID, the name to Docker as it is, the namespace, the
// options that it was made with, the record of formatting, the directory that is the volume.
// Other hosts need nothing else.
//
//	STATE/block/POOL/index.jsonl   a cache of the disks, for a start while the cloud is out of reach
//	STATE/block/POOL/jobs/         a file for each job that is not done
//	RUN/block/POOL/                a file for each mount, until a reboot
//
// # Never two writers
//
// The guard is the attachment: Attach of a provider succeeds for one host at a time. A mount whose
// disk is with another host is refused with who has it, and since when. It is taken from there
// only by force, or by a policy that the user chose. The host that lost it sees its device go:
// its mount is taken away lazily, so that whoever has files open gets errors, the volume says in
// its status what happened, and nothing is mounted over it.
//
// # A volume that is moved
//
// A disk is in one zone. To be in another one, its volume is moved: by a snapshot, of which a disk
// is made there, that takes the place of the old one with one tag. As long as it is being made
// the old one has a tag by which every host keeps off it. To another region, or account, the
// [SnapshotCopier] of the pool there brings the snapshot.
//
// # Never a format of used data
//
// A disk is formatted where two say that it never was: the tag, which is written before the first
// mount is answered and never taken away, and the device, on which libblkid knows nothing and the
// first and last megabyte are zero. Between the tag "begun" and that of the end nobody has had a
// mount; what a crash leaves there is known by the file system's UUID, which is the disk's.
package block
