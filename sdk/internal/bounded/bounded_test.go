package bounded

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newRunner() *Runner {
	return &Runner{Limit: 45 * time.Second, Log: slog.New(slog.DiscardHandler)}
}

func TestAnswerComesThrough(t *testing.T) {
	r := newRunner()
	got, err := Run(t.Context(), r, "a", Verb[int]{Name: "count", Do: func(context.Context) (int, error) { return 3, nil }})
	if got != 3 || err != nil {
		t.Errorf("Run = %d, %v; want 3", got, err)
	}
}

func TestDriverThatHeedsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		start := time.Now()
		_, err := Run(t.Context(), r, "a", Verb[int]{Name: "join", Do: func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}})
		if took := time.Since(start); took != 45*time.Second {
			t.Errorf("answered after %v, want the limit", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "gave up after 45s") {
			t.Errorf("error %q does not say who gave up, and when", err)
		}
	})
}

func TestDriverThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		release := make(chan struct{})
		undone := 0
		start := time.Now()
		_, err := Run(t.Context(), r, "a", Verb[int]{
			Name: "join",
			Do:   func(context.Context) (int, error) { <-release; return 1, nil },
			Undo: func(context.Context, int) { undone++ },
		})
		if took := time.Since(start); took != 46*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("answered %v after %v, want the limit and a moment", err, took)
		}
		// Nobody else may have the object while the hanging call has it; others go on.
		if _, err := Run(t.Context(), r, "a", Verb[int]{Name: "leave", Do: one}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second call for the object: %v", err)
		}
		if _, err := Run(t.Context(), r, "b", Verb[int]{Name: "leave", Do: one}); err != nil {
			t.Errorf("a call for another object: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait = %v although a call runs", err)
		}
		close(release)
		if err := r.Wait(t.Context()); err != nil {
			t.Errorf("Wait = %v", err)
		}
		if undone != 1 {
			t.Errorf("undone %d times, want once: nobody waited for the result", undone)
		}
		if _, err := Run(t.Context(), r, "a", Verb[int]{Name: "leave", Do: one}); err != nil {
			t.Errorf("after the hanging call ended: %v", err)
		}
	})
}

func one(context.Context) (int, error) { return 1, nil }

func TestCallerHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		ctx, cancel := context.WithCancel(t.Context())
		finished, undone := false, false
		time.AfterFunc(time.Second, cancel)
		_, err := Run(ctx, r, "a", Verb[int]{
			Name: "join",
			Do: func(ctx context.Context) (int, error) {
				time.Sleep(10 * time.Second)
				finished = ctx.Err() == nil
				return 1, ctx.Err()
			},
			Undo: func(context.Context, int) { undone = true },
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that the caller hung up", err)
		}
		if err := r.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !finished || !undone {
			t.Errorf("finished %t, undone %t; want both: half done helps nobody, and nobody has the result", finished, undone)
		}
	})
}

func TestPanicIsAnError(t *testing.T) {
	r := newRunner()
	_, err := Run(t.Context(), r, "a", Verb[int]{Name: "join", Do: func(context.Context) (int, error) { panic("boom") }})
	if err == nil || strings.Contains(err.Error(), "boom") || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("error %v, want one that says that it panicked and not what was in it", err)
	}
	if _, err := Run(t.Context(), r, "a", Verb[int]{Name: "leave", Do: one}); err != nil {
		t.Errorf("the object is still held after a panic: %v", err)
	}
}

// TestLateAnswer: a caller that can be answered from elsewhere is, at the limit and once,
// while its own goroutine is in the driver; what the driver then did is taken back.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		start := time.Now()
		var answers []error
		caller := NewCaller(func(err error) {
			answers = append(answers, err)
			if took := time.Since(start); took != 46*time.Second {
				t.Errorf("answered after %v, want the limit and a moment", took)
			}
		})
		ctx := caller.With(t.Context())
		undone := 0
		_, err := Run(ctx, r, "a", Verb[int]{
			Name:    "join",
			Explain: func(err error) error { return errors.Join(errors.New("net"), err) },
			Do: func(work context.Context) (int, error) {
				// A verb within the verb does not answer the caller of both.
				if _, err := Run(work, r, "b", Verb[int]{Name: "slow", Do: func(context.Context) (int, error) {
					time.Sleep(time.Hour)
					return 1, nil
				}}); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the verb within: %v", err)
				}
				time.Sleep(time.Until(start.Add(time.Hour)))
				return 1, nil
			},
			Undo: func(context.Context, int) { undone++ },
		})
		if took := time.Since(start); took != time.Hour {
			t.Errorf("returned after %v: the verb ran in another goroutine", took)
		}
		if len(answers) != 1 || !errors.Is(answers[0], context.DeadlineExceeded) || !strings.HasPrefix(answers[0].Error(), "net\njoin: gave up after 45s") {
			t.Errorf("answered %q", answers)
		}
		if !errors.Is(err, context.DeadlineExceeded) || undone != 1 {
			t.Errorf("Run = %v, undone %d times", err, undone)
		}
	})
}

func TestNoLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		ctx, cancel := context.WithCancel(t.Context())
		ofCaller := func() context.Context {
			return NewCaller(func(err error) { t.Errorf("answered %v", err) }).With(ctx)
		}
		undone := 0
		verb := Verb[int]{
			Name: "join",
			Do:   func(context.Context) (int, error) { time.Sleep(40 * time.Second); return 1, nil },
			Undo: func(context.Context, int) { undone++ },
		}
		if n, err := Run(ofCaller(), r, "a", verb); n != 1 || err != nil || undone != 0 {
			t.Errorf("in time: %d, %v, undone %d times", n, err, undone)
		}
		time.AfterFunc(time.Second, cancel)
		if _, err := Run(ofCaller(), r, "a", verb); !errors.Is(err, context.Canceled) || undone != 1 {
			t.Errorf("the caller hung up: %v, undone %d times", err, undone)
		}
		verb.Do = func(context.Context) (int, error) { panic("boom") }
		if _, err := Run(NewCaller(func(error) {}).With(t.Context()), r, "a", verb); err == nil || !strings.Contains(err.Error(), "panicked") {
			t.Errorf("a panic: %v", err)
		}
		if err := r.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestAfterTheAnswer: something that outlived a call, such as a timer that has its context,
// does not run in its goroutine and does not answer it.
func TestAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		c := NewCaller(func(err error) { t.Errorf("answered %v", err) })
		c.Answered()
		start := time.Now()
		_, err := Run(c.With(t.Context()), r, "a", Verb[int]{Name: "join", Do: func(context.Context) (int, error) {
			time.Sleep(time.Hour)
			return 1, nil
		}})
		if took := time.Since(start); took != 46*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run = %v after %v", err, took)
		}
		if err := r.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
