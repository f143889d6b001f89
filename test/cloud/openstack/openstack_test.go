package openstack

import (
	"os"
	"testing"
	"os/exec"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestSmoke(t *testing.T) {
	c := Shared(t)
	t.Log(c.AuthURL)
	b, _ := exec.Command("sh", "-c", "ps -eo rss,pid,etimes,time,args | grep -E 'cinder|keystone|beam|epmd|ceph-' | grep -v grep | cut -c1-120; for p in $(pgrep -f 'cinder|keystone|beam|epmd|ceph-'); do cat /proc/$p/smaps_rollup 2>/dev/null | grep ^Pss: ; done | awk '{s+=$2} END {print s/1024}'; du -sm "+c.Dir+"; ls "+c.Dir).CombinedOutput()
	t.Log(string(b))
}
