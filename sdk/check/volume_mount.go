package check

import (
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/volume"
)

const (
	mobyMount = "moby daemon/volume/mounts/mounts.go, MountPoint.Setup and Cleanup"
	dockerCp  = "moby daemon/containerfs_linux.go, openContainerFS (docker cp mounts with the ID of the running container)"
)

func mountCases() []Case {
	return ofKind(Volume, []Case{
		{
			ID: "volume/mount-path", run: mountPath,
			Asserts: "Mount answers with the absolute path of a directory on the engine's host.",
			Source:  docVolume + ", /VolumeDriver.Mount; " + mobyMount,
		},
		{
			ID: "volume/mount-agrees", run: mountAgrees,
			Asserts: "While it is mounted, Get says the path that Mount said, or none, and so does Path.",
			Source:  docVolume + ", /VolumeDriver.Path and Get; " + mobyAdapter + ", Get (the path is remembered)",
		},
		{
			ID: "volume/mount-keeps-data", run: mountKeepsData,
			Asserts: "What one container wrote, the next one finds.",
			Source:  docVolume + ", introduction (data that outlives its host's containers)",
		},
		{
			ID: "volume/mount-for-two", run: mountForTwo,
			Asserts: "Two containers have the same volume mounted and see the same data; when one ends, the other keeps it.",
			Source:  mobyMount + " (each start of a container has an ID); " + docVolume + ", /VolumeDriver.Unmount",
		},
		{
			ID: "volume/mount-same-id", run: mountSameID,
			Asserts: "A second Mount with the same ID, and one Unmount for it, leave the container its volume.",
			Source:  dockerCp,
		},
		{
			ID: "volume/mount-not-stacked", run: mountNotStacked,
			Asserts: "Further Mounts of what is mounted put nothing on top of it.",
			Source:  mobyMount + "; juicedata/docker-volume-juicefs issue 60",
		},
		{
			ID: "volume/mount-at-once", run: mountAtOnce,
			Asserts: "16 containers that start at once all get the volume, and it stays until the last one has ended.",
			Source:  mobyMount + " (no lock of the engine is held across a call for other containers)",
		},
		{
			ID: "volume/mount-absent", run: mountAbsent,
			Asserts: "Mount of a volume that does not exist fails, as does Path: a path would have the container write to the host's disk.",
			Source:  docVolume + ", /VolumeDriver.Mount (Err); " + mobyMount,
		},
		{
			ID: "volume/unmount-again", run: unmountAgain,
			Asserts: "An Unmount that is repeated, as one whose answer was lost is, takes the volume from no other container.",
			Source:  mobyClient + ", callWithRetry; " + mobyMount,
		},
		{
			ID: "volume/unmount-stray", run: unmountStray,
			Asserts: "An Unmount of what is not mounted does no harm to what is mounted later.",
			Source:  mobyClient + ", callWithRetry; " + mobyMount,
		},
		{
			ID: "volume/volumes-apart", run: volumesApart,
			Asserts: "What is written to one volume is in no other.",
			Source:  docVolume + ", introduction",
		},
		{
			ID: "volume/errors", run: volumeErrors,
			Asserts: "What fails has a status other than 200 and the reason in Err of a JSON object: dockerd reads Err of any answer, Podman only beside such a status.",
			Source:  podmanVol + ", handleErrorResponse; " + mobyClient + ", callWithRetry",
		},
		{
			ID: "volume/podman", run: podman,
			Asserts: "Podman, which has one mount ID for everything, can use a volume beside dockerd.",
			Source:  podmanVol + ", CreateVolume, MountVolume, UnmountVolume; podman libpod/volume_internal_linux.go, mount (it counts for itself)",
		},
	})
}

func mountPath(t *T) {
	t.here()
	name := t.create("a")
	for n := range 2 {
		t.directory(t.mount(name, t.mountID(n)))
		t.unmount(name, t.mountID(n))
	}
}

func mountAgrees(t *T) {
	name := t.create("a")
	path := t.mount(name, t.mountID(1))
	if got := t.get(name).Mountpoint; got != "" && got != path {
		t.Errorf("Get says the mountpoint %q, Mount said %q", got, path)
	}
	got, err := t.c.Volume().Path(t.ctx, name)
	t.must("Path", err)
	if got != "" && got != path {
		t.Errorf("Path says %q, Mount said %q", got, path)
	}
	t.unmount(name, t.mountID(1))
}

func mountKeepsData(t *T) {
	t.here()
	name := t.create("a")
	t.write(t.mount(name, t.mountID(1)), "x")
	t.unmount(name, t.mountID(1))
	t.read(t.mount(name, t.mountID(2)), "x")
	t.unmount(name, t.mountID(2))
}

func mountForTwo(t *T) {
	name := t.create("a")
	one, two := t.mount(name, t.mountID(1)), t.mount(name, t.mountID(2))
	t.here()
	t.write(one, "x")
	t.read(two, "x")
	t.unmount(name, t.mountID(1))
	t.read(two, "x")
	t.unmount(name, t.mountID(2))
}

func mountSameID(t *T) {
	name := t.create("a")
	path := t.mount(name, t.mountID(1))
	if !t.p.away {
		t.write(path, "x")
	}
	for range 2 {
		again := t.mount(name, t.mountID(1))
		if !t.p.away {
			t.read(again, "x")
		}
		t.unmount(name, t.mountID(1))
		if !t.p.away {
			t.read(path, "x")
		}
	}
	t.unmount(name, t.mountID(1))
}

func mountNotStacked(t *T) {
	t.here()
	name := t.create("a")
	path := t.mount(name, t.mountID(1))
	t.directory(path)
	before := mountsAt(path)
	for n := range 3 {
		if again := t.mount(name, t.mountID(n+2)); again != path {
			t.Skipf("each mount ID has a mountpoint of its own here")
		}
	}
	if after := mountsAt(path); after > before {
		t.Errorf("%d file systems are mounted at %s, and after three more calls of Mount %d", before, path, after)
	}
	for n := range 4 {
		t.unmount(name, t.mountID(n+1))
	}
}

func mountAtOnce(t *T) {
	const containers = 16
	name := t.create("a")
	var all sync.WaitGroup
	paths := make([]string, containers)
	for n := range containers {
		all.Go(func() {
			var err error
			if paths[n], err = t.tryMount(t.c.Volume(), name, t.mountID(n)); err != nil {
				t.Errorf("one of %d Mounts at once: %w", containers, err)
			}
		})
	}
	all.Wait()
	if t.result.Outcome != Pass {
		return
	}
	last := paths[containers-1]
	if !t.p.away {
		t.write(paths[0], "x")
	}
	for n := range containers - 1 {
		all.Go(func() {
			if err := t.tryUnmount(t.c.Volume(), name, t.mountID(n)); err != nil {
				t.Errorf("one of %d Unmounts at once: %w", containers-1, err)
			}
		})
	}
	all.Wait()
	if !t.p.away {
		t.read(last, "x")
	}
	t.unmount(name, t.mountID(containers-1))
}

func mountAbsent(t *T) {
	name := t.name("absent")
	if path, err := t.tryMount(t.c.Volume(), name, t.mountID(1)); err == nil {
		t.Errorf("Mount of a volume that does not exist: mountpoint %q", path)
	} else if unanswered(err) {
		t.Errorf("Mount of a volume that does not exist: %w", err)
	}
	if path, err := t.c.Volume().Path(t.ctx, name); err == nil && path != "" {
		t.Errorf("Path of a volume that does not exist: %q", path)
	}
	t.gone("a volume that only Mount was asked for", name)
}

func unmountAgain(t *T) {
	t.here()
	name := t.create("a")
	one := t.mount(name, t.mountID(1))
	two := t.mount(name, t.mountID(2))
	t.write(one, "x")
	t.unmount(name, t.mountID(1))
	for range 2 {
		if err := t.tryUnmount(t.c.Volume(), name, t.mountID(1)); unanswered(err) {
			t.Fatalf("Unmount again: %w", err)
		}
		t.read(two, "x")
	}
	t.unmount(name, t.mountID(2))
}

func unmountStray(t *T) {
	t.here()
	name := t.create("a")
	for range 2 {
		if err := t.tryUnmount(t.c.Volume(), name, t.mountID(9)); unanswered(err) {
			t.Fatalf("Unmount of what is not mounted: %w", err)
		}
	}
	t.get(name)
	one, two := t.mount(name, t.mountID(1)), t.mount(name, t.mountID(2))
	t.write(one, "x")
	t.unmount(name, t.mountID(1))
	t.read(two, "x")
	t.unmount(name, t.mountID(2))
	t.read(t.mount(name, t.mountID(3)), "x")
	t.unmount(name, t.mountID(3))
}

func volumesApart(t *T) {
	t.here()
	a, b := t.create("a"), t.create("b")
	one, two := t.mount(a, t.mountID(1)), t.mount(b, t.mountID(2))
	t.write(one, "a")
	t.directory(two)
	t.absent(two, "a file was written to another volume")
	t.unmount(a, t.mountID(1))
	t.write(two, "b")
	t.unmount(b, t.mountID(2))
	t.read(t.mount(a, t.mountID(3)), "a")
	t.unmount(a, t.mountID(3))
}

func volumeErrors(t *T) {
	name := t.name("absent")
	t.track(name)
	for _, method := range []string{"Get", "Mount"} {
		t.failed(method+" of a volume that does not exist", "VolumeDriver."+method, fmt.Sprintf(`{"Name":%q,"ID":%q}`, name, t.mountID(1)))
	}
}

func podman(t *T) {
	limit := callTime // Podman's own is 5 seconds, which users change
	c, err := client.New(t.p.endpoint, client.Options{Engine: client.Podman, Observe: t.observe, Timeout: limit})
	t.must("connect", err)
	defer func() { _ = c.Close() }() // returns nil
	v, name := c.Volume(), t.name("a")
	t.activates() // each podman is a process of its own
	if _, err := v.Get(t.ctx, name); err == nil {
		t.Errorf("Get of a volume that does not exist has status %d and a volume for Podman, which does not create it then", http.StatusOK)
	}
	t.track(name)
	t.must("Create", v.Create(t.ctx, name, t.options(name)))
	all, err := v.List(t.ctx)
	t.must("List", err)
	if !slices.ContainsFunc(all, func(i volume.Info) bool { return i.Name == name }) {
		t.Errorf("List does not have volume %q", name)
	}
	path, err := t.tryMount(v, name, client.PodmanMountID)
	t.must("Mount", err)
	if !t.p.away {
		t.write(path, "x")
	}
	t.mount(name, t.mountID(1)) // dockerd, beside it
	t.unmount(name, t.mountID(1))
	if !t.p.away {
		t.read(path, "x")
	}
	t.must("Unmount", t.tryUnmount(v, name, client.PodmanMountID))
	t.must("Remove", v.Remove(t.ctx, name))
	t.gone("a volume that Podman removed", name)
}
