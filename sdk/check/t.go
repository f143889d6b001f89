package check

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// T is one run of one case: the engine's end of the wire, and what it has made. Its methods
// that call the plugin end the case where a call fails that must not.
type T struct {
	p      *Plugin
	id     string
	c      *client.Client
	ctx    context.Context //nolint:containedctx // that of the case, which T is
	cancel context.CancelFunc

	mu       sync.Mutex
	result   Result
	last     Evidence // the last exchange
	lost     bool     // an exchange had no answer
	volumes  []*made
	networks []*madeNetwork
	pools    []string
	undo     []func(context.Context) // what else a case has to undo
}

// ended is what a case panics with to end itself.
type ended struct{}

func newT(ctx context.Context, p *Plugin, c Case) *T {
	t := &T{p: p, id: c.ID, result: c.result(Pass)}
	going, give := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(p.options.Grace):
			give()
		case <-going.Done():
		}
	})
	var end context.CancelFunc
	t.ctx, end = context.WithTimeoutCause(going, p.options.Timeout,
		errdefs.Errorf(context.DeadlineExceeded, "the case was not over within %s", p.options.Timeout))
	t.cancel = func() { stop(); end(); give() }
	limit := callTime
	if c.Kind == Volume {
		limit = 0 // as long as an engine waits
	}
	var err error
	t.c, err = client.New(p.endpoint, client.Options{Observe: t.observe, Timeout: limit})
	if err != nil { // Open has made one
		panic(err)
	}
	return t
}

// do runs a case up to its end.
func (t *T) do(run func(*T)) {
	defer t.cancel()
	defer func() {
		switch v := recover().(type) {
		case nil, ended:
		default:
			panic(v)
		}
	}()
	run(t)
}

// observe keeps the last exchange for a reason that may come.
func (t *T) observe(x client.Exchange) {
	e := Evidence{Method: x.Method, Request: t.shown(x.Request), Status: x.Status, Answer: t.shown(x.Answer)}
	if x.Err != nil {
		e.Error = t.p.hide(errdefs.OneLine(x.Err.Error()))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last, t.lost = e, t.lost || x.Err != nil
}

// maxShown bounds what is shown of a body, in bytes.
const maxShown = 1000

// shown returns a body as it is fit for a report.
func (t *T) shown(body []byte) string {
	text := string(body)
	if len(text) > maxShown {
		text = fmt.Sprintf("%s… (%d bytes)", text[:maxShown], len(body))
	}
	return t.p.hide(strings.TrimSpace(strings.ToValidUTF8(text, "\ufffd")))
}

// Errorf says what is wrong with the plugin. An error that is wrapped by %w is one of a call:
// no answer at all, or none that can be read, makes the plugin broken.
func (t *T) Errorf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.result.Outcome == Skipped {
		return
	}
	cause := errors.Unwrap(err)
	if errors.Is(cause, context.Canceled) {
		t.result.Outcome, t.result.Reasons = Skipped, []string{"interrupted"}
		return
	}
	if t.result.Outcome != Broken {
		t.result.Outcome = Fail
	}
	if unanswered(cause) {
		t.result.Outcome = Broken
	}
	const enough = 10
	if len(t.result.Reasons) == enough {
		return
	}
	t.result.Reasons = append(t.result.Reasons, t.p.hide(errdefs.OneLine(err.Error())))
	if t.last.Method != "" {
		t.result.Evidence = append(t.result.Evidence, t.last)
	}
}

// Fatalf is Errorf, and ends the case.
func (t *T) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	panic(ended{})
}

// Skipf ends the case without a result, unless it has failed already.
func (t *T) Skipf(format string, args ...any) {
	t.mu.Lock()
	if t.result.Outcome == Pass {
		t.result.Outcome, t.result.Reasons = Skipped, []string{fmt.Sprintf(format, args...)}
	}
	t.mu.Unlock()
	panic(ended{})
}

// must ends the case where err is one.
func (t *T) must(what string, err error) {
	if err != nil {
		t.Fatalf("%s: %w", what, err)
	}
}

// local ends the case where this host, and not the plugin, is in the way.
func (t *T) local(what string, err error) {
	if err != nil {
		t.Skipf("%s: %v", what, err)
	}
}

// here ends the case where the plugin's files cannot be seen.
func (t *T) here() {
	if t.p.away {
		t.Skipf("the plugin's files and interfaces cannot be seen from here")
	}
}

// hex returns n hexadecimal digits that are the run's own and the same for the same words.
func (t *T) hex(n int, words ...any) string {
	sum := sha256.Sum256([]byte(fmt.Sprint(append([]any{t.p.run, t.id}, words...)...)))
	return (t.p.run + hex.EncodeToString(sum[:]))[:n]
}

// gaveUp tells whether a call may have been given up before it was answered.
func (t *T) gaveUp() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.result.Outcome == Broken || t.lost
}

// cleanUp undoes what the case has made, whatever became of the case and of ctx.
func (t *T) cleanUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
	defer cancel()
	clean, err := client.New(t.p.endpoint, client.Options{Timeout: callTime})
	if err != nil {
		panic(err) // newT has made one
	}
	defer func() { _ = clean.Close() }() // returns nil
	_ = t.c.Close()                      // returns nil
	for _, undo := range slices.Backward(t.undo) {
		undo(ctx)
	}
	t.removeAll(ctx, clean)
	if t.gaveUp() && len(t.volumes)+len(t.networks) > 0 {
		time.Sleep(settleTime) // what the plugin was at work on is there by then
		t.result.Left = nil
		t.removeAll(ctx, clean)
	}
}

// settleTime is how long after a call that was given up its work is looked for.
const settleTime = time.Second

func (t *T) removeAll(ctx context.Context, clean *client.Client) {
	for _, v := range t.volumes {
		v.remove(ctx, clean.Volume(), t)
	}
	for _, n := range t.networks {
		n.remove(ctx, clean.Network(), t)
	}
	for _, id := range t.pools {
		if err := clean.IPAM().ReleasePool(ctx, id); unanswered(err) {
			t.left("pool " + id)
		}
	}
}

func (t *T) left(what string) { t.result.Left = append(t.result.Left, what) }
