package csi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/launch"
	"github.com/remora-plugins/remora/internal/mount"
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
	c := config{Keys: launch.Keys{Endpoint: u.Endpoint}, Namespace: "test", Size: 64 << 20, Reclaim: "delete", Detach: 5 * time.Millisecond, Wait: 2 * time.Second}
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
		if _, _ = fmt.Sscanf(string(text), "%s %d\n", new(string), &n); string(text) != contents(name, n) {
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
