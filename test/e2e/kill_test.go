package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// soakKills is how often each plugin is killed in "make soak", which sets REMORA_SOAK.
// Otherwise it is as often as fits into briefly.
const (
	soakKills = 200
	briefly   = 45 * time.Second
)

// enough tells whether to stop after n kills.
func enough(n int, since time.Time) bool {
	if testenv.Soak() {
		return n >= soakKills
	}
	return time.Since(since) > briefly
}

// killConfig has a pool of each kind: one whose volumes are directories, and one whose
// volumes are mounts of their own.
const killConfig = `version = 1
[pool.remora]
driver = "dir"
[pool.ram]
driver = "mem"
`

// TestSoakKills kills the daemon, and a plugin by somebody else that is made with the SDK and
// mounts, at random moments while five users create, run, stop, remove and list, and compare
// counts and mounts with the containers they run. In the end volumes, data, mounts and
// containers are compared with what the users know.
func TestSoakKills(t *testing.T) {
	h := newLab(t, engine...).Host(t, "h1")
	s := testenv.Seed(t)
	remora, stranger := newRemora(h), newStranger(t, h)
	drivers := []*driver{
		{name: "remora", plugin: remora, counts: remoraCounts(h, "remora")},
		{name: "ram", plugin: remora, counts: remoraCounts(h, "ram")},
		{name: "bound", plugin: stranger, counts: strangerCounts(h), mounts: strangerDir + "/mounts/"},
	}
	remora.start()
	stranger.start()
	h.Dockerd()

	u := newUsers(t)
	defer u.abort() // where the test ends early
	for i, d := range []*driver{drivers[0], drivers[1], drivers[0], drivers[1], drivers[2]} {
		u.add(&worker{
			h: h, users: u, name: fmt.Sprintf("w%d", i), driver: d, rng: rand.New(rand.NewPCG(s, uint64(i))), //nolint:gosec // a test's dice
			volumes: map[string]int{}, running: map[string]string{}, unsure: map[string]bool{},
		})
	}
	dice := rand.New(rand.NewPCG(s, 99)) //nolint:gosec // a test's dice
	start, n := time.Now(), 0
	for ; !enough(n, start) && !t.Failed(); n++ {
		// Each is killed at a moment of its own, and is away for a time of its own.
		plugins := []*plugin{remora, stranger}
		at := []time.Duration{moment(dice), moment(dice)}
		if at[1] < at[0] {
			slices.Reverse(at)
			slices.Reverse(plugins)
		}
		round := time.Now()
		for i, p := range plugins {
			time.Sleep(time.Until(round.Add(at[i])))
			p.kill()
			time.Sleep(time.Duration(dice.IntN(100)) * time.Millisecond)
			p.start()
		}
	}
	t.Logf("%d kills of the daemon and %d of the stranger in %s; %d left a mountpoint that the ledger did not know",
		n, n, time.Since(start).Round(time.Second), stranger.rests)
	u.finish()
	if n >= soakKills && stranger.rests == 0 {
		t.Error("no kill came between a mount and the ledger")
	}
	if t.Failed() {
		return // what a user could not do, the audit would tell as something else
	}
	for _, w := range u.workers {
		w.look()
	}
	audit(t, h, drivers, u.workers)
}

func moment(dice *rand.Rand) time.Duration {
	return time.Duration(50+dice.IntN(1200)) * time.Millisecond
}

// plugin is a process that is killed and started again.
type plugin struct {
	run func() *lab.Process // until it is ready
	p   *lab.Process
	// rests is how often a kill left something that the next life took away at its start.
	rests int
	// turns is even while it runs, odd while it does not.
	turns atomic.Int64
}

func (p *plugin) start() {
	p.p = p.run()
	if p.turns.Load()%2 == 1 {
		p.turns.Add(1)
	}
}

func (p *plugin) kill() {
	p.turns.Add(1)
	p.p.Kill()
	p.rests += strings.Count(p.p.Log(), `msg="rest of a crash unmounted"`)
}

// users are the workers, and what stops them.
type users struct {
	t        *testing.T
	workers  []*worker
	running  sync.WaitGroup
	finished atomic.Bool // no further step
	aborted  atomic.Bool // nor a further try
}

func newUsers(t *testing.T) *users {
	t.Helper()
	return &users{t: t}
}

func (u *users) add(w *worker) {
	u.workers = append(u.workers, w)
	u.running.Go(func() {
		for !u.finished.Load() {
			w.step()
		}
	})
}

// finish lets each worker end what it does.
func (u *users) finish() {
	u.finished.Store(true)
	u.running.Wait()
}

// abort has each worker give up.
func (u *users) abort() {
	u.aborted.Store(true)
	u.finish()
}

// fail is for a worker, which may not end the test: that stops when it sees it.
func (u *users) fail(format string, args ...any) {
	u.t.Errorf(format, args...)
	u.aborted.Store(true)
	u.finished.Store(true)
}
