package ceph

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/test/cloud/process"
)

// entity is somebody who has a key, with what it may do.
type entity struct {
	name string
	caps []string // "mon", "allow *", ...
}

// leastCaps are what a driver of volumes needs in its pool. Profile rbd of the monitor lets it
// put another client on the blocklist too, as a lock that is broken wants.
func leastCaps(pool string) []string {
	return []string{"mon", "profile rbd", "osd", "profile rbd pool=" + pool, "mgr", "profile rbd pool=" + pool}
}

func entities() []entity {
	return []entity{
		{"mon.", []string{"mon", "allow *"}},
		{"client.admin", []string{"mon", "allow *", "osd", "allow *", "mgr", "allow *"}},
		{"mgr.x", []string{"mon", "allow profile mgr", "osd", "allow *"}},
		{"osd.0", []string{"mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *"}},
		{"client." + User, leastCaps(Pool)},
	}
}

// config is what all programs of the cluster read. What may lie outside of dir by default is
// named here, each.
func (c *Cluster) config() string {
	lines := []string{
		"[global]",
		"fsid = " + c.FSID,
		"mon host = " + c.Monitors,
		"public addr = " + c.address.IP,
		"cluster addr = " + c.address.IP,
		"keyring = $dir/$name.keyring",
		"run dir = $dir/run",
		"admin socket = $dir/run/$name.$pid.$cctid.asok",
		"log file = $dir/$name.log",
		"mon cluster log file = $dir/cluster.log",
		"crash dir = $dir/crash",
		"mon data = $dir/mon",
		"mgr data = $dir/mgr",
		"osd data = $dir/osd",
		"err to stderr = true",
		"auth cluster required = cephx",
		"auth service required = cephx",
		"auth client required = cephx",
		// One copy of the data, and a monitor that does not mind.
		"osd pool default size = 1",
		"osd pool default min size = 1",
		"osd pool default pg autoscale mode = off",
		"osd crush chooseleaf type = 0",
		"mon allow pool size one = true",
		"mon allow pool delete = true",
		"mon warn on pool no redundancy = false",
		// The disk of a machine that tests is often nearly full.
		"mon data avail warn = 1",
		"mon data avail crit = 0",
		"osd objectstore = " + c.store,
		"memstore device bytes = 8589934592",
		"bluestore block size = 8589934592",
		"bluestore cache autotune = false",
		"bluestore cache size = 33554432",
		// A decision of the monitor takes a second, unless told not to wait for others.
		"paxos propose interval = 0.05",
		"paxos min wait = 0.02",
		// What the tests do not use of the manager: half of its memory.
		"mgr disabled modules = balancer,crash,devicehealth,orchestrator,pg_autoscaler,progress,status,telemetry,volumes,restful,iostat",
	}
	return strings.ReplaceAll(strings.Join(lines, "\n"), "$dir", c.Dir) + "\n"
}

// prepare writes all that the daemons find before they start: keys, the map of the monitor,
// and its store, in which the keys of all are already.
func (c *Cluster) prepare(ctx context.Context) error {
	for _, dir := range []string{"mon", "mgr", "osd", "run", "crash"} {
		if err := os.Mkdir(c.path(dir), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(c.Config, []byte(c.config()), 0o600); err != nil {
		return err
	}
	var all strings.Builder
	for _, e := range entities() {
		key, err := process.Run(ctx, nil, "ceph-authtool", "--gen-print-key")
		if err != nil {
			return err
		}
		var text strings.Builder
		fmt.Fprintf(&text, "[%s]\n\tkey = %s\n", e.name, strings.TrimSpace(key))
		for i := 0; i < len(e.caps); i += 2 {
			fmt.Fprintf(&text, "\tcaps %s = %q\n", e.caps[i], e.caps[i+1])
		}
		name := e.name
		if name == "mon." {
			name = "mon.a"
		}
		if err := os.WriteFile(c.path(name+".keyring"), []byte(text.String()), 0o600); err != nil {
			return err
		}
		all.WriteString(text.String())
	}
	if err := os.WriteFile(c.path("all.keyring"), []byte(all.String()), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"monmaptool", "--create", "--addv", "a", c.Monitors, "--fsid", c.FSID, c.path("monmap")},
		{"ceph-mon", "--conf", c.Config, "--mkfs", "-i", "a", "--monmap", c.path("monmap"), "--keyring", c.path("all.keyring")},
	} {
		if _, err := process.Run(ctx, nil, args[0], args[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.Dir, name) }
