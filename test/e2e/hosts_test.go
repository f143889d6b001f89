package e2e

import (
	"fmt"
	"testing"
)

// TestDataOutlivesItsHost puts a pool on storage that two hosts share, destroys the first
// with its containers running, and finds everything on the second under the same names.
func TestDataOutlivesItsHost(t *testing.T) {
	t.Parallel()
	l := newLab(t, engine...)
	shared := t.TempDir()
	config := fmt.Sprintf("version = 1\n[pool.remora]\ndriver = \"dir\"\npath = %q\n", shared)

	first := l.Host(t, "h1")
	first.Remora(config)
	first.Dockerd()
	for _, v := range []string{"dbdata", "wpdata"} {
		first.MustDocker("volume", "create", "--driver", "remora", "--name", v)
	}
	first.MustDocker("run", "-d", "--name", "db", "--network=none", "-v", "dbdata:/data", "bb:1", "sh", "-c", "echo rows > /data/t; sync; exec sleep 1000")
	first.MustDocker("run", "-d", "--name", "wp", "--network=none", "-v", "wpdata:/data", "bb:1", "sh", "-c", "echo header > /data/img; sync; exec sleep 1000")
	eventually(t, 10e9, func() bool {
		out, err := first.Docker("exec", "wp", "cat", "/data/img")
		return err == nil && out == "header"
	})
	first.Destroy()

	second := l.Host(t, "h2")
	second.Remora(config)
	second.Dockerd()
	// The names are the identity: create finds what is there.
	for _, v := range []string{"dbdata", "wpdata"} {
		is(t, "create", second.MustDocker("volume", "create", "--driver", "remora", "--name", v), v)
	}
	is(t, "mounts", mounts(t, second, "dbdata"), 0)
	out, err := second.Container("dbdata", "", "cat /data/t; echo more >> /data/t")
	noErr(t, err)
	is(t, "data of the first host", out, "rows")
	out, err = second.Container("wpdata", "", "cat /data/img")
	noErr(t, err)
	is(t, "data of the first host", out, "header")
	second.MustDocker("volume", "rm", "dbdata", "wpdata")
	is(t, "volumes", second.MustCli("volume", "ls", "-q"), "")
}

// TestTwoHostsAtOnce lets two hosts use one pool: what one makes and removes, the other
// finds and loses.
func TestTwoHostsAtOnce(t *testing.T) {
	l := newLab(t, engine...)
	config := fmt.Sprintf("version = 1\n[pool.remora]\ndriver = \"dir\"\npath = %q\n", t.TempDir())
	a, b := l.Host(t, "h1"), l.Host(t, "h2")
	a.Remora(config)
	b.Remora(config)
	a.Dockerd()
	b.Dockerd()
	a.MustDocker("volume", "create", "-d", "remora", "both")
	_, err := a.Container("both", "", "echo 1 > /data/a")
	noErr(t, err)
	// A name that the second host has never heard of is looked for in the storage.
	want(t, b.MustDocker("volume", "inspect", "both"), "remora")
	out, err := b.Container("both", "", "cat /data/a")
	noErr(t, err)
	is(t, "data", out, "1")
	b.MustDocker("volume", "rm", "both")
	want(t, a.Fails("docker", "run", "--rm", "--network=none", "-v", "both:/data", "bb:1", "true"), "both")
}
