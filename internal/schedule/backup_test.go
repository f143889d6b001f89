package schedule

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func backups(t *testing.T, repositories ...string) Schedule {
	s := every10(t)
	for _, r := range repositories {
		s.Tasks = append(s.Tasks, Task{Repository: r})
	}
	return s
}

// Each task of a schedule has its own, of which so many are kept; also of volumes whose driver
// cannot make snapshots.
func TestEngineBackups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p, plain := newBench(t), newPool("a", "db", "web"), newPool("b", "db2")
		plain.unable = true
		s := backups(t, "near", "far")
		s.Tasks = append(s.Tasks, Task{})
		b.Set(t.Context(), []Schedule{s}, []Pool{p, plain})
		pass(30 * time.Minute)
		for _, of := range []string{"near:db", "far:db", "db"} {
			if n := len(strings.Fields(p.names(of))); n != 2 {
				t.Errorf("%s: there are %q", of, p.names(of))
			}
		}
		if n := len(strings.Fields(plain.names("near:db2"))); n != 2 || plain.names("db2") != "" {
			t.Errorf("of a driver without snapshots there are %v", plain.snapshots)
		}
		st := b.Status()[0]
		if st.Volumes != 2 || len(st.Runs) != 5 || !st.Last.Equal(time.Now()) {
			t.Errorf("status is %+v", st)
		}
		if p.count() != 9 || plain.count() != 6 || b.counts()["often true"] != 15 {
			t.Errorf("%d and %d were made, runs %v", p.count(), plain.count(), b.counts())
		}
	})
}

// No more backups are made at a time than there are slots, and none twice; nobody waits for one
// that takes long but those behind it.
func TestEngineBackupsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t), newPool("a")
		for i := range 5 {
			p.volumes[fmt.Sprint("db", i)] = time.Now()
		}
		p.takes = 4 * time.Minute
		b.Set(t.Context(), []Schedule{backups(t, "near")}, []Pool{p})
		pass(10*time.Minute + time.Second)
		if p.atOnce != 2 {
			t.Errorf("%d at once", p.atOnce)
		}
		running := 0
		for _, r := range b.Status()[0].Runs {
			if r.Running {
				running++
			}
		}
		if running != 5 {
			t.Errorf("%d are running or in line", running)
		}
		pass(12 * time.Minute) // to 22:01
		if p.most != 2 || p.count() != 5+0 {
			t.Errorf("%d at once, %d made", p.most, p.count())
		}
		b.Close(t.Context()) // which does not wait for them to end by themselves
		if p.atOnce != 0 || p.count() != 5 {
			t.Errorf("after the end %d are being made, %d were", p.atOnce, p.count())
		}
	})
}

// A volume that is busy is left alone, which is no failure, and has its turn as soon as it can.
func TestEngineBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t), newPool("a", "db")
		p.fails = errdefs.As(ErrBusy, errdefs.Errorf(errdefs.ErrInUse, "restore since noon"))
		b.Set(t.Context(), []Schedule{backups(t, "near")}, []Pool{p})
		pass(13 * time.Minute)
		if st := b.Status()[0]; len(b.counts()) != 0 || st.Error == nil || strings.Contains(b.log.String(), "ERROR") || strings.Count(b.log.String(), "left alone") != 1 {
			t.Errorf("runs %v, status %+v\n%s", b.counts(), st, b.log.String())
		}
		p.set(func() { p.fails = nil })
		pass(time.Minute)
		if st := b.Status()[0]; p.count() != 1 || st.Error != nil || !st.Next.Equal(time.Now().Add(6*time.Minute)) {
			t.Errorf("%d made, status %+v", p.count(), st)
		}
	})
}

// What was made counts as made, although something beside it went wrong.
func TestEngineBesides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t), newPool("a", "db")
		p.beside = errdefs.Errorf(errdefs.ErrUnavailable, "hook")
		b.Set(t.Context(), []Schedule{every10(t)}, []Pool{p})
		pass(15 * time.Minute)
		if st := b.Status()[0]; p.count() != 1 || b.counts()["often false"] != 1 || st.Error == nil || st.Last.IsZero() {
			t.Errorf("%d made, runs %v, status %+v", p.count(), b.counts(), st)
		}
	})
}

// A volume whose label goes and comes back while a backup of it is made gets no second one beside.
func TestEngineAskedAgainMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t), newPool("a", "db")
		p.asks = map[string][]string{"db": {"often"}}
		s := backups(t, "near")
		s.Pools, s.Volumes = nil, nil
		b.Set(t.Context(), []Schedule{s}, []Pool{p})
		pass(11 * time.Minute)
		p.set(func() { p.takes = 8 * time.Minute })
		pass(10 * time.Minute) // it is being made
		p.set(func() { p.asks = nil })
		pass(2 * time.Minute)
		p.set(func() { p.asks = map[string][]string{"db": {"often"}} })
		pass(2 * time.Minute)
		p.set(func() {
			if p.most != 1 {
				t.Errorf("%d at once", p.most)
			}
		})
		pass(10 * time.Minute)
		if n := p.count(); n < 2 {
			t.Errorf("%d were made", n)
		}
	})
}

// A repository that is not there is a failure, a volume that has gone is none.
func TestEngineNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t), newPool("a", "db")
		p.fails = errdefs.Errorf(errdefs.ErrNotFound, "no repository")
		b.Set(t.Context(), []Schedule{backups(t, "near")}, []Pool{p})
		pass(10 * time.Minute)
		if b.counts()["often false"] != 1 {
			t.Errorf("runs %v", b.counts())
		}
		p.set(func() { p.takes = 30 * time.Second })
		pass(time.Minute + time.Second)
		p.set(func() { delete(p.volumes, "db") })
		pass(30 * time.Second)
		if b.counts()["often false"] != 1 {
			t.Errorf("runs %v", b.counts())
		}
	})
}

// A volume that asks for a schedule gets it, whatever its name.
func TestEngineAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t), newPool("a", "web", "mail")
		p.asks = map[string][]string{"web": {"other", "often"}, "mail": {"other"}}
		b.Set(t.Context(), []Schedule{every10(t)}, []Pool{p})
		pass(10 * time.Minute)
		if p.names("web") != "s1" || p.names("mail") != "" || b.Status()[0].Volumes != 1 {
			t.Errorf("there are %v, status %+v", p.snapshots, b.Status())
		}
		b.Close(context.WithoutCancel(t.Context()))
	})
}
