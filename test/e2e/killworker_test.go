package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// worker is a user with volumes of its own, who repeats what fails until it works, and
// knows what must be there.
type worker struct {
	h       *lab.Host
	users   *users
	name    string
	driver  *driver
	rng     *rand.Rand
	volumes map[string]int    // lines written to each
	running map[string]string // container to volume
	// unsure are volumes that a step was busy with when the plugin was killed. A mount that
	// nobody took back may be counted there, until no container has the volume.
	unsure  map[string]bool
	touched string // by this step
	next    int
	steps   int
	retries int
	// exact and high are how many counts were found so.
	exact, high int
}

// step does one random thing.
func (w *worker) step() {
	w.steps++
	w.touched = ""
	before := w.driver.plugin.turns.Load()
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
		w.look()
	}
	if after := w.driver.plugin.turns.Load(); w.touched != "" && (after != before || after%2 == 1) {
		w.unsure[w.touched] = true
	}
}

// tries is how often a user repeats what fails.
const tries = 200

// until repeats a thing until it works, and tells whether it did.
func (w *worker) until(f func() error) bool {
	for try := 1; ; try++ {
		err := f()
		switch {
		case err == nil:
			return true
		case w.users.aborted.Load():
			return false
		case try == tries:
			w.users.fail("worker %s on %s: %v", w.name, w.driver.name, err)
			return false
		}
		w.retries++
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *worker) create() {
	w.next++
	v := fmt.Sprintf("%s-v%d", w.name, w.next)
	if w.until(func() error { _, err := w.h.Docker("volume", "create", "-d", w.driver.name, v); return err }) {
		w.volumes[v] = 0
	}
}

// write adds a line to a volume in a container that ends.
func (w *worker) write() {
	v := w.pick()
	line := w.volumes[v] + 1
	// The line is written only where the one before it is the last: a repetition of a run
	// that had worked adds nothing.
	script := fmt.Sprintf("n=$(cat /data/n 2>/dev/null || echo 0); [ $n -ge %d ] || echo %d > /data/n; sync", line, line)
	if w.until(func() error { _, err := w.h.Container(v, "", script); return err }) {
		w.volumes[v] = line
	}
}

// start leaves a container running.
func (w *worker) start() {
	v := w.pick()
	w.next++
	c := fmt.Sprintf("%s-c%d", w.name, w.next)
	if w.until(func() error {
		_, err := w.h.Docker("run", "-d", "--name", c, "--network=none", "-v", v+":/data", lab.ImageName, "sleep", "100000")
		if err != nil {
			_, _ = w.h.Docker("rm", "-f", c) // what a user does before trying again
		}
		return err
	}) {
		w.running[c] = v
	}
}

func (w *worker) stopOne() {
	for c, v := range w.running {
		w.touched = v
		if w.until(func() error { _, err := w.h.Docker("rm", "-f", c); return err }) {
			delete(w.running, c)
		}
		return
	}
}

// remove removes a volume that no container of this worker has.
func (w *worker) remove() {
	v := w.pick()
	if w.containers(v) > 0 {
		return
	}
	if w.until(func() error {
		_, err := w.h.Docker("volume", "rm", v)
		if err != nil && strings.Contains(strings.ToLower(err.Error()), "no such volume") {
			return nil
		}
		return err
	}) {
		delete(w.volumes, v)
		delete(w.unsure, v)
		w.touched = ""
	}
}

func (w *worker) pick() string {
	names := make([]string, 0, len(w.volumes))
	for v := range w.volumes {
		names = append(names, v)
	}
	slices.Sort(names)
	w.touched = names[w.rng.IntN(len(names))]
	return w.touched
}

// containers returns how many containers run on a volume.
func (w *worker) containers(volume string) (n int) {
	for _, v := range w.running {
		if v == volume {
			n++
		}
	}
	return n
}

// look compares counts and mounts with the containers that run. Nothing happens to the
// volumes of this worker meanwhile but that the plugin is killed, and nothing was made to
// put them in order. A count that is too low is a volume that may be unmounted below a
// container; it is never right. One that is too high is right only where a kill cut off a
// step on that volume.
func (w *worker) look() {
	var counts map[string]int
	var points, running []string
	if !w.until(func() (err error) {
		if counts, err = w.driver.counts(); err == nil && w.driver.mounts != "" {
			points, err = w.h.LookMounts(w.driver.mounts)
		}
		return err
	}) || !w.until(func() error {
		names, err := w.h.Docker("ps", "--format", "{{.Names}}")
		running = strings.Fields(names)
		return err
	}) {
		return
	}
	for c, v := range w.running {
		if !slices.Contains(running, c) {
			w.users.fail("container %s on volume %s does not run", c, v)
		}
	}
	mounted := map[string]int{}
	for _, p := range points {
		mounted[strings.TrimPrefix(p, w.driver.mounts)]++
	}
	for v := range w.volumes {
		got, want, doubt := counts[v], w.containers(v), w.unsure[v]
		if got == want {
			delete(w.unsure, v)
			w.exact++
		} else {
			w.high++
		}
		switch n := mounted[v]; {
		case got < want:
			w.users.fail("volume %s on %s: counted %d times, and %d containers run on it", v, w.driver.name, got, want)
		case got > want && !doubt:
			w.users.fail("volume %s on %s: counted %d times for %d containers, and no kill came in between", v, w.driver.name, got, want)
		case w.driver.mounts == "":
		case n == 0 && want > 0:
			w.users.fail("volume %s on %s: not mounted, and %d containers run on it", v, w.driver.name, want)
		case n > 1:
			w.users.fail("volume %s on %s: mounted %d times over", v, w.driver.name, n)
		case n > 0 && got == 0 && !doubt:
			w.users.fail("volume %s on %s: mounted, and counted for nobody", v, w.driver.name)
		}
	}
}
