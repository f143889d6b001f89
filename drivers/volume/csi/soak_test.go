package csi

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
)

// victims are what is killed. A reboot is the bridge and the driver, with all their mounts and what is in /run.
var victims = []string{"bridge", "bridge", "driver", "both", "reboot"}

// kills is how often it is done: a thousand times in a soak, all tests together.
func kills(usual, soak int) int {
	switch {
	case testenv.Soak():
		return soak
	case testing.Short():
		return usual / 4
	}
	return usual
}

// TestSoakKills kills the daemon, the CSI driver, both, or the host, between any two calls of the CSI driver, while three volumes are
// used. What was written is there, nothing is done that the specification forbids, and in the end nothing is left.
func TestSoakKills(t *testing.T) {
	soak(t, csitest.All(), victims, kills(40, 500))
}

// TestSoakProcessKills is the same with a CSI driver in a process of its own, at any moment.
func TestSoakProcessKills(t *testing.T) {
	o := csitest.All()
	o.Process = true
	soak(t, o, victims, kills(20, 250))
}

// TestSoakFUSEKills is the same with volumes that a process serves, which is killed too.
func TestSoakFUSEKills(t *testing.T) {
	testenv.Require(t, testenv.Sshfs)
	o := csitest.All()
	o.FUSE = true
	soak(t, o, append([]string{"fuse", "fuse", "fuse"}, victims...), kills(20, 250))
}

func soak(t *testing.T, o csitest.Options, victims []string, kills int) {
	t.Helper()
	h := newHost(t, o)
	k := &killer{
		t: t, h: h, chance: rand.New(rand.NewPCG(testenv.Seed(t), 0)), last: map[string]int{}, maybe: map[string]map[int]bool{}, //nolint:gosec // chance of a test
		did: map[string]int{}, killed: map[string]int{},
	}
	if !o.Process {
		h.mock.OnCall(k.call)
	}
	for i := range kills {
		k.round(i, victims[k.chance.IntN(len(victims))])
		if t.Failed() {
			t.Fatalf("at kill %d, of %s", i, k.victim)
		}
	}
	k.finish()
	t.Logf("%d kills %v: %v, %d calls of the CSI driver, %d FUSE daemons killed", kills, k.killed, k.did, len(h.mock.Log()), k.fuses.Load())
	if k.did["wrote"] < kills/4 {
		t.Errorf("%d writes: something is stuck", k.did["wrote"])
	}
}

// killer kills, and knows what has to be there.
type killer struct {
	t      *testing.T
	h      *host
	chance *rand.Rand
	victim string
	last   map[string]int          // the number that was last written, by volume
	maybe  map[string]map[int]bool // what it may have instead: it was about to be removed, or rolled back

	left   atomic.Int64 // calls until the kill
	mu     sync.Mutex
	kill   func()
	killed map[string]int

	fuses atomic.Int64
	did   map[string]int // how often a worker said so
}

// call is made by the driver before and after each call has its effect.
func (k *killer) call(string, csitest.When) {
	if k.left.Add(-1) == 0 {
		k.fire()
	}
}

func (k *killer) fire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kill != nil {
		k.kill()
		k.kill = nil
	}
}

// round lets a bridge live until something is killed.
func (k *killer) round(i int, victim string) {
	t := k.t
	k.victim = victim
	k.killed[victim]++
	cmd, lines := k.start(false)
	end := func() { _ = cmd.Process.Signal(syscall.SIGKILL) }
	later := time.Duration(100+k.chance.IntN(400)) * time.Millisecond // the bridge lives on, for a while
	which := k.chance.IntN(10)
	var done sync.WaitGroup
	k.mu.Lock()
	k.kill = func() {
		switch victim {
		case "bridge":
			end()
			return
		case "driver":
			done.Go(k.h.mock.Restart) // not in a call of its own
		case "fuse":
			done.Go(func() { k.killFUSE(which) })
		default:
			end()
			done.Go(k.h.mock.Kill)
			return
		}
		time.AfterFunc(later, end)
	}
	k.mu.Unlock()
	if k.h.mock.Options.Process {
		moment := time.AfterFunc(time.Duration(100+k.chance.IntN(1500))*time.Millisecond, k.fire)
		defer moment.Stop()
	}
	k.left.Store(int64(1 + k.chance.IntN(150)))
	stuck := time.AfterFunc(2*time.Minute, func() {
		t.Errorf("kill %d: the bridge makes no calls", i)
		end()
	})
	k.read(lines)
	_ = cmd.Wait()
	stuck.Stop()
	k.mu.Lock()
	k.kill = nil
	k.mu.Unlock()
	done.Wait()
	switch victim {
	case "both":
		k.h.mock.Restart()
	case "reboot":
		k.reboot()
	}
	for _, v := range k.h.mock.Violations() {
		t.Errorf("kill %d: %s", i, v)
	}
}

// killFUSE kills the process of a volume that has one.
func (k *killer) killFUSE(which int) {
	all := k.h.mock.Volumes()
	for i := range all {
		if k.h.mock.KillFUSE(all[(which+i)%len(all)].ID) {
			k.fuses.Add(1)
			return
		}
	}
}

func (k *killer) start(finish bool) (*exec.Cmd, *bufio.Scanner) {
	k.t.Helper()
	text, err := json.Marshal(user{Dir: k.h.dir, Endpoint: k.h.mock.Endpoint, Finish: finish})
	if err != nil {
		k.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), soakEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// read compares what a bridge says with what it must find.
func (k *killer) read(lines *bufio.Scanner) {
	for lines.Scan() {
		var word, name string
		var n int
		_, _ = fmt.Sscan(lines.Text(), &word, &name, &n)
		k.did[word]++
		switch word {
		case "error:", "damaged":
			k.t.Error(lines.Text())
		case "found":
			// A write that a kill cut off may have come to the disk without a word.
			if n != k.last[name] && n != k.last[name]+1 && !k.maybe[name][n] {
				k.t.Errorf("%s has %d in it, and had %d", name, n, k.last[name])
			}
			k.last[name], k.maybe[name] = n, nil
		case "wrote":
			k.last[name] = n
		case "removing":
			k.maybe[name] = map[int]bool{0: true}
		case "rolling":
			k.maybe[name] = map[int]bool{n: true}
		case "rolled":
			k.last[name], k.maybe[name] = n, nil
		case "removed":
			k.last[name], k.maybe[name] = 0, nil
		}
	}
}

// reboot takes away what a reboot takes away.
func (k *killer) reboot() {
	k.t.Helper()
	list, err := mount.List(k.h.dir)
	for _, m := range slices.Backward(list) {
		err = errors.Join(err, unix.Unmount(m.Mountpoint, 0))
	}
	k.h.mock.Reboot()
	if err := errors.Join(err, os.RemoveAll(filepath.Join(k.h.dir, "run"))); err != nil {
		k.t.Fatal(err)
	}
}

// finish has a bridge that is not killed remove everything.
func (k *killer) finish() {
	k.t.Helper()
	cmd, lines := k.start(true)
	k.read(lines)
	if err := cmd.Wait(); err != nil {
		k.t.Error(err)
	}
	if !k.h.mock.Options.Process {
		k.h.mock.OnCall(nil)
	}
	d := k.h.open(k.t)
	k.h.nothingLeft(k.t)
	if err := d.Close(); err != nil {
		k.t.Error(err)
	}
}
