package hook

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// place is a runner with a file in which hooks write what they did.
type place struct {
	*Runner
	t    *testing.T
	file string
}

func newPlace(t *testing.T) place {
	t.Helper()
	dir := t.TempDir()
	return place{&Runner{
		Dir: filepath.Join(dir, "hooks"), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Engines: func() []engine.Engine { return nil },
	}, t, filepath.Join(dir, "said")}
}

// says is a command that notes that it ran, and then does more.
func (p place) says(word, more string) []string {
	return []string{"sh", "-c", `echo "$0 $REMORA_HOOK $REMORA_POOL/$REMORA_VOLUME $REMORA_SCHEDULE" >> ` + p.file + "; " + more, word}
}

func (p place) said() string {
	p.t.Helper()
	text, err := os.ReadFile(p.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// left are the files of what has not ended.
func (p place) left() int {
	p.t.Helper()
	all, err := filepath.Glob(p.Dir + "/*")
	if err != nil {
		p.t.Fatal(err)
	}
	return len(all)
}

func (p place) wants(want string) {
	p.t.Helper()
	if got := p.said(); got != want {
		p.t.Errorf("hooks did %q, want %q", got, want)
	}
	if n := p.left(); n != 0 {
		p.t.Errorf("%d are still written down", n)
	}
}

var event = Event{Pool: "fast", Volume: "db", Schedule: "nightly"}

func TestAround(t *testing.T) {
	p := newPlace(t)
	all := []Hook{
		{Name: "one", Before: p.says("one", ""), After: p.says("one", ""), Timeout: time.Minute},
		{Name: "other", Volumes: []string{"web"}, Before: p.says("other", ""), Timeout: time.Minute},
		{Name: "two", Volumes: []string{"d*"}, Before: p.says("two", ""), After: p.says("two", ""), Timeout: time.Minute},
	}
	end, err := p.Begin(t.Context(), all, event)
	if err != nil {
		t.Fatal(err)
	}
	if p.left() != 1 {
		t.Errorf("%d are written down", p.left())
	}
	if err := end(t.Context()); err != nil {
		t.Error(err)
	}
	p.wants("one before fast/db nightly two before fast/db nightly two after fast/db nightly one after fast/db nightly")
	end, err = p.Begin(t.Context(), all[1:2], event)
	if err != nil || end(t.Context()) != nil || p.left() != 0 {
		t.Errorf("without a hook: %v", err)
	}
}

// Where one before fails there is nothing to end: what had begun, and it itself, is ended.
func TestBeforeFails(t *testing.T) {
	p := newPlace(t)
	secret := "DAEMON_SECRET"
	t.Setenv(secret, "hush")
	all := []Hook{
		{Name: "one", Before: p.says("one", ""), After: p.says("one", "exit 7"), Timeout: time.Minute},
		{Name: "two", Before: p.says("two", `echo "no $`+secret+` route"; echo "to host" >&2; exit 3`), After: p.says("two", ""), Timeout: time.Minute},
		{Name: "three", Before: p.says("three", ""), After: p.says("three", ""), Timeout: time.Minute},
	}
	end, err := p.Begin(t.Context(), all, event)
	want := `volume "db": hook "two" before: exit status 3: no route to host`
	if err == nil || end != nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), `volume "db": hook "one" after: exit status 7`) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v, want %s", err, want)
	}
	p.wants("one before fast/db nightly two before fast/db nightly two after fast/db nightly one after fast/db nightly")
}

func TestAfterFails(t *testing.T) {
	p := newPlace(t)
	all := []Hook{
		{Name: "one", After: p.says("one", ""), Timeout: time.Minute},
		{Name: "two", After: p.says("two", "printf '%01000d' 0; exit 1"), Timeout: time.Minute},
	}
	end, err := p.Begin(t.Context(), all, event)
	if err != nil {
		t.Fatal(err)
	}
	err = end(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), `volume "db": hook "two" after: exit status 1: …000`) || len(err.Error()) > 600 {
		t.Errorf("error is %v", err)
	}
	p.wants("two after fast/db nightly one after fast/db nightly")
}

// A command that hangs is ended with all that it started, and what comes after runs in spite of
// it, also when whoever wanted the snapshot has gone.
func TestTimeout(t *testing.T) {
	p := newPlace(t)
	all := []Hook{{Name: "slow", Before: p.says("slow", "sleep 1000 & wait"), After: p.says("slow", ""), Timeout: 200 * time.Millisecond}}
	start := time.Now()
	_, err := p.Begin(t.Context(), all, event)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `hook "slow" before: gave up after 200ms`) {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	p.wants("slow before fast/db nightly slow after fast/db nightly")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	all[0].Timeout = time.Minute
	if _, err := p.Begin(ctx, all, event); !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(p.said(), "slow after fast/db nightly") {
		t.Errorf("%v, %s", err, p.said())
	}
}

// For one volume the second waits until the first has ended; another volume does not wait.
func TestOneAtATime(t *testing.T) {
	p := newPlace(t)
	all := []Hook{{Name: "x", Before: []string{"true"}, Timeout: time.Minute}}
	end, err := p.Begin(t.Context(), all, event)
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.Begin(t.Context(), all, Event{Pool: "fast", Volume: "web"})
	if err != nil || other(t.Context()) != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	manual := Event{Pool: "fast", Volume: "db"}
	if _, err := p.Begin(ctx, all, manual); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	if err := end(t.Context()); err != nil {
		t.Error(err)
	}
	if end, err = p.Begin(t.Context(), all, manual); err != nil || end(t.Context()) != nil {
		t.Error(err)
	}
}

// What a killed daemon has left is ended by the next one.
func TestRecover(t *testing.T) {
	p := newPlace(t)
	all := []Hook{
		{Name: "one", Before: []string{"true"}, After: p.says("one", ""), Timeout: time.Minute},
		{Name: "gone", Before: []string{"true"}, After: p.says("gone", ""), Timeout: time.Minute},
	}
	if _, err := p.Begin(t.Context(), all, event); err != nil { // and killed
		t.Fatal(err)
	}
	if err := os.WriteFile(p.Dir+"/.remora-tmp-x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	next := &Runner{Dir: p.Dir, Log: p.Log, Engines: p.Engines}
	for range 2 {
		done := make(chan struct{})
		next.Recover(t.Context(), func() []Hook { return all[:1] }, func() { close(done) })
		<-done
		p.wants("one after fast/db nightly")
	}
	// One that fails is told, and not tried for ever.
	if _, err := next.Begin(t.Context(), all, event); err != nil {
		t.Fatal(err)
	}
	all[0].After = p.says("one", "exit 1")
	last := &Runner{Dir: p.Dir, Log: p.Log, Engines: p.Engines}
	done := make(chan struct{})
	last.Recover(t.Context(), func() []Hook { return all[:1] }, func() { close(done) })
	<-done
	p.wants("one after fast/db nightly one after fast/db nightly")
}

// Where one that a killed daemon has left fails, the others are run all the same.
func TestRecoverPastOneThatFails(t *testing.T) {
	p := newPlace(t)
	all := []Hook{
		{Name: "one", Before: []string{"true"}, After: p.says("one", ""), Timeout: time.Minute},
		{Name: "two", Before: []string{"true"}, After: p.says("two", "exit 1"), Timeout: time.Minute},
	}
	if _, err := p.Begin(t.Context(), all, event); err != nil { // and killed
		t.Fatal(err)
	}
	next := &Runner{Dir: p.Dir, Log: p.Log, Engines: p.Engines}
	done := make(chan struct{})
	next.Recover(t.Context(), func() []Hook { return all }, func() { close(done) })
	<-done
	p.wants("two after fast/db nightly one after fast/db nightly")
}

// A command that leaves something at work, which holds its output open, has done what it was to do when it ends.
func TestLeavesSomethingAtWork(t *testing.T) {
	p := newPlace(t)
	pid := filepath.Join(t.TempDir(), "pid")
	all := []Hook{{Name: "x", Before: []string{"sh", "-c", "sleep 1000 & echo $! > " + pid}, After: []string{"sh", "-c", "kill $(cat " + pid + ")"}, Timeout: time.Minute}}
	end, err := p.Begin(t.Context(), all, event)
	if err != nil {
		t.Fatal(err)
	}
	if err := end(t.Context()); err != nil {
		t.Error(err)
	}
	all[0].Before[2] += "; exit 3"
	if _, err := p.Begin(t.Context(), all, event); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error is %v", err)
	}
}

func TestWrong(t *testing.T) {
	p := newPlace(t)
	for _, tt := range []struct {
		hook  Hook
		class error
		want  string
	}{
		{Hook{Before: []string{"no-such-program"}}, errdefs.ErrUnavailable, "no-such-program: not installed"},
		{Hook{Before: []string{"/dev/null"}}, nil, "permission denied"},
		{Hook{Before: []string{"x"}, Container: "db"}, errdefs.ErrUnavailable, `no engine here to ask for the container "db"`},
	} {
		tt.hook.Name, tt.hook.Timeout = "x", time.Minute
		_, err := p.Begin(t.Context(), []Hook{tt.hook}, event)
		if err == nil || !strings.Contains(err.Error(), tt.want) || tt.class != nil && !errors.Is(err, tt.class) {
			t.Errorf("error is %v, want %s", err, tt.want)
		}
	}
}

// In a container that is paused a hook cannot run: it is not taken for one that is stopped, whose volume is in order.
func TestPausedContainer(t *testing.T) {
	p := newPlace(t)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	state := "paused"
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `[{"Id":"1","Names":["/x"],"State":"`+state+`","Mounts":[{"Type":"volume","Name":"db","Driver":"fast"}]}]`)
			return
		}
		http.Error(w, `{"message":"Container 1 is paused, unpause the container before exec"}`, http.StatusConflict)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	p.Engines = func() []engine.Engine { return []engine.Engine{{Socket: socket}} }
	all := []Hook{{Name: "x", Before: []string{"true"}, Container: "a=b", Timeout: time.Minute}}
	if _, err := p.Begin(t.Context(), all, event); err == nil || !strings.Contains(err.Error(), "is paused") {
		t.Fatalf("error is %v", err)
	}
	state = "exited"
	if end, err := p.Begin(t.Context(), all, event); err != nil || end(t.Context()) != nil {
		t.Errorf("of one that is stopped: %v", err)
	}
}

func TestIsFor(t *testing.T) {
	manual := Event{Pool: "fast", Volume: "db"}
	for _, tt := range []struct {
		hook      Hook
		scheduled bool
		manual    bool
	}{
		{Hook{}, true, true},
		{Hook{Pools: []string{"slow"}}, false, false},
		{Hook{Pools: []string{"f*"}, Volumes: []string{"web", "d?"}}, true, true},
		{Hook{Schedules: []string{"*"}}, true, false},
		{Hook{Schedules: []string{"hourly"}}, false, false},
	} {
		if tt.hook.IsFor(event) != tt.scheduled || tt.hook.IsFor(manual) != tt.manual {
			t.Errorf("%+v is for %v and %v", tt.hook, tt.hook.IsFor(event), tt.hook.IsFor(manual))
		}
	}
}
