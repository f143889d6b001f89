package schedule

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// memory is a pool that keeps its snapshots in memory.
type memory struct {
	name   string
	unable bool

	mu        sync.Mutex
	volumes   map[string]time.Time // when each was made
	snapshots map[string][]volume.Snapshot
	asks      map[string][]string // the schedules that volumes ask for
	fails     error               // of Take
	beside    error               // of Take, which works
	blind     error               // of Taken
	takes     time.Duration
	clock     func() time.Time // by which snapshots are made; nil is the usual
	made      int
	atOnce    int
	most      int // at once
}

func newPool(name string, volumes ...string) *memory {
	p := &memory{name: name, volumes: map[string]time.Time{}, snapshots: map[string][]volume.Snapshot{}}
	for _, v := range volumes {
		p.volumes[v] = time.Now()
	}
	return p
}

func (p *memory) Name() string { return p.name }

func (p *memory) Able() bool { return !p.unable }

func (p *memory) Volumes() (all []Volume) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, created := range p.volumes {
		all = append(all, Volume{name, created, p.asks[name]})
	}
	return all
}

// of is where what a task makes of a volume is kept.
func of(t Task, name string) string { return strings.TrimPrefix(t.Repository+":"+name, ":") }

func (p *memory) Taken(_ context.Context, t Task, schedule, name string) (all []Taken, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.snapshots[of(t, name)] {
		if s.Labels[Label] == schedule {
			all = append(all, Taken{s.Name, s.CreatedAt})
		}
	}
	return all, p.blind
}

func (p *memory) Take(ctx context.Context, t Task, schedule, name string) (bool, error) {
	p.mu.Lock()
	p.atOnce++
	p.most = max(p.most, p.atOnce)
	p.mu.Unlock()
	timer := time.NewTimer(p.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.atOnce--
	if err := ctx.Err(); err != nil && t.Repository != "" {
		return false, err
	}
	if p.fails != nil {
		return false, fmt.Errorf("volume %q: %w", name, p.fails)
	}
	p.made++
	now := time.Now()
	if p.clock != nil {
		now = p.clock()
	}
	// As a file system would have it: from a clock that is a little late.
	p.snapshots[of(t, name)] = append(p.snapshots[of(t, name)], volume.Snapshot{
		Name: fmt.Sprint("s", p.made), CreatedAt: now.Add(-4 * time.Millisecond), Labels: map[string]string{Label: schedule},
	})
	return true, p.beside
}

func (p *memory) Remove(_ context.Context, t Task, name string, gone []Taken) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.snapshots[of(t, name)] = slices.DeleteFunc(p.snapshots[of(t, name)], func(s volume.Snapshot) bool {
		return slices.ContainsFunc(gone, func(g Taken) bool { return g.Name == s.Name })
	})
	return nil
}

// names are those of the snapshots of a volume.
func (p *memory) names(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, s := range p.snapshots[name] {
		all = append(all, s.Name)
	}
	return strings.Join(all, " ")
}

// count is how many snapshots were made.
func (p *memory) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made
}

// set changes the pool.
func (p *memory) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// bench is an engine with what it tells.
type bench struct {
	*Engine
	t   *testing.T
	log journal

	mu   sync.Mutex
	runs map[string]int
}

// journal is a log that can be read while it is written to.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, runs: map[string]int{}}
	b.Engine = NewEngine(slog.New(slog.NewTextHandler(&b.log, nil)), 2, func(name string, err error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.runs[fmt.Sprint(name, " ", err == nil)]++
	})
	t.Cleanup(func() { b.Close(context.WithoutCancel(t.Context())) })
	return b
}

// counts are the runs, by schedule and whether they went well.
func (b *bench) counts() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.runs)
}

func (b *bench) wants(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s %q, want %q\n%s", what, got, want, b.log.String())
	}
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func every10(t *testing.T) Schedule {
	return Schedule{Name: "often", Cron: mustParse(t, "*/10 * * * *"), Volumes: []string{"db*"}, Keep: Keep{Last: 2}}
}

func TestEngineRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t), newPool("a", "db", "web")
		p.snapshots["db"] = []volume.Snapshot{{Name: "mine", CreatedAt: time.Now().Add(-time.Hour)}, {Name: "theirs", CreatedAt: time.Now().Add(-time.Hour), Labels: map[string]string{Label: "other"}}}
		b.Set(t.Context(), []Schedule{every10(t)}, []Pool{p})
		pass(10*time.Minute - time.Nanosecond)
		b.wants("before the time there are", p.names("db"), "mine theirs")
		pass(time.Nanosecond)
		b.wants("at the time there are", p.names("db"), "mine theirs s1")
		p.set(func() { p.volumes["db2"] = time.Now() })
		pass(30 * time.Minute)
		if got := len(strings.Fields(p.names("db"))); got != 4 {
			t.Errorf("there are %q", p.names("db"))
		}
		if got := p.names("db2"); len(strings.Fields(got)) != 2 {
			t.Errorf("of a volume that came later there are %q", got)
		}
		b.wants("of another volume there are", p.names("web"), "")
		if diff := cmp.Diff(map[string]int{"often true": 4 + 3}, b.counts()); diff != "" {
			t.Errorf("runs (-want +got):\n%s", diff)
		}
		st := b.Status()[0]
		if st.Volumes != 2 || !st.Last.Equal(time.Now()) || !st.Next.Equal(time.Now().Add(10*time.Minute)) || st.Error != nil {
			t.Errorf("status is %+v", st)
		}
		p.set(func() { delete(p.volumes, "db") })
		pass(10 * time.Minute)
		if b.counts()["often true"] != 8 || b.Status()[0].Volumes != 1 {
			t.Errorf("after a volume has gone: %v, %+v", b.counts(), b.Status())
		}
	})
}

// What was missed while nothing ran is done once, and what was not is not done again, however
// often it is started.
func TestEngineCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newPool("a", "db", "db-new"), every10(t)
		p.volumes["db-timeless"] = time.Time{}
		b := newBench(t)
		b.Set(t.Context(), []Schedule{s}, []Pool{p})
		pass(10 * time.Minute)
		if n := p.count(); n != 3 {
			t.Fatalf("%d were made", n)
		}
		for range 3 { // at the very time, and a little later
			b.Close(t.Context())
			b = newBench(t)
			b.Set(t.Context(), []Schedule{s}, []Pool{p})
			pass(3 * time.Minute)
		}
		if p.count() != 3 {
			t.Errorf("%d were made, although nothing was missed", p.count()-3)
		}
		b.Close(t.Context())
		p.set(func() { p.volumes["db-later"] = time.Now() })
		pass(34 * time.Minute) // to minute 53
		if p.count() != 3 {
			t.Errorf("%d were made by none", p.count()-3)
		}
		b = newBench(t)
		b.Set(t.Context(), []Schedule{s}, []Pool{p})
		pass(time.Second)
		if p.count() != 7 {
			t.Errorf("%d were made for 4 volumes", p.count()-3)
		}
		pass(6 * time.Minute)
		if p.count() != 7 {
			t.Errorf("%d were made too early", p.count()-7)
		}
		pass(time.Minute)
		if p.count() != 11 {
			t.Errorf("%d were made at the next time", p.count()-7)
		}
	})
}

// A snapshot from the future, after the clock was set back, does not put an end to it.
func TestEngineClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t), newPool("a", "db")
		p.snapshots["db"] = []volume.Snapshot{{Name: "s0", CreatedAt: time.Now().AddDate(4, 0, 0), Labels: map[string]string{Label: "often"}}}
		b.Set(t.Context(), []Schedule{every10(t)}, []Pool{p})
		pass(10 * time.Minute)
		if p.count() != 1 {
			t.Errorf("%d were made", p.count())
		}
	})
}

// A clock that was ahead and is set back, with the daemon at work and perhaps in the midst of a run,
// does not put an end to it either, and what is made from then on stays.
func TestEngineClockSetBackMeanwhile(t *testing.T) {
	for _, tt := range []struct {
		task  Task
		takes time.Duration
	}{{Task{}, 0}, {Task{}, 3 * time.Minute}, {Task{"far"}, 0}, {Task{"far"}, 3 * time.Minute}} {
		t.Run(fmt.Sprint(tt.task, " of ", tt.takes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, p, s := newBench(t), newPool("a", "db"), every10(t)
				s.Keep, s.Tasks, p.takes = Keep{Last: 1}, []Task{tt.task}, tt.takes
				var ahead atomic.Int64
				ahead.Store(int64(9 * 365 * 24 * time.Hour))
				b.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
				p.clock = b.clock
				b.Set(t.Context(), []Schedule{s}, []Pool{p})
				pass(11*time.Minute + 30*time.Second)
				ahead.Store(0)
				pass(29*time.Minute + tt.takes)
				if n := p.count(); n < 3 {
					t.Fatalf("%d were made", n)
				}
				if got, want := p.names(of(tt.task, "db")), fmt.Sprint("s", p.count()); !strings.HasSuffix(got, want) {
					t.Errorf("there are %q, and not %s that was made last", got, want)
				}
			})
		})
	}
}

func TestEngineJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p, s := newBench(t), newPool("a"), every10(t)
		s.Jitter, s.Keep = 30*time.Minute, Keep{}
		for i := range 20 {
			p.volumes[fmt.Sprint("db", i)] = time.Now()
		}
		b.Set(t.Context(), []Schedule{s}, []Pool{p})
		pass(100*time.Minute + time.Second)
		delays := map[time.Duration]bool{}
		b.Close(t.Context())
		for name, all := range p.snapshots {
			delay := s.delay("a", name)
			delays[delay] = true
			if delay < 0 || delay >= s.Jitter || delay%time.Second != 0 {
				t.Errorf("delay is %s", delay)
			}
			if want := int((100*time.Minute + time.Second - delay) / (10 * time.Minute)); len(all) != want {
				t.Errorf("%d snapshots with a delay of %s, want %d", len(all), delay, want)
			}
		}
		if len(delays) < 15 {
			t.Errorf("only %d delays for 20 volumes", len(delays))
		}
	})
}

// A run that fails is told once, with the volume, and counted; it is tried again after a minute,
// five, a quarter of an hour, and then every hour, until its next time comes.
func TestEngineFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t), newPool("a", "db")
		p.fails = errdefs.Errorf(errdefs.ErrUnavailable, "disk is away\nfor long")
		s := every10(t)
		s.Cron = mustParse(t, "@daily")
		b.Set(t.Context(), []Schedule{s}, []Pool{p})
		pass(24 * time.Hour) // the first attempt
		for i, wait := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, time.Hour} {
			if st := b.Status()[0]; b.counts()["often false"] != i+1 || !st.Next.Equal(time.Now().Add(wait)) || st.Error == nil || !st.Last.IsZero() {
				t.Errorf("before attempt %d: %v, %+v", i+2, b.counts(), st)
			}
			pass(wait)
		}
		if n := strings.Count(b.log.String(), "level=ERROR"); n != 6 || !strings.Contains(b.log.String(), "schedule=often pool=a task=snapshot volume=db") {
			t.Errorf("%d errors in the log:\n%s", n, b.log.String())
		}
		p.set(func() { p.fails = nil })
		pass(time.Hour)
		st := b.Status()[0]
		if p.count() != 1 || st.Error != nil || st.Next.Sub(st.Last) < 20*time.Hour {
			t.Errorf("%d made, status is %+v", p.count(), st)
		}
		p.set(func() { p.fails = errdefs.ErrUnsupported }) // of this volume, which only its driver knows
		pass(72 * time.Hour)
		if n := strings.Count(b.log.String(), "level=ERROR"); n != 7 || b.counts()["often false"] != 6+3 {
			t.Errorf("%d errors in the log, runs %v", n, b.counts())
		}
		p.set(func() { p.fails = errdefs.ErrUnavailable })
		s.Cron = mustParse(t, "*/10 * * * *")
		b.Set(t.Context(), []Schedule{s}, []Pool{p})
		pass(time.Second)
		before := b.counts()["often false"]
		pass(10 * time.Minute) // at 1, 6 and 10, which is its time
		if got := b.counts()["often false"] - before; got != 3 {
			t.Errorf("%d attempts in ten minutes\n%s", got, b.log.String())
		}
	})
}

// As long as nobody knows when the last run was none is made, and that is told once.
func TestEngineBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t), newPool("a", "db")
		p.blind = errdefs.ErrUnavailable
		b.Set(t.Context(), []Schedule{every10(t)}, []Pool{p})
		pass(25 * time.Minute)
		if n := strings.Count(b.log.String(), "level=ERROR"); p.count() != 0 || n != 1 || b.counts()["often false"] != 1 {
			t.Errorf("%d made, runs %v, log:\n%s", p.count(), b.counts(), b.log.String())
		}
		p.set(func() { p.blind = nil })
		pass(time.Minute)
		if p.count() != 1 {
			t.Errorf("%d made", p.count())
		}
	})
}

func TestEngineUnable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p, other := newBench(t), newPool("a", "db"), newPool("b", "web")
		p.unable, other.unable = true, true
		for range 3 {
			b.Set(t.Context(), []Schedule{every10(t)}, []Pool{p, other})
			pass(time.Hour)
		}
		if n := strings.Count(b.log.String(), "level="); n != 1 || !strings.Contains(b.log.String(), "level=WARN msg=\"nothing is scheduled in the pool: its driver cannot make snapshots\" schedule=often pool=a task=snapshot") {
			t.Errorf("%d lines in the log:\n%s", n, b.log.String())
		}
		if err := b.Status()[0].Error; err == nil || err.Error() != `pool "a": the driver cannot make snapshots` {
			t.Errorf("status is %v", err)
		}
	})
}

// A change is taken over at once, also while a snapshot is being made, of which there is then
// no second one.
func TestEngineChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p, s := newBench(t), newPool("a", "db"), every10(t)
		other := Schedule{Name: "other", Cron: mustParse(t, "*/30 * * * *"), Pools: []string{"a"}}
		p.takes = 5 * time.Second
		b.Set(t.Context(), []Schedule{s, other}, []Pool{p})
		pass(10*time.Minute + time.Second)
		s.Keep = Keep{Last: 1}
		b.Set(t.Context(), []Schedule{s, other}, []Pool{p})
		pass(time.Minute)
		if p.count() != 1 {
			t.Fatalf("%d made", p.count())
		}
		pass(10 * time.Minute)
		b.wants("there is", p.names("db"), "s2")
		b.Set(t.Context(), []Schedule{other}, []Pool{p})
		pass(10 * time.Minute)
		b.wants("there are", p.names("db"), "s2 s3")
		if all := b.Status(); len(all) != 1 || all[0].Schedule.Name != "other" {
			t.Errorf("status is %+v", all)
		}
	})
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		pools, volumes string
		want           string
	}{
		{"", "", ""},
		{"a", "", "a/db a/web"},
		{"", "db", "a/db b/db"},
		{"[b-z]", "w*", "b/web"},
		{"a b", "d? x", "a/db b/db"},
	} {
		s := Schedule{Pools: strings.Fields(tt.pools), Volumes: strings.Fields(tt.volumes)}
		var got []string
		for _, pool := range []string{"a", "b"} {
			for _, name := range []string{"db", "web"} {
				if s.Matches(pool, name) {
					got = append(got, pool+"/"+name)
				}
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%q %q is for %q, want %q", tt.pools, tt.volumes, got, tt.want)
		}
	}
}
