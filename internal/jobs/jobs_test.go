package jobs_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func open(t *testing.T, dir string, kinds ...jobs.Kind) *jobs.Keeper {
	t.Helper()
	k, err := jobs.Open(t.Context(), dir, slog.New(slog.DiscardHandler), kinds...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func shut(t *testing.T, k *jobs.Keeper) {
	t.Helper()
	if err := k.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func files(t *testing.T, dir string) int {
	t.Helper()
	all, err := filepath.Glob(dir + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestJoin: who wants the same takes part in it, who wants another thing of the object waits.
func TestJoin(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var runs, others atomic.Int32
		k := open(t, dir, jobs.Kind{Name: "make", Do: func(ctx context.Context, r *jobs.Run) error {
			runs.Add(1)
			time.Sleep(time.Minute)
			return nil
		}}, jobs.Kind{Name: "break", Do: func(context.Context, *jobs.Run) error {
			if runs.Load() != 1 {
				return errors.New("too early")
			}
			others.Add(1)
			return nil
		}})
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if err := k.Do(t.Context(), "make", "v", "", nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		all.Go(func() {
			if err := k.Do(t.Context(), "break", "v", "", nil); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if n := others.Load(); n != 0 {
			t.Error("two jobs for one object at a time")
		}
		if n := files(t, dir); n != 1 {
			t.Errorf("%d files while it runs", n)
		}
		if j, ok := k.Of("v"); !ok || j.Kind != "make" {
			t.Errorf("job of v is %+v", j)
		}
		all.Wait()
		if runs.Load() != 1 || others.Load() != 1 {
			t.Errorf("%d and %d runs", runs.Load(), others.Load())
		}
		if n := files(t, dir); n != 0 {
			t.Errorf("%d files after it", n)
		}
		shut(t, k)
	})
}

// TestLate: a caller that cannot wait is told so, and the job goes on.
func TestLate(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := open(t, dir, jobs.Kind{Name: "make", Do: func(ctx context.Context, r *jobs.Run) error {
			if err := r.Step("waiting", nil); err != nil {
				return err
			}
			r.Trouble(errors.New("first\nline"))
			time.Sleep(time.Minute)
			return errdefs.Errorf(errdefs.ErrInvalid, "no good")
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := k.Do(ctx, "make", "v", "", nil)
		if !errors.Is(err, errdefs.ErrUnavailable) || err.Error() != "make, waiting for 10s, and going on: context deadline exceeded; last: first; line" {
			t.Errorf("late: %v", err)
		}
		if h := errdefs.Hints(err); len(h) != 1 || !strings.Contains(h[0], "remora jobs") {
			t.Errorf("hints %q", h)
		}
		if err := k.Do(t.Context(), "make", "v", "", nil); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("joined: %v", err)
		}
		all := k.Jobs()
		if len(all) != 1 || !all[0].Ended || all[0].Error != "no good" || all[0].State != "waiting" {
			t.Errorf("jobs are %+v", all)
		}
		time.Sleep(25 * time.Hour)
		if all := k.Jobs(); len(all) != 0 {
			t.Errorf("a day later: %+v", all)
		}
		shut(t, k)
	})
}

type memory struct{ N int }

// TestResume: a job that was cut off goes on where it was, with what it wrote down, and its end is
// waited for by who asks for the same.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	stuck := jobs.Kind{Name: "make", Do: func(ctx context.Context, r *jobs.Run) error {
		if err := r.Step("half", memory{42}); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	k := open(t, dir, stuck)
	errs := make(chan error)
	go func() { errs <- k.Do(t.Context(), "make", "v", "key", memory{1}) }()
	for j, _ := k.Of("v"); j.State != "half"; j, _ = k.Of("v") {
		time.Sleep(time.Millisecond)
	}
	shut(t, k)
	if err := <-errs; !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "goes on when it is back") {
		t.Errorf("the end of the process: %v", err)
	}
	if err := k.Do(t.Context(), "make", "w", "", nil); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("after the end: %v", err)
	}
	for _, junk := range []string{"junk.json", "other.json"} {
		text := map[string]string{"junk.json": "{", "other.json": `{"version":1,"kind":"gone","id":"other","object":"x"}`}[junk]
		if err := os.WriteFile(filepath.Join(dir, junk), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got memory
	release := make(chan struct{})
	k = open(t, dir, jobs.Kind{Name: "make", Do: func(ctx context.Context, r *jobs.Run) error {
		<-release
		if r.State() != "half" || r.Key() != "key" || r.Object() != "v" || !r.Resumed() {
			t.Errorf("state %q, key %q", r.State(), r.Key())
		}
		return r.Load(&got)
	}})
	if err := k.Resume(); err != nil {
		t.Fatal(err)
	}
	go func() { errs <- k.Do(t.Context(), "make", "v", "key", memory{2}) }()
	close(release)
	if err := <-errs; err != nil || got.N != 42 {
		t.Errorf("resumed with %d, %v", got.N, err)
	}
	if n := files(t, dir); n != 2 {
		t.Errorf("%d files, want the two that are not understood", n)
	}
	shut(t, k)
}

// TestVolatile jobs leave nothing, and are not taken up again.
func TestVolatile(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir, jobs.Kind{Name: "look", Volatile: true, Do: func(ctx context.Context, r *jobs.Run) error {
		if err := r.Step("x", nil); err != nil {
			return err
		}
		if n := files(t, dir); n != 0 {
			t.Errorf("%d files", n)
		}
		return nil
	}})
	if err := k.Do(t.Context(), "look", "v", "", nil); err != nil {
		t.Error(err)
	}
	shut(t, k)
}

// TestLimit: a job that takes too long ends.
func TestLimit(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := open(t, dir, jobs.Kind{Name: "make", Limit: time.Minute, Do: func(ctx context.Context, _ *jobs.Run) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}})
		if err := k.Do(t.Context(), "make", "v", "", nil); err == nil || err.Error() != "gave up after 1m0s" {
			t.Errorf("error is %v", err)
		}
		if n := files(t, dir); n != 0 {
			t.Errorf("%d files", n)
		}
		shut(t, k)
	})
}
