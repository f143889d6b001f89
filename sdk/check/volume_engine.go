package check

import (
	"os"
	"syscall"
	"time"
)

// The orders of calls are those of a real engine (dockerd 20.10.24), command by command; the
// file named with each is where the engine makes them.

func volumeReplays() []Case {
	cases := ofKind(Volume, []Case{
		{
			ID: "volume/engine-run", run: replayRun,
			Asserts: "docker volume create, run, stop, start, stop, volume rm.",
			Source:  "moby daemon/volumes.go, daemon/start.go, daemon/stop.go; " + mobyMount,
		},
		{
			ID: "volume/engine-restart", run: replayRestart,
			Asserts: "docker restart, three times: the old mount goes before the new one comes.",
			Source:  "moby daemon/restart.go, containerRestart",
		},
		{
			ID: "volume/engine-copy-up", run: replayCopyUp,
			Asserts: "docker run of an image that has files where the volume goes: it is mounted with an ID of its own to copy them, before the container is started.",
			Source:  "moby daemon/create_unix.go, populateVolumes; daemon/volumes.go",
		},
		{
			ID: "volume/engine-cp", run: replayCp,
			Asserts: "docker cp, of a container that runs and of one that is stopped.",
			Source:  dockerCp,
		},
		{
			ID: "volume/engine-anonymous", run: replayAnonymous,
			Asserts: "docker run --rm -v /data: a volume without options whose name has 64 characters comes and goes with its container.",
			Source:  "moby daemon/mounts.go, removeMountPoints",
		},
		{
			ID: "volume/engine-two", run: replayTwo,
			Asserts: "Two containers with two volumes each are started and stopped across one another.",
			Source:  mobyMount,
		},
		{
			ID: "volume/engine-live-restore", run: replayLiveRestore,
			Asserts: "The engine is restarted below a container that lives on: it activates, asks for the volume, does not mount, and unmounts once in the end.",
			Source:  "moby daemon/daemon.go, restore; daemon/volumes.go",
		},
		{
			ID: "volume/engine-crash", run: replayCrash,
			Asserts: "The engine is killed below a container: it starts it again with the same mount ID, two Mounts and one Unmount. The data is there, and in the end the volume can be removed.",
			Source:  "moby daemon/daemon.go, restore (the ID of a mount is stored with the container); moby issue 30748",
		},
		{
			ID: "volume/engine-lost-mount", run: replayLostMount,
			Asserts: "What is mounted at the mountpoint is lost, as when a server or a FUSE process dies. The next Mount fails or has the data; it does not hand out the bare directory of the host.",
			Source:  mobyMount + "; juicedata/docker-volume-juicefs issue 64",
		},
	})
	for i := range cases {
		cases[i].Engine = true
	}
	return cases
}

// written is a file that a container writes and the next one reads.
func (t *T) written(path string) {
	if !t.p.away {
		t.write(path, "x")
	}
}

func (t *T) found(path string) {
	if !t.p.away {
		t.read(path, "x")
	}
}

// start is what an engine asks for when a container starts; stop when it ends.
func (t *T) start(name string, n int) string {
	t.get(name)
	return t.mount(name, t.mountID(n))
}

func (t *T) stop(name string, n int) {
	t.get(name)
	t.unmount(name, t.mountID(n))
}

// erase is docker volume rm.
func (t *T) erase(name string) {
	t.get(name)
	t.get(name)
	t.remove(name)
	t.gone("a volume that was removed", name)
}

// engineStarts is what an engine asks for once in its life, and then for each volume that it
// remembers.
func (t *T) engineStarts(names ...string) {
	t.activates()
	if _, err := t.c.Volume().Scope(t.ctx); unanswered(err) {
		t.Fatalf("Capabilities: %w", err)
	}
	for _, name := range names {
		t.get(name)
		t.get(name)
	}
}

func (t *T) engineCreates(suffix string) string {
	t.gone("a volume that was never created", t.name(suffix))
	return t.create(suffix)
}

func replayRun(t *T) {
	t.engineStarts()
	name := t.engineCreates("a")
	t.get(name) // docker create
	t.written(t.start(name, 1))
	t.stop(name, 1)
	t.found(t.start(name, 2))
	t.stop(name, 2)
	t.listed(name, 1)
	t.erase(name)
}

func replayRestart(t *T) {
	name := t.engineCreates("a")
	t.written(t.start(name, 0))
	for n := range 3 {
		t.stop(name, n)
		t.found(t.start(name, n+1))
	}
	t.stop(name, 3)
	t.erase(name)
}

func replayCopyUp(t *T) {
	name := t.engineCreates("a")
	t.get(name)
	t.written(t.start(name, 1)) // the copy
	t.stop(name, 1)
	t.found(t.start(name, 2))
	t.stop(name, 2)
	t.erase(name)
}

func replayCp(t *T) {
	name := t.engineCreates("a")
	running := t.start(name, 1)
	t.written(running)
	for range 2 {
		t.found(t.start(name, 1))
		t.stop(name, 1)
		t.found(running)
	}
	t.stop(name, 1)
	t.found(t.start(name, 2))
	t.stop(name, 2)
	t.erase(name)
}

func replayAnonymous(t *T) {
	if len(t.p.options.Create) > 0 {
		t.Skipf("options were given that volumes are made with")
	}
	name := t.name("")
	name += t.hex(64 - len(name))
	t.gone("a volume that was never created", name)
	t.track(name)
	t.must("Create", t.c.Volume().Create(t.ctx, name, nil))
	t.written(t.start(name, 1))
	t.stop(name, 1)
	t.erase(name)
}

func replayTwo(t *T) {
	a, b := t.engineCreates("a"), t.engineCreates("b")
	t.written(t.start(a, 1))
	t.written(t.start(b, 2))
	t.found(t.start(b, 3))
	second := t.start(a, 4)
	t.found(second)
	t.stop(a, 1)
	t.stop(b, 2)
	t.found(second)
	t.stop(b, 3)
	t.stop(a, 4)
	t.erase(a)
	t.erase(b)
}

func replayLiveRestore(t *T) {
	t.engineStarts()
	name := t.engineCreates("a")
	path := t.start(name, 1)
	t.written(path)
	t.engineStarts(name)
	t.found(path)
	if got := t.get(name).Mountpoint; got != "" && got != path {
		t.Errorf("Get says the mountpoint %q, and the container has it at %q", got, path)
	}
	t.stop(name, 1)
	t.found(t.start(name, 2))
	t.stop(name, 2)
	t.erase(name)
}

// graceTime is how long a plugin may keep a mount of a dead engine, in case that its
// container lives.
const graceTime = 15 * time.Second

func replayCrash(t *T) {
	t.engineStarts()
	name := t.engineCreates("a")
	t.written(t.start(name, 1))
	t.engineStarts(name)
	t.found(t.start(name, 1)) // the same ID
	t.stop(name, 1)
	t.found(t.start(name, 2))
	t.stop(name, 2)
	for begin := time.Now(); ; time.Sleep(time.Second) {
		err := t.c.Volume().Remove(t.ctx, name)
		if err == nil {
			break
		}
		if time.Since(begin) > graceTime || unanswered(err) || t.ctx.Err() != nil {
			t.Fatalf("no container has the volume, and %s after that Remove says: %w", time.Since(begin).Round(time.Second), err)
		}
	}
	t.gone("a volume that was removed", name)
}

func replayLostMount(t *T) {
	t.here()
	if os.Geteuid() != 0 {
		t.Skipf("only root can take a mount away")
	}
	before := mounts()
	name := t.engineCreates("a")
	path := t.start(name, 1)
	t.written(path)
	switch {
	case mountsAt(path) == 0:
		t.Skipf("nothing is mounted at %s, so nothing can be lost", path)
	case before.at(path) > 0:
		t.Skipf("what is mounted at %s was there before the volume, and is not taken away", path)
	}
	for mountsAt(path) > 0 {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Skipf("unmount %s: %v", path, err)
		}
	}
	again, err := t.tryMount(t.c.Volume(), name, t.mountID(2))
	switch {
	case unanswered(err):
		t.Fatalf("Mount after the mount was lost: %w", err)
	case err == nil && mountsAt(again) == 0:
		t.Errorf("Mount after the mount was lost hands out %s, on which nothing is mounted: containers write to the host's disk", again)
	case err == nil:
		t.found(again)
		_ = t.tryUnmount(t.c.Volume(), name, t.mountID(2)) // whatever comes of it, the next line tells
	}
	if err := t.tryUnmount(t.c.Volume(), name, t.mountID(1)); unanswered(err) {
		t.Fatalf("Unmount: %w", err)
	}
}
