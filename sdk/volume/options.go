package volume

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/remora-plugins/remora/sdk"
)

// The limits that hold where [Options] says nothing. They stay below the engine's own
// (moby volume/drivers/proxy.go: 2 minutes for Create and Mount, 1 minute for the
// rest), so that a user reads what went wrong instead of that something did.
const (
	DefaultLongTimeout  = 90 * time.Second
	DefaultShortTimeout = 45 * time.Second
	DefaultMountGrace   = 2 * time.Minute
	DefaultRefresh      = time.Minute
)

// Options of a [Handler]. The zero value works: nothing is logged, counts are kept in
// memory alone, and the driver must not need a mountpoint.
type Options struct {
	// Logger is told of what changes and of what fails; nil is silent.
	Logger *slog.Logger
	// Observe is told of each call that was answered; nil is nobody.
	Observe sdk.Observer

	// MountRoot is the directory below which mountpoints are made, one for each mounted
	// volume, named after it. It belongs to this Handler alone: what else is found in it
	// at start is taken for the rest of a crash and unmounted. It must not survive a
	// reboot with mounts in it, which below /run it cannot. Empty makes no mountpoints:
	// Mount of a driver gets an empty target.
	MountRoot string
	// GuardMountpoints sets the immutable flag (chattr(1), +i) on the mountpoints that are made,
	// where the file system has it and this process may: when what was mounted has gone, whoever
	// still writes to the path, root or a container, is refused, and fills no disk of the host. A
	// mountpoint that a crash leaves is removed by the next start; by hand it takes a chattr -i.
	GuardMountpoints bool
	// Ledger is the file that remembers who has mounted what. It survives restarts of
	// plugin and engine; one written before the last reboot is not believed. Empty keeps
	// the counts in memory, which is for tests.
	Ledger string

	// Trash has Remove bring a volume into the trash of a driver that is a [Trasher]. Nothing
	// leaves the trash but by Restore and Purge.
	Trash bool
	// CloneOption is a volume option, such as "from", by which Create clones: its value is
	// VOLUME or VOLUME@SNAPSHOT. Where the driver is no [Cloner], or the value is an absolute
	// path, the option is the driver's own. Empty is none.
	CloneOption string
	// Own are options of volumes that the program keeps itself.
	Own OwnOptions
	// MayRemove is asked before a volume is removed, whoever wants it; its error is the
	// answer. nil allows all.
	MayRemove func(ctx context.Context, name string) error
	// MayUse is asked before a volume is mounted, cloned, or a snapshot of it made or rolled back
	// to: it refuses one that is not whole, such as one that is being filled. When such a volume
	// is removed it does not come into the trash, from which it would come back as if it were.
	// nil allows all.
	MayUse func(ctx context.Context, name string) error
	// MakeOption is a volume option which has Make make the volume, or adopt it, in the place of
	// the driver's Create. Make runs with no lock held, and has to end within LongTimeout; it may
	// call the Handler. Its errors name the volume. Empty is none.
	MakeOption string
	Make       func(ctx context.Context, name string, opts map[string]string) error
	// Removed is told of each volume that was removed. nil is nobody.
	Removed func(ctx context.Context, name string)

	// Linger is how long a volume stays mounted after its last unmount, in case it is
	// mounted again: "docker run" mounts twice. 0 unmounts at once.
	Linger time.Duration
	// MountGrace is how long a mount is believed in although a restart lies behind it
	// and no container holds it: the time between the answer to Mount and the start of
	// the container, amply. 0 is DefaultMountGrace.
	MountGrace time.Duration
	// Refresh is how often the volumes in memory are compared with the driver's, and the
	// mounts with the containers that hold them. 0 is DefaultRefresh, negative is never.
	Refresh time.Duration
	// LongTimeout bounds Create and Mount, ShortTimeout everything else. 0 is
	// DefaultLongTimeout and DefaultShortTimeout.
	LongTimeout, ShortTimeout time.Duration

	// CheckName refuses a volume name; nil is [CheckName].
	CheckName func(name string) error
	// Held tells whether somebody besides this process uses what lies at mountpoint,
	// and whether that could be found out. nil looks into the mount tables of all
	// processes (proc_pid_mountinfo(5)).
	Held func(ctx context.Context, mountpoint string) (held, known bool)
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MountGrace == 0 {
		o.MountGrace = DefaultMountGrace
	}
	if o.Refresh == 0 {
		o.Refresh = DefaultRefresh
	}
	if o.LongTimeout == 0 {
		o.LongTimeout = DefaultLongTimeout
	}
	if o.ShortTimeout == 0 {
		o.ShortTimeout = DefaultShortTimeout
	}
	if o.CheckName == nil {
		o.CheckName = CheckName
	}
	if o.Held == nil {
		o.Held = heldByProcess
	}
	return o
}

// errStopped is the cause of the end of whatever a closed Handler still ran.
var errStopped = errors.New("the plugin is stopping")
