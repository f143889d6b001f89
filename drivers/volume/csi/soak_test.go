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
	if err := d.Unmount(ctx, name, u.target(name)); err != nil {
		return fmt.Errorf("unmount %s at the start: %w", name, err)
	}
	if u.Finish {
		if err := d.Remove(ctx, name); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return fmt.Errorf("remove %s at the end: %w", name, err)
		}
		return nil
	}
	for round := 0; ; round++ {
		if err := u.use(ctx, d, name, round%5 == 4); err != nil {
			return err
		}
		if round%3 == 1 {
			time.Sleep(20 * time.Millisecond) // it is detached meanwhile
		}
	}
}

// use mounts a volume, adds one to the number in it, and says which it is.
func (u user) use(ctx context.Context, d *driver, name string, remove bool) error {
	at := u.target(name)
	if err := d.Create(ctx, name, map[string]string{}); err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	if _, err := d.Mount(ctx, name, at); err != nil {
		return fmt.Errorf("mount %s: %w", name, err)
	}
	if is, err := mount.At(at); err != nil || !is {
		return fmt.Errorf("mount %s: mounted %t: %w", name, is, err)
	}
	if err := count(at, name); err != nil {
		if dead(err) {
			fmt.Println("died " + name)
		} else {
			return err
		}
	}
	if err := d.Unmount(ctx, name, at); err != nil {
		return fmt.Errorf("unmount %s: %w", name, err)
	}
	if remove {
		fmt.Println("removing " + name)
		if err := d.Remove(ctx, name); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		fmt.Println("removed " + name)
	}
	return nil
}

// dead tells that a file system went away while it was used.
func dead(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EIO) || errors.Is(err, unix.ENOENT)
}

// contents is the text of a number: 16 KiB, and their checksum.
func contents(name string, n int) string {
	body := strings.Repeat(name+" "+strconv.Itoa(n)+"\n", 1+16<<10/(len(name)+2+len(strconv.Itoa(n))))
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:]) + " " + strconv.Itoa(n) + "\n" + body
}

// count reads the number in a volume, which has to be whole, and writes the next one.
func count(at, name string) error {
	file := at + "/n"
	text, err := os.ReadFile(file)
	n := 0
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.ReadDir(at); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if _, err := fmt.Sscanf(string(text), "%s %d\n", new(string), &n); err != nil || string(text) != contents(name, n) {
			fmt.Printf("damaged %s %d\n", name, n)
			return nil
		}
	}
	fmt.Printf("found %s %d\n", name, n)
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(contents(name, n+1)); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	fmt.Printf("wrote %s %d\n", name, n+1)
	return nil
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

// TestSoakKills kills the bridge, the CSI driver, both, or the host, at each point between two calls: a thousand times in a soak.
// What was written is there, a volume is there once, nothing is done that a CSI driver forbids, and in the end nothing
// is left.
func TestSoakKills(t *testing.T) {
	kills := 60
	switch {
	case testenv.Soak():
		kills = 1000
	case testing.Short():
		kills = 20
	}
	o := csitest.All()
	h := newHost(t, o)
	k := &killer{t: t, h: h, chance: rand.New(rand.NewPCG(testenv.Seed(t), 0)), last: map[string]int{}, maybe: map[string]bool{}} //nolint:gosec // chance of a test
	h.mock.OnCall(k.call)
	for i := range kills {
		k.round(i)
		if t.Failed() {
			t.Fatalf("at kill %d, of %s", i, k.victim)
		}
	}
	k.finish()
	t.Logf("%d kills %v: %d writes, %d removals, %d calls of the driver", kills, k.killed, k.writes, k.removals, len(h.mock.Log()))
	if k.writes < kills/4 {
		t.Errorf("%d writes: something is stuck", k.writes)
	}
}

// killer kills, and knows what has to be there.
type killer struct {
	t      *testing.T
	h      *host
	chance *rand.Rand
	victim string
	last   map[string]int  // the number that was last written, by volume
	maybe  map[string]bool // it was about to be removed

	left   atomic.Int64 // calls until the kill
	mu     sync.Mutex
	kill   func()
	killed map[string]int

	writes, removals int
}

// call is made by the driver before and after each call has its effect.
func (k *killer) call(string, csitest.When) {
	if k.left.Add(-1) == 0 {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.kill != nil {
			k.kill()
		}
	}
}

// round lets a bridge live until something is killed.
func (k *killer) round(i int) {
	t := k.t
	k.victim = victims[k.chance.IntN(len(victims))]
	if k.killed == nil {
		k.killed = map[string]int{}
	}
	k.killed[k.victim]++
	cmd, lines := k.start(false)
	dead := make(chan struct{})
	var once sync.Once
	k.mu.Lock()
	k.kill = func() {
		switch k.victim {
		case "bridge":
			_ = cmd.Process.Signal(syscall.SIGKILL)
		case "driver":
			go k.h.mock.Restart() // not from a call of its own
		default:
			_ = cmd.Process.Signal(syscall.SIGKILL)
			go k.h.mock.Kill()
		}
		once.Do(func() { close(dead) })
	}
	k.mu.Unlock()
	k.left.Store(int64(1 + k.chance.IntN(60)))
	timeout := time.AfterFunc(time.Minute, func() {
		t.Errorf("kill %d: the bridge makes no calls", i)
		_ = cmd.Process.Signal(syscall.SIGKILL)
		once.Do(func() { close(dead) })
	})
	defer timeout.Stop()
	go func() {
		<-dead
		if k.victim == "driver" { // the bridge lives on, for a while
			time.Sleep(time.Duration(50+i%7*50) * time.Millisecond)
			_ = cmd.Process.Signal(syscall.SIGKILL)
		}
	}()
	k.read(lines)
	_ = cmd.Wait()
	once.Do(func() { close(dead) })
	k.mu.Lock()
	k.kill = nil
	k.mu.Unlock()
	switch k.victim {
	case "both", "driver":
		k.h.mock.Restart()
	case "reboot":
		k.reboot()
	}
	for _, v := range k.h.mock.Violations() {
		t.Errorf("kill %d: %s", i, v)
	}
	if n := len(k.h.mock.Volumes()); n > len(soakNames) {
		t.Errorf("kill %d: %d volumes of %d names", i, n, len(soakNames))
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
		switch word {
		case "error:", "damaged":
			k.t.Error(lines.Text())
		case "found":
			// A write that a kill cut off may have come to the disk without a word.
			if n != k.last[name] && n != k.last[name]+1 && (n != 0 || !k.maybe[name]) {
				k.t.Errorf("%s has %d in it, and had %d", name, n, k.last[name])
			}
			k.last[name], k.maybe[name] = n, false
		case "wrote":
			k.last[name] = n
			k.writes++
		case "removing":
			k.maybe[name] = true
		case "removed":
			k.last[name], k.maybe[name] = 0, false
			k.removals++
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
	k.h.mock.OnCall(nil)
	d := k.h.open(k.t)
	k.h.nothingLeft(k.t)
	if err := d.Close(); err != nil {
		k.t.Error(err)
	}
}
