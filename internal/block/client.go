package block

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Client is what all pools of one account share: how fast they may ask, and the counts of what
// they asked. Every request to the cloud goes through its [Client.Do] or its
// [Client.Transport], not through both.
type Client struct {
	account string

	mu     sync.Mutex
	rate   float64 // tokens a second
	tokens float64
	at     time.Time // when tokens was right
	closed time.Time // no request before, since the cloud said so
	wait   time.Duration
	counts map[countKey]int
	lost   int

	line    []*place // who waits, by number
	numbers uint64   // that were given away
}

type countKey struct{ op, result string }

// Count is how often an operation was asked for, and came to a result: "ok", "throttled", or
// the class of the error.
type Count struct {
	Account, Op, Result string
	N                   int
}

// lose counts a volume that was taken from this host while it was mounted.
func (c *Client) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost++
}

// Lost returns, by account, how many volumes were taken from this host while they were mounted.
func Lost() map[string]int {
	clients.Lock()
	defer clients.Unlock()
	all := map[string]int{}
	for _, c := range clients.all {
		c.mu.Lock()
		all[c.account] = c.lost
		c.mu.Unlock()
	}
	return all
}

// clients are those of this process, by account.
var clients struct {
	sync.Mutex
	all map[string]*Client
}

// burst is how many requests may come at once, as a multiple of the rate.
const burst = 5

// NewClient returns the client of an account, the same for all who ask for it. account says
// whose it is, such as "ebs eu-west-1 AKIA…", and holds no secret; rate is in requests a
// second, of which the lowest that was asked for counts.
func NewClient(account string, rate int) *Client {
	clients.Lock()
	defer clients.Unlock()
	if c, ok := clients.all[account]; ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.rate = min(c.rate, float64(rate))
		return c
	}
	if clients.all == nil {
		clients.all = map[string]*Client{}
	}
	c := &Client{account: account, rate: float64(rate), tokens: burst * float64(rate), at: time.Now(), counts: map[countKey]int{}}
	clients.all[account] = c
	return c
}

// Counts returns what all clients of this process have asked for.
func Counts() []Count {
	clients.Lock()
	defer clients.Unlock()
	var all []Count
	for _, c := range clients.all {
		all = append(all, c.Counts()...)
	}
	return all
}

// Counts returns what was asked for.
func (c *Client) Counts() []Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Count, 0, len(c.counts))
	for k, n := range c.counts {
		all = append(all, Count{c.account, k.op, k.result, n})
	}
	slices.SortFunc(all, func(a, b Count) int { return strings.Compare(a.Op+" "+a.Result, b.Op+" "+b.Result) })
	return all
}

// throttled is an answer that says "too many requests".
type throttled struct {
	error
	after time.Duration
}

func (e *throttled) Unwrap() []error { return []error{e.error, errdefs.ErrUnavailable} }

// Throttled marks an error as one that says "too many requests". after is when the cloud wants
// to be asked again, 0 where it does not say. The class is ErrUnavailable.
func Throttled(err error, after time.Duration) error { return &throttled{err, after} }

// The waits after a throttled request of which the cloud does not say how long: each twice the one
// before.
const (
	firstWait = 500 * time.Millisecond
	lastWait  = 30 * time.Second
)

// Do makes one request: f, when there is room for it, and those that came before have had theirs. One
// that is [Throttled] is made again until ctx ends, keeps its place, and holds up all others of the
// account meanwhile.
func (c *Client) Do(ctx context.Context, op string, f func(ctx context.Context) error) error {
	number := c.number()
	for {
		if err := c.admit(ctx, number); err != nil {
			return err
		}
		err := f(ctx)
		t, slow := errors.AsType[*throttled](err)
		if !slow {
			c.count(op, result(err))
			c.recovered()
			return err
		}
		c.count(op, "throttled")
		c.slow(t.after)
	}
}

// result is the class of an error as it is counted.
func result(err error) string {
	if err == nil {
		return "ok"
	}
	return errdefs.Name(err)
}

// maxClosed is how long a cloud is believed that it wants no requests: longer than any counts for.
const maxClosed = time.Hour

func (c *Client) isClosed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Until(c.closed)
}

// slow keeps all requests back.
func (c *Client) slow(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wait = min(max(2*c.wait, firstWait), lastWait)
	if after <= 0 {
		after = c.wait/2 + rand.N(c.wait/2+1)
	}
	after = min(after, maxClosed)
	if until := time.Now().Add(after); until.After(c.closed) {
		c.closed = until
	}
	c.tokens = min(c.tokens, 1)
}

func (c *Client) recovered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wait = 0
}

func (c *Client) count(op, result string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[countKey{op, result}]++
}

// Transport returns an [http.RoundTripper] that makes requests by base when there is room for
// them, and counts them by what op makes of each. An answer 429, or 503 with a Retry-After,
// holds up all others of the account; to ask again is left to who asked, as an SDK does.
// isThrottle, which may be nil, knows other answers of the kind; it must leave the body to be
// read.
func (c *Client) Transport(base http.RoundTripper, op func(*http.Request) string, isThrottle func(*http.Response) bool) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if err := c.admit(r.Context(), c.number()); err != nil {
			return nil, err
		}
		name := op(r)
		resp, err := base.RoundTrip(r)
		if err != nil {
			c.count(name, "unavailable")
			return nil, err
		}
		after := retryAfter(resp)
		switch {
		case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable && after > 0,
			isThrottle != nil && isThrottle(resp):
			c.count(name, "throttled")
			c.slow(after)
		case resp.StatusCode >= 400:
			c.count(name, strconv.Itoa(resp.StatusCode))
		default:
			c.count(name, "ok")
			c.recovered()
		}
		return resp, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// retryAfter reads the header Retry-After (RFC 9110, 10.2.3), or RateLimit-Reset where nothing
// remains.
func retryAfter(resp *http.Response) time.Duration {
	text := resp.Header.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	if resp.StatusCode == http.StatusTooManyRequests {
		if at, err := strconv.ParseInt(resp.Header.Get("RateLimit-Reset"), 10, 64); err == nil {
			return min(max(time.Until(time.Unix(at, 0)), 0), time.Minute)
		}
	}
	return 0
}
