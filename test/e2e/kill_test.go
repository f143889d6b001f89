package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// kills returns how often the daemon is killed: 200 times in "make soak", which sets
// REMORA_SOAK, and a slice of that otherwise.
func kills() int {
	if os.Getenv("REMORA_SOAK") != "" {
		return 200
	}
	return 25
}

// seed returns the seed of the run, which is printed to repeat it.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano()) //nolint:gosec // a seed
	if text := os.Getenv("REMORA_SOAK_SEED"); text != "" {
		var err error
		s, err = strconv.ParseUint(text, 10, 64)
		noErr(t, err)
	}
	t.Logf("seed %d: repeat with REMORA_SOAK_SEED=%d", s, s)
	return s
}

// worker is a user with volumes of its own, who repeats what fails until it works, and
// knows what must be there.
type worker struct {
	h       *lab.Host
	name    string
	driver  string
	rng     *rand.Rand
	volumes map[string]int    // lines written to each
	running map[string]string // container to volume
	next    int
	steps   int
	retries int
}

// killConfig has a pool of each kind: one whose volumes are directories, and one whose
// volumes are mounts of their own.
const killConfig = `version = 1
[pool.remora]
driver = "dir"
[pool.ram]
driver = "mem"
`

// TestSoakKills kills the daemon at random moments while four users create, run, stop, remove
// and list, and then counts what is there: volumes, data, mounts, containers.
func TestSoakKills(t *testing.T) {
	h := newLab(t, engine...).Host(t, "h1")
	s := seed(t)
	env := []string{"REMORA_VOLUME_MOUNT_GRACE=2s", "REMORA_VOLUME_REFRESH=1s"}
	r := h.Remora(killConfig, env...)
	h.Dockerd()

	var stop atomic.Bool
	var wg sync.WaitGroup
	workers := make([]*worker, 4)
	for i := range workers {
		w := &worker{
			h: h, name: fmt.Sprintf("w%d", i), driver: []string{"remora", "ram"}[i%2], rng: rand.New(rand.NewPCG(s, uint64(i))), //nolint:gosec // a test's dice
			volumes: map[string]int{}, running: map[string]string{},
		}
		workers[i] = w
		wg.Go(func() {
			for !stop.Load() {
				w.step()
			}
		})
	}
	dice := rand.New(rand.NewPCG(s, 99)) //nolint:gosec // a test's dice
	for range kills() {
		time.Sleep(time.Duration(50+dice.IntN(1200)) * time.Millisecond)
		r.Kill()
		time.Sleep(time.Duration(dice.IntN(100)) * time.Millisecond)
		r = h.Remora("", env...)
	}
	stop.Store(true)
	wg.Wait()
	audit(t, h, workers)
}

// step does one random thing.
func (w *worker) step() {
	w.steps++
	switch n := w.rng.IntN(10); {
	case n < 3 || len(w.volumes) == 0:
		w.create()
	case n < 5:
		w.write()
	case n < 7:
		w.start()
	case n < 8:
		w.stopOne()
	case n < 9:
		w.remove()
	default:
		_, _ = w.h.Docker("volume", "ls") // its answer is looked at in the end
	}
}

// until repeats a thing until it works.
func (w *worker) until(f func() error) {
	for try := range 200 {
		err := f()
		if err == nil {
			return
		}
		w.retries++
		if try == 199 {
			panic(fmt.Sprintf("worker %s: %v", w.name, err))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *worker) create() {
	w.next++
	v := fmt.Sprintf("%s-v%d", w.name, w.next)
	w.until(func() error { _, err := w.h.Docker("volume", "create", "-d", w.driver, v); return err })
	w.volumes[v] = 0
}

// write adds a line to a volume in a container that ends.
func (w *worker) write() {
	v := w.pick()
	line := w.volumes[v] + 1
	// The line is written only where the one before it is the last: a repetition of a run
	// that had worked adds nothing.
	script := fmt.Sprintf("n=$(cat /data/n 2>/dev/null || echo 0); [ $n -ge %d ] || echo %d > /data/n; sync", line, line)
	w.until(func() error { _, err := w.h.Container(v, "", script); return err })
	w.volumes[v] = line
}

// start leaves a container running.
func (w *worker) start() {
	v := w.pick()
	w.next++
	c := fmt.Sprintf("%s-c%d", w.name, w.next)
	w.until(func() error {
		_, err := w.h.Docker("run", "-d", "--name", c, "--network=none", "-v", v+":/data", lab.ImageName, "sleep", "100000")
		if err != nil {
			_, _ = w.h.Docker("rm", "-f", c) // what a user does before trying again
		}
		return err
	})
	w.running[c] = v
}

func (w *worker) stopOne() {
	for c := range w.running {
		w.until(func() error { _, err := w.h.Docker("rm", "-f", c); return err })
		delete(w.running, c)
		return
	}
}

// remove removes a volume that no container of this worker has.
func (w *worker) remove() {
	v := w.pick()
	for _, used := range w.running {
		if used == v {
			return
		}
	}
	w.until(func() error {
		_, err := w.h.Docker("volume", "rm", v)
		if err != nil && strings.Contains(strings.ToLower(err.Error()), "no such volume") {
			return nil
		}
		return err
	})
	delete(w.volumes, v)
}

func (w *worker) pick() string {
	names := make([]string, 0, len(w.volumes))
	for v := range w.volumes {
		names = append(names, v)
	}
	slices.Sort(names)
	return names[w.rng.IntN(len(names))]
}

// audit compares what is there with what the workers know.
func audit(t *testing.T, h *lab.Host, workers []*worker) {
	t.Helper()
	known := map[string][]string{} // by driver
	for _, w := range workers {
		t.Logf("worker %s on %s: %d steps, %d repetitions; %d volumes, %d containers", w.name, w.driver, w.steps, w.retries, len(w.volumes), len(w.running))
		for v := range w.volumes {
			known[w.driver] = append(known[w.driver], v)
		}
	}
	for driver, names := range known {
		slices.Sort(names)
		for what, text := range map[string]string{
			"remora": h.MustCli("volume", "ls", "-q", "--pool", driver),
			"docker": h.MustDocker("volume", "ls", "-q", "--filter", "driver="+driver),
		} {
			listed := strings.Fields(text)
			slices.Sort(listed)
			if !slices.Equal(listed, names) {
				t.Errorf("%s lists %v on %s, want %v", what, listed, driver, names)
			}
		}
	}
	for _, w := range workers {
		for v, lines := range w.volumes {
			if lines == 0 {
				continue
			}
			out, err := h.Container(v, "", "cat /data/n")
			noErr(t, err)
			is(t, "last line of "+v, out, strconv.Itoa(lines))
		}
		for c := range w.running {
			// Every container can be stopped and started.
			h.MustDocker("restart", "-t", "0", c)
			want(t, h.MustDocker("inspect", "-f", "{{.State.Status}}", c), "running")
			h.MustDocker("rm", "-f", c)
		}
	}
	for driver, names := range known {
		eventually(t, 30*time.Second, func() bool {
			h.MustCli("reconcile")
			return !slices.ContainsFunc(names, func(v string) bool { return mountsIn(t, h, driver, v) != 0 })
		})
		for _, v := range names {
			h.MustDocker("volume", "rm", v)
		}
	}
	if left := h.Mounts("/run/remora/"); len(left) > 0 {
		t.Errorf("mounts left: %v", left)
	}
	for _, dir := range []string{"/var/lib/remora/volumes/remora", "/run/remora/mem/ram", "/run/remora/mounts/remora", "/run/remora/mounts/ram"} {
		for entry := range strings.FieldsSeq(h.Must("ls", "-A", dir)) {
			if !strings.HasPrefix(entry, ".remora-pool") {
				t.Errorf("left in %s: %s", dir, entry)
			}
		}
	}
}
