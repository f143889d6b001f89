package ebs

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/test/cloud/ec2"
)

// life is what a volume may come to, with what each step asks of EC2 at the most, as the server
// counts it. A disk that is made is asked for until it is there, once more on a slow machine.
func life(t *testing.T, c *cloud, drv volume.Driver, step func(what string, most map[string]int, do func() error)) {
	t.Helper()
	ctx, at := t.Context(), t.TempDir()
	unmount := func() error {
		if err := drv.Unmount(ctx, "data", at); err != nil {
			return err
		}
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if !slices.ContainsFunc(drv.(volume.Worker).Jobs(), func(j volume.Job) bool { return !j.Ended }) && c.Counts()["DetachVolume"].Calls > 0 {
				break
			}
		}
		return nil
	}
	mount := func() error { _, err := drv.Mount(ctx, "data", at); return err }
	step("create", map[string]int{"CreateVolume": 1, "DescribeVolumes": 3}, func() error { return drv.Create(ctx, "data", nil) })
	step("create again", map[string]int{"DescribeVolumes": 1}, func() error { return drv.Create(ctx, "data", nil) })
	step("first mount", map[string]int{"DescribeVolumes": 1, "AttachVolume": 1, "CreateTags": 2}, mount)
	step("unmount", map[string]int{"DetachVolume": 1}, unmount)
	step("mount", map[string]int{"DescribeVolumes": 1, "AttachVolume": 1}, mount)
	step("list and inspect", map[string]int{}, func() error {
		for _, err := range drv.Volumes(ctx) {
			if err != nil {
				return err
			}
		}
		_, err := drv.(volume.Inspector).Inspect(ctx, "data")
		return err
	})
	step("unmount again", map[string]int{"DetachVolume": 1}, unmount)
	step("remove", map[string]int{"DeleteVolume": 1, "DescribeSnapshots": 1}, func() error { return drv.Remove(ctx, "data") })
}

// TestCalls counts, at the server, what each verb asks.
func TestCalls(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	c := newCloud(t, still())
	d := c.daemon(t, ec2.InstanceSpec{Role: "storage"})
	d.poll = 0 // as it is
	drv := d.driver(t)
	if err := drv.(volume.Pinger).Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	life(t, c, drv, func(what string, most map[string]int, do func() error) {
		c.ResetCounts()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := map[string]int{}
		for action, n := range c.Counts() {
			got[action] = n.Calls
			if n.Calls > most[action] {
				t.Errorf("%s: %s was asked %d times, want at most %d", what, action, n.Calls, most[action])
			}
		}
		t.Logf("%-17s %v", what, got)
	})
}

// TestPolicy: the policy of the README allows what the driver asks for, and nothing that it does not.
func TestPolicy(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	c := newCloud(t, still())
	d := c.daemon(t, ec2.InstanceSpec{})
	drv := d.driver(t)
	life(t, c, drv, func(what string, _ map[string]int, do func() error) {
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	})
	p := c.open(t, d.conf, d.metadata)
	disk := c.make(t, p, spec("other"))
	if _, err := p.Gone(t.Context(), c.self(t, p).ID); err != nil {
		t.Error(err)
	}
	s, err := p.CreateSnapshot(t.Context(), disk, snapshotTags("u1"))
	if err == nil {
		err = p.Resize(t.Context(), disk, 2*gib)
	}
	if err == nil {
		_, err = p.lastChange(t.Context(), disk)
	}
	if err == nil {
		other := c.pool()
		other.Region = west
		_, err = c.open(t, other, "").CopySnapshot(t.Context(), s, p.t, snapshotTags("u2"))
	}
	if err == nil {
		err = p.DeleteSnapshot(t.Context(), s)
	}
	if err == nil {
		err = p.SetTags(t.Context(), disk, map[string]string{"none": ""})
	}
	if err != nil {
		t.Error(err)
	}
	asked := slices.Sorted(maps.Keys(c.Counts()))
	if diff := cmp.Diff(asked, policy(t)); diff != "" {
		t.Errorf("what was asked for, and what the policy allows: %s", diff)
	}
}

// policy returns the actions of EC2 that the README's policy allows.
func policy(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```json\n")
	text, _, _ = strings.Cut(text, "```")
	var doc struct{ Statement []struct{ Action []string } }
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for _, s := range doc.Statement {
		for _, a := range s.Action {
			if action, ok := strings.CutPrefix(a, "ec2:"); ok {
				allowed[action] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(allowed))
}

// TestStoppedHolder: with preempt = "dead" the disk of an instance that was stopped is taken from it,
// and that of one that fails its checks is not.
func TestStoppedHolder(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	c := newCloud(t, still())
	i, metadata := c.instance(t, ec2.InstanceSpec{})
	lost := c.open(t, c.pool(), metadata)
	made := spec("data")
	made.Tags["fs"] = "ext4"
	disk := c.make(t, lost, made)
	if err := lost.Attach(t.Context(), disk, c.self(t, lost)); err != nil {
		t.Fatal(err)
	}
	i.Impair(true)
	d := c.daemon(t, ec2.InstanceSpec{})
	d.conf.Preempt, d.conf.Wait = "dead", 0
	drv, at := d.driver(t), t.TempDir()
	_, err := drv.Mount(t.Context(), "data", at)
	if err == nil || !strings.Contains(err.Error(), i.ID) {
		t.Fatalf("taken from an instance that runs: %v", err)
	}
	if _, err := c.sdk().StopInstances(t.Context(), stop(i.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := drv.Mount(t.Context(), "data", at); err != nil {
		t.Fatal(err)
	}
	if err := drv.Unmount(context.WithoutCancel(t.Context()), "data", at); err != nil {
		t.Error(err)
	}
}
