// Package runtime runs managed plugins: it makes of a plugin's config and settings a bundle
// for runc, starts it, keeps it running, collects what it writes, and publishes its socket.
//
//	rt, err := runtime.Open(runtime.Options{Dir: "/var/lib/remora/plugins/run", RunDir: "/run/remora/plugins", …})
//	rt.Adopt(ctx, enabled)        // once, at the daemon's start
//	err = rt.Start(ctx, plugin)   // its socket answers when this returns
//	err = rt.Stop(ctx, plugin.ID, 0)
//
// # Nothing depends on the daemon's life
//
// A plugin is started detached and is nobody's child but init's. What it writes goes to two
// files that it has open itself, so it never waits for a reader and never loses one; the
// daemon follows them, remembers how far it has read, and gives what it has read back to the
// file system. That it ended is seen by its pidfd. So a daemon that is restarted, or killed,
// leaves plugins as they are, and the next one takes them over (Adopt).
//
// # Its socket
//
// Below the discovery directory a plugin's name is a hard link to the socket that the plugin
// itself listens on: a call costs nothing more than with any other plugin, goes on while the
// daemon is away, and engines list it, which they do not for symbolic links. When the plugin
// ends, the name is exchanged, atomically, for a socket of the daemon's, which keeps callers
// waiting until the plugin listens again and then passes their bytes on. After [HoldTime] they
// are hung up on without an answer: to an engine an answer that says "error" to a Get would
// mean that the volume is gone.
//
// # How a plugin ended
//
// It is no child of the daemon, so its exit status is what the kernel tells others than its parent: since Linux 6.15
// always, before that only when init is slower than the daemon. Where it is not known State says so; the last words are
// known all the same.
//
// # Drivers that are no plugins
//
// What is in [Beyond] lets the same code run a driver of storage, in a container or as a program of the host. What such a
// driver mounts stays when it ends, and so do the processes by which it serves a mounted file system: they are taken into
// a control group of their own before what is left of the driver is cleared away.
//
// # On disk
//
//	Dir/<ID>/     log, log.1: its lines, with time and stream; stdout, stderr: what is not yet read
//	RunDir/<ID>/  record.json, bundle/, s/: the directory of its sockets, /run/docker/plugins in it
//	RunDir/runc/  runc's own
package runtime
