package runtime

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// ear is a log of which only one word is kept: that it was there.
type ear struct {
	word  string
	heard atomic.Bool
}

func (e *ear) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(e.word)) {
		e.heard.Store(true)
	}
	return len(p), nil
}

// inTime fails the test where something takes too long, and ends the plugin's processes for it to end.
func (l *lab) inTime(t *testing.T, what, id string, do func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		t.Errorf("%s takes too long", what)
		dirs, _ := cgroupDirs(cgroupOf(id))
		for _, pid := range cgroupPids(dirs) {
			_ = killPid(pid)
		}
		return <-done
	}
}

// TestFlood: a plugin that writes without end holds up neither its own start and stop nor what others say.
func TestFlood(t *testing.T) {
	l := newLab(t)
	noErr(t, os.MkdirAll(l.dir+"/plugins", 0o755))
	hears := &ear{word: "a quiet word"}
	opts := l.options()
	opts.Logger = slog.New(slog.NewTextHandler(hears, nil))
	r, err := Open(opts)
	noErr(t, err)
	r.limits = fast()
	r.limits.ready = time.Second
	defer func() {
		for _, id := range l.ids() {
			if err := l.inTime(t, "a stop", id, func() error { return r.Stop(context.WithoutCancel(t.Context()), id, time.Second) }); err != nil {
				t.Error(err)
			}
		}
		noErr(t, r.Close())
		l.clean(t)
	}()
	never := l.plugin(t, "never:latest", "MODE=flood")
	wants(t, l.inTime(t, "a start", never.ID, func() error { return r.Start(t.Context(), never) }), "did not listen", "its last words: ", "y")
	r.limits.ready = 5 * time.Second
	loud, quiet := l.plugin(t, "loud:latest"), l.plugin(t, "quiet:latest")
	loud.Config.PidHost = true // its other processes outlive the first
	noErr(t, r.Start(t.Context(), loud))
	noErr(t, r.Start(t.Context(), quiet))
	l.caller("loud").get(t, "flood")
	time.Sleep(100 * time.Millisecond)
	l.caller("quiet").get(t, "print?n=1&text=a+quiet+word")
	until(t, "what the quiet one says", hears.heard.Load)
}

// TestBurst: of what is written too fast the last is kept.
func TestBurst(t *testing.T) {
	l := newLab(t)
	o, err := openOutput(l.dir+"/out", l.options().Logger, maxLog)
	noErr(t, err)
	defer o.close()
	stdout, stderr, err := o.ends()
	noErr(t, err)
	defer stdout.Close()
	defer stderr.Close()
	_, err = stdout.WriteString(strings.Repeat("y\n", 5*maxBurst) + "the last\n")
	noErr(t, err)
	o.drain()
	lines, err := readLog(o.dir, 1)
	noErr(t, err)
	if len(lines) != 1 || lines[0].Text != "the last" {
		t.Errorf("got %+v", lines)
	}
	if n := strings.Count(l.log.String(), "\n"); n < maxBurst || n > 2*maxBurst {
		t.Errorf("%d lines were read", n)
	}
	if !strings.Contains(l.log.String(), "are left out") {
		t.Error("that something was left out is not told")
	}
}

// TestAdoptReads: what a plugin wrote while no daemon was there is read without a further word of it.
func TestAdoptReads(t *testing.T) {
	l := newLab(t)
	first := l.open(t)
	p := l.plugin(t, "alone:latest")
	noErr(t, first.Start(t.Context(), p))
	noErr(t, first.Close())
	l.caller("alone").get(t, "print?n=1&text=nobody+hears")
	second := l.open(t)
	noErr(t, second.Adopt(t.Context(), []Plugin{p}))
	until(t, "what it said", func() bool { return strings.Contains(l.log.String(), "nobody hears") })
}
