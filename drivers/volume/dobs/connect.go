package dobs

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// ownRate is how many requests a second are made of DigitalOcean's own API at the most, whatever
// the pool says: it takes 250 in a minute.
const ownRate = 4

// connect makes the provider of a pool. Nobody is asked.
func connect(ctx context.Context, c config, log *slog.Logger, more ...func(*provider)) (*provider, error) {
	for _, word := range c.fromREXRay(os.Getenv) {
		log.InfoContext(ctx, "a variable of REX-Ray is set", slog.String("what", word))
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	t, err := c.readToken(os.Getenv)
	if err != nil {
		return nil, err
	}
	rate := c.Rate
	options := []godo.ClientOpt{godo.SetUserAgent("remora")}
	if c.Endpoint == "" {
		rate = min(rate, ownRate)
	} else {
		options = append(options, godo.SetBaseURL(c.Endpoint))
	}
	do, err := godo.New(&http.Client{Transport: t, CheckRedirect: noRedirect}, options...)
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, `key "endpoint": not a URL such as https://api.digitalocean.com`)
	}
	p := &provider{
		c: c, t: traits(), token: t, do: do, client: block.NewClient(c.account(t), rate), host: newMetadata(),
		written: map[string]written{}, tags: map[string]bool{}, turn: make(chan struct{}, 1), moves: map[string]move{},
		warn: func(ctx context.Context, left, limit int, until time.Time) {
			log.WarnContext(ctx, "the account has few requests left, of all who use it; after them it has to wait",
				slog.Int("left", left), slog.Int("of", limit), slog.Time("until", until))
		},
	}
	p.t.Client, p.t.Check = p.client, checkSpec
	for _, change := range more {
		change(p)
	}
	return p, nil
}

// noRedirect keeps the token from being sent elsewhere.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// token is what requests are signed with.
type token struct {
	file string

	mu    sync.Mutex
	value string
}

func (t *token) get() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.value
}

// read reads the file.
func (t *token) read() error {
	value, err := readFile(t.file)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.value = value
	t.mu.Unlock()
	return t.check()
}

func (t *token) check() error {
	if !tokenForm.MatchString(t.get()) {
		return errdefs.Errorf(errdefs.ErrInvalid, "the token (not shown) is not one: it is empty, or has blanks in it")
	}
	return nil
}

// changed reads the file again, and tells whether there is another token in it.
func (t *token) changed() bool {
	was := t.get()
	return t.file != "" && t.read() == nil && t.get() != was
}

// RoundTrip makes a request with the token.
func (t *token) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+t.get())
	return http.DefaultTransport.RoundTrip(r)
}

// metadata is the service that tells a droplet about itself.
type metadata struct {
	url  string
	http *http.Client
}

// metadataLimit bounds a look at the metadata service, which is on the same machine.
const metadataLimit = 5 * time.Second

func newMetadata() metadata {
	return metadata{"http://169.254.169.254", &http.Client{
		Timeout: metadataLimit, CheckRedirect: noRedirect, Transport: &http.Transport{DisableKeepAlives: true}, // never by a proxy
	}}
}

// Self returns which droplet this is.
func (p *provider) Self(ctx context.Context) (block.Host, error) {
	p.mu.Lock()
	if p.c.Droplet != 0 {
		p.self = &block.Host{ID: strconv.FormatInt(p.c.Droplet, 10), Zone: p.c.Region}
	}
	known := p.self
	p.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	self, err := p.host.self(ctx)
	if err != nil {
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
			return block.Host{}, context.Cause(ctx)
		}
		return block.Host{}, errdefs.Hint(err, "the daemon has to run on a droplet; where it cannot reach 169.254.169.254, write droplet and region into the pool")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.self = &self
	return self, nil
}

func (m metadata) self(ctx context.Context) (block.Host, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+"/metadata/v1.json", nil)
	if err != nil {
		return block.Host{}, err
	}
	resp, err := m.http.Do(req)
	if err != nil {
		return block.Host{}, errdefs.Errorf(errdefs.ErrUnavailable, "the metadata service of the droplet does not answer")
	}
	defer resp.Body.Close()
	var d struct {
		ID     int64  `json:"droplet_id"`
		Region string `json:"region"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(body, &d) != nil || d.ID == 0 || d.Region == "" {
		return block.Host{}, errdefs.Errorf(errdefs.ErrUnavailable, "the metadata service of the droplet answers %d, and not which droplet this is", resp.StatusCode)
	}
	return block.Host{ID: strconv.FormatInt(d.ID, 10), Zone: d.Region}, nil
}
