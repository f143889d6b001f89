package check

func removeCases() []Case {
	return ofKind(Volume, []Case{
		{
			ID: "volume/remove-never-mounted", run: removeNeverMounted,
			Asserts: "A volume that was never mounted can be removed.",
			Source:  docVolume + ", /VolumeDriver.Remove; juicedata/docker-volume-juicefs pull request 63",
		},
		{
			ID: "volume/remove-mounted", run: removeMounted,
			Asserts: "A volume that a container has mounted is not removed, and its data stays: the caller may be another engine, which cannot know.",
			Source:  docVolume + ", /VolumeDriver.Remove; " + podmanVol + ", RemoveVolume (podman and dockerd know nothing of each other's mounts)",
		},
		{
			ID: "volume/remove-twice", run: removeTwice,
			Asserts: "Remove of what is gone succeeds or says that there is no such volume: an engine repeats a call whose answer was lost.",
			Source:  mobyClient + ", callWithRetry",
		},
		{
			ID: "volume/remove-destroys-data", run: removeDestroysData,
			Asserts: "A volume that is created anew after it was removed is empty.",
			Source:  docVolume + ", /VolumeDriver.Remove (delete the specified volume from disk)",
		},
		{
			ID: "volume/remove-one", run: removeOne,
			Asserts: "Remove removes that volume and no other.",
			Source:  docVolume + ", /VolumeDriver.Remove",
		},
	})
}

func removeNeverMounted(t *T) {
	name := t.create("a")
	t.remove(name)
	t.gone("a volume that was removed", name)
	t.listed(name, 0)
}

func removeMounted(t *T) {
	name := t.create("a")
	path := t.mount(name, t.mountID(1))
	if !t.p.away {
		t.write(path, "x")
	}
	for range 2 {
		if err := t.c.Volume().Remove(t.ctx, name); err == nil {
			t.Fatalf("Remove of a volume that is mounted succeeds")
		} else if unanswered(err) {
			t.Fatalf("Remove of a volume that is mounted: %w", err)
		}
	}
	if !t.p.away {
		t.read(path, "x")
	}
	t.get(name)
	t.unmount(name, t.mountID(1))
	t.remove(name)
	t.gone("a volume that was removed", name)
}

func removeTwice(t *T) {
	name := t.create("a")
	t.remove(name)
	for range 2 {
		if err := t.c.Volume().Remove(t.ctx, name); err != nil && !saysGone(err) {
			t.Errorf("Remove of what was removed: %w", err)
		}
	}
	t.gone("a volume that was removed", name)
}

func removeDestroysData(t *T) {
	t.here()
	name := t.create("a")
	t.write(t.mount(name, t.mountID(1)), "x")
	t.unmount(name, t.mountID(1))
	t.remove(name)
	t.must("Create", t.tryCreate(name))
	path := t.mount(name, t.mountID(2))
	t.directory(path)
	t.absent(path, "a volume was removed and made anew, with the data of before")
	t.unmount(name, t.mountID(2))
}

func removeOne(t *T) {
	a, b, c := t.create("a"), t.create("a-b"), t.create("b")
	t.remove(a)
	t.gone("a volume that was removed", a)
	for _, name := range []string{b, c} {
		t.get(name)
		t.listed(name, 1)
	}
}
