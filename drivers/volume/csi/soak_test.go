package csi

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// soakEnv has what a process is told that is the daemon of a host.
const soakEnv = "REMORA_CSI_SOAK"

// user is a daemon with a pool and what uses it, in a process of its own that is killed.
type user struct {
	Dir, Endpoint string
	Finish        bool // it removes all there is, and ends
}

// soakNames are the volumes that it uses, each by a worker of its own.
var soakNames = []string{"a", "b", "c"}

func (u user) target(name string) string { return filepath.Join(u.Dir, "mnt", name) }

// live makes, mounts, writes, unmounts and now and then removes volumes for ever. Each line that it says is true when it is
// said.
func (u user) live() error {
	c := config{Endpoint: u.Endpoint, Namespace: "test", Size: 64 << 20, Reclaim: "delete", Detach: 5 * time.Millisecond, Wait: 2 * time.Second}
	s, err := c.check()
	if err != nil {
		return err
	}
	ctx := context.Background()
	d, err := start(ctx, c, s, catalog.Env{PoolName: "pool", StateDir: u.Dir + "/state", RunDir: u.Dir + "/run"})
	if err != nil {
		return err
	}
	d.pace = pace{first: 2 * time.Millisecond, last: 50 * time.Millisecond, unsure: 3, away: 20 * time.Second}
	fmt.Println("opened")
	errs := make(chan error, len(soakNames))
	for _, name := range soakNames {
		go func() { errs <- u.work(ctx, d, name) }()
	}
	for range soakNames {
		if err := <-errs; err != nil {
			return err
		}
	}
	return d.Close()
}

// work uses one volume.
func (u user) work(ctx context.Context, d *driver, name string) error {
	if err := os.MkdirAll(u.target(name), 0o700); err != nil {
		return err
	}
	// What the one before left mounted is taken back, as the Handler does.
	clone := name + "-clone"
	if err := errors.Join(d.Unmount(ctx, name, u.target(name)), d.Unmount(ctx, clone, u.target(clone))); err != nil {
		return fmt.Errorf("unmount %s at the start: %w", name, err)
	}
	if err := d.Remove(ctx, clone); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("remove %s at the start: %w", clone, err)
	}
	if u.Finish {
		if err := d.Remove(ctx, name); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return fmt.Errorf("remove %s at the end: %w", name, err)
		}
		return nil
	}
	for round := 0; ; round++ {
		if err := u.use(ctx, d, name); err != nil {
			return err
		}
		if round%3 == 1 {
			time.Sleep(20 * time.Millisecond) // it is detached meanwhile
		}
	}
}

// use mounts a volume, adds one to the number in it, and says which it is. Then it may do one thing more.
func (u user) use(ctx context.Context, d *driver, name string) error {
	if err := d.Create(ctx, name, map[string]string{}); err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	n, err := u.with(ctx, d, name, func(at string) (int, error) { return count(at, name) })
	if err != nil || n == 0 {
		return err
	}
	return u.more(ctx, d, name, n)
}

// with does something with a volume that is mounted meanwhile.
func (u user) with(ctx context.Context, d *driver, name string, f func(at string) (int, error)) (n int, err error) {
	at := u.target(name)
	if err := os.MkdirAll(at, 0o700); err != nil {
		return 0, err
	}
	if _, err := d.Mount(ctx, name, at); err != nil {
		return 0, fmt.Errorf("mount %s: %w", name, err)
	}
	if is, err := mount.At(at); err != nil && !dead(err) || err == nil && !is {
		return 0, fmt.Errorf("mount %s: mounted %t: %w", name, is, err)
	}
	if n, err = f(at); dead(err) {
		fmt.Println("died " + name)
		n, err = 0, nil
	}
	if uerr := d.Unmount(ctx, name, at); uerr != nil {
		return 0, fmt.Errorf("unmount %s: %w", name, uerr)
	}
	return n, err
}

// more makes a snapshot, a clone, a volume larger, or what it was, or removes it.
func (u user) more(ctx context.Context, d *driver, name string, n int) error {
	list, err := d.Snapshots(ctx, name)
	if err != nil {
		return fmt.Errorf("snapshots of %s: %w", name, err)
	}
	last := ""
	if len(list) > 0 {
		last = list[len(list)-1].Name
	}
	snapped, _ := strconv.Atoi(last)
	switch rand.IntN(10) {
	case 0:
		fmt.Println("removing " + name)
		if err := d.Remove(ctx, name); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		fmt.Println("removed " + name)
	case 1, 2:
		if err := d.CreateSnapshot(ctx, name, strconv.Itoa(n), nil); err != nil && !errors.Is(err, errdefs.ErrExists) {
			return fmt.Errorf("snapshot of %s: %w", name, err)
		}
		fmt.Printf("snapped %s %d\n", name, n)
	case 3:
		if last == "" {
			return nil
		}
		fmt.Printf("rolling %s %d\n", name, snapped)
		if err := d.Rollback(ctx, name, last); err != nil {
			return fmt.Errorf("rollback of %s: %w", name, err)
		}
		fmt.Printf("rolled %s %d\n", name, snapped)
	case 4:
		if last == "" {
			snapped = n
		}
		return u.copied(ctx, d, name, last, snapped)
	case 5:
		if last == "" {
			return nil
		}
		if err := d.RemoveSnapshot(ctx, name, last); err != nil {
			return fmt.Errorf("remove snapshot %s of %s: %w", last, name, err)
		}
		fmt.Println("unsnapped " + name)
	case 6:
		v, _ := d.store.find(name)
		if r, _ := d.store.see(v); r.Capacity < 1<<30 {
			if err := d.Resize(ctx, name, r.Capacity+1<<20); err != nil {
				return fmt.Errorf("resize %s: %w", name, err)
			}
			fmt.Println("resized " + name)
		}
	}
	return nil
}

// copied makes a clone, which has to have what was in it, and removes it.
func (u user) copied(ctx context.Context, d *driver, name, snapshot string, want int) error {
	clone := name + "-clone"
	if err := d.Clone(ctx, clone, name, snapshot, nil); err != nil {
		return fmt.Errorf("clone of %s@%s: %w", name, snapshot, err)
	}
	_, err := u.with(ctx, d, clone, func(at string) (int, error) {
		text, err := os.ReadFile(at + "/n")
		if err == nil && string(text) != contents(name, want) {
			fmt.Printf("damaged clone of %s@%s: not %d: %.80q\n", name, snapshot, want, text)
		}
		return 0, err
	})
	if err != nil {
		return err
	}
	if err := d.Remove(ctx, clone); err != nil {
		return fmt.Errorf("remove %s: %w", clone, err)
	}
	fmt.Println("cloned " + name)
	return nil
}

// dead tells that a file system went away while it was used.
func dead(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EIO)
}

// contents is the text of a number: 16 KiB, and their checksum.
func contents(name string, n int) string {
	body := strings.Repeat(name+" "+strconv.Itoa(n)+"\n", 1+16<<10/(len(name)+2+len(strconv.Itoa(n))))
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:]) + " " + strconv.Itoa(n) + "\n" + body
}

// count reads the number in a volume, which has to be whole, and writes the next one, which it returns.
func count(at, name string) (int, error) {
	file := at + "/n"
	text, err := os.ReadFile(file)
	n := 0
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.ReadDir(at); err != nil {
			return 0, err
		}
	case err != nil:
		return 0, err
	default:
		if _, err := fmt.Sscanf(string(text), "%s %d\n", new(string), &n); err != nil || string(text) != contents(name, n) {
			fmt.Printf("damaged %s %d\n", name, n)
			return 0, nil
		}
	}
	fmt.Printf("found %s %d\n", name, n)
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	if _, err = f.WriteString(contents(name, n+1)); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return 0, err
	}
	fmt.Printf("wrote %s %d\n", name, n+1)
	return n + 1, nil
}

// soaked runs the daemon, if this process is one.
func soaked() bool {
	text := os.Getenv(soakEnv)
	if text == "" {
		return false
	}
	var u user
	err := json.Unmarshal([]byte(text), &u)
	if err == nil {
		err = u.live()
	}
	if err != nil {
		fmt.Println("error:", err)
	}
	return true
}

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
	for i := len(list) - 1; i >= 0; i-- {
		err = errors.Join(err, unix.Unmount(list[i].Mountpoint, 0))
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
