package blocktest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/volume"
)

// stage is one scenario at work.
type stage struct {
	testing.TB
	Config
	cloud Cloud
	poll  time.Duration // [block.Traits.Poll] of the pools that are opened; 0 is the provider's
}

// Quick is the pace with a cloud that takes no time: else nearly all of a test is waiting for the next look.
const Quick = 25 * time.Millisecond

func newStage(t *testing.T, c Config) *stage {
	s := &stage{TB: t, Config: c.defaults(), cloud: c.New(t)}
	if s.Slow <= 20*time.Second {
		s.poll = Quick
	}
	return s
}

// host is a machine with a daemon's pool on it, without the Handler in front.
type host struct {
	*Host
	s      *stage
	dir    string
	faults *Faults
	driver volume.Driver
	mu     sync.Mutex
	last   volume.Driver // guarded by mu
	change []func(*block.Config)
	stall  func(*Faults) func(op string) error // what the next daemon's calls begin with
	pool   string
}

// host adds a machine, and opens a pool on it.
func (s *stage) host(change ...func(*block.Config)) *host {
	s.Helper()
	return s.daemon(&host{Host: s.cloud.Host(s), dir: s.TempDir(), change: change, pool: "pool"})
}

// hostIn adds one in a zone.
func (s *stage) hostIn(zone string) *host {
	s.Helper()
	return s.daemon(&host{Host: s.cloud.(Zoned).HostIn(s, zone), dir: s.TempDir(), pool: "pool"})
}

func (s *stage) daemon(h *host) *host {
	s.Helper()
	h.s = s
	h.open()
	s.Cleanup(func() {
		h.close()
		for _, m := range h.mounts() {
			s.Errorf("left mounted: %s", m)
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
	})
	return h
}

func (h *host) open() {
	h.s.Helper()
	h.faults = newFaults()
	h.faults.poll = h.s.poll
	if h.stall != nil {
		h.faults.Set(h.stall(h.faults), nil)
	}
	c := block.Config{
		Namespace: "test", Size: catalog.Bytes(h.s.Size), FS: "ext4", Detach: 20 * time.Millisecond, Wait: 50 * time.Millisecond,
		Preempt: "never", Refresh: time.Hour, Rate: 10000, Dev: "/dev", Sys: "/sys",
	}
	if h.Machine != nil {
		c.Dev, c.Sys = h.Machine.Dev(), h.Machine.Sys()
	}
	if h.s.Change != nil {
		h.s.Change(&c)
	}
	for _, change := range h.change {
		change(&c)
	}
	log := io.Discard
	if testing.Verbose() {
		log = h.s.Output()
	}
	d, err := block.Open(h.s.Context(), h.faults.Wrap(h.Provider(h.s)), c, catalog.Env{
		PoolName: h.pool, StateDir: filepath.Join(h.dir, "state"), RunDir: filepath.Join(h.dir, "run"),
		Logger: slog.New(slog.NewTextHandler(log, nil)).With(slog.String("host", h.ID)),
	})
	if err != nil {
		h.s.Fatal(err)
	}
	h.driver = d
	h.mu.Lock()
	h.last = d
	h.mu.Unlock()
	h.ready()
}

// live is the driver that was opened last, for calls that a crash may meet. It may be dead.
func (h *host) live() volume.Driver {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// ready waits for the first list.
func (h *host) ready() {
	h.s.Helper()
	ctx, cancel := context.WithTimeout(h.s.Context(), h.s.Slow)
	defer cancel()
	_ = h.driver.(volume.Pinger).Ping(ctx)
}

func (h *host) close() {
	h.s.Helper()
	if h.driver == nil {
		return
	}
	if err := h.driver.(io.Closer).Close(); err != nil {
		h.s.Errorf("close: %v", err)
	}
	h.driver = nil
}

// crash ends the daemon between two lines: no call of it comes back, and nothing is tidied up.
func (h *host) crash() {
	h.s.Helper()
	h.faults.die()
	h.close()
}

// again is a crash, and the next start.
func (h *host) again() {
	h.s.Helper()
	h.crash()
	h.open()
}

// lose is the end of the machine: nobody unmounts, nobody detaches.
func (h *host) lose() {
	h.s.Helper()
	h.crash()
	for _, m := range h.mounts() {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			h.s.Error(err)
		}
	}
	if h.Terminate != nil {
		h.Terminate()
	}
}

func (h *host) target(name string) string { return filepath.Join(h.dir, "mnt", name) }

// mounts returns what is mounted below the host's own directory.
func (h *host) mounts() (all []string) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		h.s.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], h.dir+"/") {
			all = append(all, f[4])
		}
	}
	return all
}

func (h *host) create(name string, opts ...string) error {
	all := map[string]string{}
	for _, o := range opts {
		k, v, _ := strings.Cut(o, "=")
		all[k] = v
	}
	ctx, cancel := context.WithTimeout(h.s.Context(), max(time.Minute, h.s.Slow))
	defer cancel()
	return h.live().Create(ctx, name, all)
}

func (h *host) mustCreate(name string, opts ...string) {
	h.s.Helper()
	if err := h.create(name, opts...); err != nil {
		h.s.Fatalf("create %s on %s: %v", name, h.ID, err)
	}
}

func (h *host) mount(name string) (string, error) {
	h.s.Helper()
	target := h.target(name)
	if err := os.MkdirAll(target, 0o700); err != nil {
		h.s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(h.s.Context(), max(time.Minute, h.s.Slow))
	defer cancel()
	at, err := h.live().Mount(ctx, name, target)
	if err == nil && at != target {
		h.s.Fatalf("mounted at %q, not at %q", at, target)
	}
	return at, err
}

func (h *host) mustMount(name string) string {
	h.s.Helper()
	at, err := h.mount(name)
	if err != nil {
		h.s.Fatalf("mount %s on %s: %v", name, h.ID, err)
	}
	return at
}

func (h *host) unmount(name string) error {
	ctx, cancel := context.WithTimeout(h.s.Context(), max(time.Minute, h.s.Slow))
	defer cancel()
	return h.live().Unmount(ctx, name, h.target(name))
}

func (h *host) mustUnmount(name string) {
	h.s.Helper()
	if err := h.unmount(name); err != nil {
		h.s.Fatalf("unmount %s on %s: %v", name, h.ID, err)
	}
}

func (h *host) mustRemove(name string) {
	h.s.Helper()
	if err := h.driver.Remove(h.s.Context(), name); err != nil {
		h.s.Fatalf("remove %s on %s: %v", name, h.ID, err)
	}
}

// inspect returns what the driver knows of a volume.
func (h *host) inspect(name string) volume.Info {
	h.s.Helper()
	info, err := h.driver.(volume.Inspector).Inspect(h.s.Context(), name)
	if err != nil {
		h.s.Fatalf("inspect %s on %s: %v", name, h.ID, err)
	}
	return info
}

// disk returns the ID of a volume's disk.
func (h *host) disk(name string) string {
	h.s.Helper()
	return fmt.Sprint(h.inspect(name).Status["disk"])
}

// detached waits until this host has no disk any more.
func (h *host) detached() {
	h.s.Helper()
	h.s.eventually("the disks are off "+h.ID, func() bool { return len(h.attached()) == 0 })
}

func (s *stage) eventually(what string, is func() bool) {
	s.Helper()
	most := max(s.Slow, 20*time.Second) // a detach that failed is tried again after 1, 2, 4 and 8 s
	for end := time.Now().Add(most); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("not within %s: %s", most, what)
		}
	}
}

func (s *stage) write(at, file, text string) {
	s.Helper()
	f, err := os.Create(filepath.Join(at, file))
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		s.Fatal(err)
	}
	if err := f.Close(); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) mustRead(at, file, want string) {
	s.Helper()
	got, err := os.ReadFile(filepath.Join(at, file))
	if err != nil || string(got) != want {
		s.Fatalf("%s/%s: %q, %v; want %q", at, file, got, err, want)
	}
}

// disks returns the disks of the cloud, as a host sees them.
func (s *stage) disks(h *host, names ...string) []block.Disk {
	s.Helper()
	all, err := h.Provider(s).List(s.Context(), block.Query{Namespace: "test", Names: names})
	if err != nil {
		s.Fatal(err)
	}
	return all
}
