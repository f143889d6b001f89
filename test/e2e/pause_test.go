package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// pauseConfig has two pools, so that no storage makes two snapshots at once by itself.
const pauseConfig = "[pool.one]\ndriver = \"btrfs\"\n[pool.two]\ndriver = \"btrfs\"\n[pool.plain]\n" +
	"[repository.near]\nurl = \"/var/lib/docker/near\"\npassword_file = \"/etc/remora/near.password\"\n"

// startShop runs a container of a project that writes the same numbers to two volumes, first to one
// and then to the other. What is paused when the test ends runs on, as it could not be killed.
func startShop(t *testing.T, h *lab.Host) {
	t.Helper()
	t.Cleanup(func() {
		if paused, _ := h.Docker("ps", "-q", "--filter", "status=paused"); paused != "" {
			h.MustDocker(append([]string{"unpause"}, strings.Fields(paused)...)...)
		}
	})
	const project = "com.docker.compose.project=shop"
	h.MustDocker("volume", "create", "-d", "one", "--label", project, "first")
	h.MustDocker("volume", "create", "-d", "two", "--label", project, "second")
	h.MustDocker("run", "-d", "--name", "shop-app-1", "--label", project, "--network=none", "-v", "first:/first", "-v", "second:/second", "bb:1",
		"sh", "-c", "n=0; while :; do n=$((n+1)); echo $n >> /first/log; echo $n >> /second/log; done")
	h.MustDocker("run", "-d", "--name", "bystander", "--network=none", "bb:1", "sleep", "1000")
}

// apart is how many numbers the snapshots of two volumes are apart. The first may be ahead by one.
func apart(t *testing.T, h *lab.Host, snapshot string) int {
	t.Helper()
	last := func(pool, volume string) int {
		clone := volume + "-" + snapshot
		h.MustDocker("volume", "create", "-d", pool, "-o", "from="+volume+"@"+snapshot, clone)
		lines := strings.Fields(reads(h, clone, "log"))
		n, err := strconv.Atoi(lines[len(lines)-1])
		noErr(t, err)
		return n
	}
	return last("one", "first") - last("two", "second")
}

func containerState(h *lab.Host, name string) string {
	return strings.TrimSpace(h.MustDocker("inspect", "-f", "{{.State.Status}}", name))
}

// TestProjectPaused: the volumes of a project that is paused are kept as they are at one moment, and
// it runs on afterwards, whatever went wrong.
func TestProjectPaused(t *testing.T) {
	l := newLab(t, append(slices.Clone(engine), testenv.Btrfs)...)
	h := l.Host(t, "h1")
	h.Write("/etc/remora/near.password", "correct horse battery staple\n")
	h.Must("chmod", "0600", "/etc/remora/near.password")
	h.Remora(pauseConfig)
	h.Dockerd()
	h.MustCli("backup", "init", "near")
	startShop(t, h)
	time.Sleep(300 * time.Millisecond) // numbers come by the thousand
	without := 0
	for i := range 3 {
		plain, still := fmt.Sprintf("plain%d", i), fmt.Sprintf("still%d", i)
		h.MustCli("snapshot", "create", "--project", "shop", plain)
		if d := apart(t, h, plain); d < 0 || d > 1 {
			without++
		}
		h.MustCli("snapshot", "create", "--project", "shop", "--pause", still)
		if d := apart(t, h, still); d < 0 || d > 1 {
			t.Errorf("paused, they are %d apart", d)
		}
	}
	t.Logf("of 3 without a pause %d were apart", without)
	is(t, "the container", containerState(h, "shop-app-1"), "running")
	out := h.Must("sh", "-c", l.Remora+" snapshot create --project shop --pause more 2>&1")
	want(t, out, `project "shop": 2 snapshots, all within `, `project "shop": paused for `, ": shop-app-1\n")
	if strings.Contains(out, "bystander") {
		t.Errorf("a stranger was paused: %s", out)
	}
	is(t, "backups", len(strings.Fields(h.MustCli("backup", "create", "--project", "shop", "--pause"))), 2)
	is(t, "the container", containerState(h, "shop-app-1"), "running")

	// One that a person has paused stays so. What has no snapshots is said, and nothing hangs.
	h.MustDocker("pause", "bystander")
	h.MustDocker("volume", "create", "-d", "plain", "--label", "com.docker.compose.project=shop", "cache")
	want(t, h.Fails(l.Remora, "snapshot", "create", "--project", "shop", "--pause", "some"), "2 snapshots", `volume "cache": the driver cannot make snapshots`, "exit status 3")
	h.MustDocker("pause", "shop-app-1")
	h.MustCli("backup", "create", "--project", "shop", "--pause")
	is(t, "the container", containerState(h, "shop-app-1"), "paused")
	is(t, "the bystander", containerState(h, "bystander"), "paused")
	want(t, h.Fails(l.Remora, "snapshot", "create", "--pause", "first"), "--pause is for --project")
}

// TestKilledWhilePaused: a daemon that is killed while it has containers paused has them run on when
// it is there again.
func TestKilledWhilePaused(t *testing.T) {
	l := newLab(t, append(slices.Clone(engine), testenv.Btrfs)...)
	h := l.Host(t, "h1")
	h.Write("/etc/remora/near.password", "correct horse battery staple\n")
	h.Must("chmod", "0600", "/etc/remora/near.password")
	config := pauseConfig
	remora := &plugin{run: func() *lab.Process {
		p := h.Remora(config)
		config = "" // it is there now
		return p
	}}
	remora.start()
	h.Dockerd()
	startShop(t, h)
	rounds, chance := testenv.Rounds(10), rand.New(rand.NewPCG(testenv.Seed(t), 0)) //nolint:gosec // a test's dice
	// A pause has a book from before its first container to after its last.
	books := func() bool {
		all, err := os.ReadDir(h.Path("/var/lib/remora/paused"))
		return err == nil && len(all) > 0
	}
	until := func(there bool) {
		for end := time.Now().Add(20 * time.Second); books() != there && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
	}
	took := make(chan time.Duration, 1)
	go func() {
		until(true)
		began := time.Now()
		until(false)
		took <- time.Since(began)
	}()
	h.MustCli("snapshot", "create", "--project", "shop", "--pause", "whole")
	span := <-took // on this machine
	paused, i := 0, 0
	for ; i < rounds || paused == 0 && i < 5*rounds; i++ {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = h.Cli("snapshot", "create", "--project", "shop", "--pause", fmt.Sprintf("s%d", i)) // it is cut off
		}()
		wait := 300 * time.Millisecond
		if i%2 == 0 { // while it has a book
			until(true)
			wait = span
		}
		time.Sleep(time.Duration(chance.Int64N(int64(wait))))
		remora.kill()
		<-done
		if containerState(h, "shop-app-1") == "paused" {
			paused++
		}
		remora.start()
		eventually(t, 20*time.Second, func() bool { return containerState(h, "shop-app-1") == "running" })
	}
	if paused == 0 {
		t.Error("no kill came while it was paused, and the test shows nothing")
	}
	t.Logf("killed %d times, %d of them while it was paused, which takes %s", i, paused, span)
	eventually(t, time.Minute, func() bool { return h.Must("sh", "-c", "ls /var/lib/remora/paused") == "" })
	is(t, "the container", containerState(h, "shop-app-1"), "running")
}
