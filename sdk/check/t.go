package check

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

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
	recent   []exchange // the last exchanges
	lost     bool       // an exchange had no answer
	volumes  []*made
	networks []*madeNetwork
	pools    []*madePool
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

// exchange is one that was seen, for a reason that may come.
type exchange struct {
	Evidence
	err  error // no answer came
	says bool  // the answer has the text of an error
}

// observe keeps the last exchanges.
func (t *T) observe(c client.Exchange) {
	var e struct{ Err, Error string }
	_ = decode(string(c.Answer[:min(len(c.Answer), maxRead)]), &e) // what is no object has no text
	x := exchange{Evidence{Method: c.Method, Request: t.shown(c.Request), Status: c.Status, Answer: t.shown(c.Answer)}, c.Err, e.Err+e.Error != ""}
	if c.Err != nil {
		x.Error = t.p.fit(errdefs.OneLine(c.Err.Error()))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	const enough = 100 // more than there are calls at once
	if len(t.recent) == enough {
		t.recent = slices.Delete(t.recent, 0, 1)
	}
	t.recent, t.lost = append(t.recent, x), t.lost || c.Err != nil
}

// evidence is the exchange that err tells of, which is not the last one where several calls
// were made at once. With no such error it is the last one.
func (t *T) evidence(err error) (e Evidence) {
	refused, _ := errors.AsType[*client.Error](err)
	for _, x := range slices.Backward(t.recent) {
		switch {
		case err == nil:
		case refused == nil && (x.err == nil || !errors.Is(err, x.err)):
			continue
		case refused != nil && (x.err != nil || x.Method != refused.Method || x.Status != refused.Status || x.Status == http.StatusOK && !x.says):
			continue
		}
		return x.Evidence
	}
	if err != nil {
		return t.evidence(nil)
	}
	return e
}

// maxShown bounds what is shown of a body, and maxRead what is looked at for that, in bytes.
const (
	maxShown = 1000
	maxRead  = 16 << 10
)

// shown returns a body as it is fit for a report.
func (t *T) shown(body []byte) string {
	text := t.p.fit(string(body[:min(len(body), maxRead)]))
	if len(body) > maxRead || len(text) > maxShown {
		text = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(text[:min(len(text), maxShown)], ""), len(body))
	}
	return strings.TrimSpace(text)
}

// fit makes a stranger's text fit for a terminal: without secrets, and without what moves
// the cursor.
func (p *Plugin) fit(text string) string {
	return p.hide(strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return -1
		case unicode.IsControl(r) && r != '\n' && r != '\t':
			return '\ufffd'
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd")))
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
	t.result.Reasons = append(t.result.Reasons, t.p.fit(errdefs.OneLine(err.Error())))
	if len(t.recent) > 0 {
		t.result.Evidence = append(t.result.Evidence, t.evidence(cause))
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
	return t.lost
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
	for _, p := range t.pools {
		p.remove(ctx, clean.IPAM(), t)
	}
}

// left notes what err has kept from being removed.
func (t *T) left(what string, err error) {
	t.result.Left = append(t.result.Left, t.p.fit(fmt.Sprintf("%s (%s)", what, errdefs.OneLine(err.Error()))))
}

// notThere are words in which plugins say that something does not exist.
var notThere = []string{"no such", "not found", "not exist", "doesn't exist", "unknown volume", "unknown network", "unknown pool", "does not have", "not find", "no volume"}

// saysGone tells whether an error says that what it is about is not there.
func saysGone(err error) bool {
	if errors.Is(err, errdefs.ErrNotFound) {
		return true
	}
	return slices.ContainsFunc(notThere, func(words string) bool { return strings.Contains(strings.ToLower(err.Error()), words) })
}

// remains tells whether an error to remove something says that it is there still. made says
// that it was there for certain: what was only tried to be made need not be.
func remains(err error, made bool) bool {
	return err != nil && (unanswered(err) || made && !saysGone(err))
}
