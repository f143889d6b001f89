package gcepd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// metadata is the server that tells an instance about itself.
type metadata struct {
	*http.Client
	address string
}

// metadataLimit bounds a look at it, which is on the same machine.
const metadataLimit = 5 * time.Second

// metadataAddress is where it is, for Google's own tools as well.
func metadataAddress() string { return cmp.Or(os.Getenv("GCE_METADATA_HOST"), "169.254.169.254") }

func newMetadata(address string) metadata {
	return metadata{&http.Client{Timeout: metadataLimit, Transport: &http.Transport{DisableKeepAlives: true}}, address} // never by a proxy
}

var (
	errNoMetadata = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the metadata server of the instance does not answer"),
		"the daemon has to run on an instance of Compute Engine; elsewhere say project, zone, instance and keyfile in the pool")
	errUnknown = errdefs.Errorf(errdefs.ErrNotFound, "the metadata server of the instance does not know")
)

const strange = "is it that of Google? GCE_METADATA_HOST may lead elsewhere"

// get asks for one value.
func (m metadata) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.address+"/computeMetadata/v1/"+path, nil)
	if err != nil {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "GCE_METADATA_HOST: %q is no address", m.address)
	}
	req.Header.Set("Metadata-Flavor", "Google")
	resp, err := m.Do(req)
	if err != nil {
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
			return "", context.Cause(ctx)
		}
		return "", errNoMetadata
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil || resp.Header.Get("Metadata-Flavor") != "Google": // of somebody else, such as a captive portal
		return "", errNoMetadata
	case resp.StatusCode == http.StatusNotFound:
		return "", errUnknown
	case resp.StatusCode != http.StatusOK:
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the metadata server of the instance answers %d", resp.StatusCode), strange)
	}
	return strings.TrimSpace(string(body)), nil
}

// Self returns which instance this is. It is asked once.
func (p *provider) Self(ctx context.Context) (block.Host, error) {
	p.mu.Lock()
	known := p.self
	p.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	if p.c.Instance != "" {
		return block.Host{ID: p.c.Zone + "/" + p.c.Instance, Zone: p.c.Zone}, nil
	}
	var got [3]string
	for i, path := range []string{"instance/name", "instance/zone", "project/project-id"} {
		var err error
		if got[i], err = p.host.get(ctx, path); err != nil {
			return block.Host{}, err
		}
	}
	zone := last(got[1])
	if got[2] != p.c.Project {
		return block.Host{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "this instance is of project %s, and the pool of %s", got[2], p.c.Project),
			"disks are attached within a project; take a key file and project of this one")
	}
	self := block.Host{ID: zone + "/" + got[0], Zone: zone}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.self = &self
	return self, nil
}

// tokens are those of the instance's account.
type tokens struct {
	host metadata

	mu      sync.Mutex
	token   *oauth2.Token
	refused bool // the token before this one was
}

// tokenPath is that of the account that the instance was started with.
const tokenPath = "instance/service-accounts/default/token"

// Token returns one that is good for a while. [oauth2.TokenSource] has no context; the metadata
// server answers at once or never.
func (t *tokens) Token() (*oauth2.Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token.Valid() {
		return t.token, nil
	}
	text, err := t.host.get(context.Background(), tokenPath) //nolint:forbidigo // there is none to take from the caller
	if errors.Is(err, errUnknown) {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "there is no keyfile, and the instance has no account"),
			"start the instance with a service account and the access scope compute, or give the pool a keyfile")
	}
	if err != nil {
		return nil, err
	}
	var answer struct {
		Token   string `json:"access_token"`
		Type    string `json:"token_type"`
		Expires int64  `json:"expires_in"`
	}
	if json.Unmarshal([]byte(text), &answer) != nil || answer.Token == "" {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the metadata server of the instance gives no token"), strange)
	}
	t.token = &oauth2.Token{AccessToken: answer.Token, TokenType: answer.Type, Expiry: time.Now().Add(time.Duration(answer.Expires) * time.Second)}
	return t.token, nil
}

// renew forgets a token that was refused, and tells whether another one is worth a try.
func (t *tokens) renew() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	again := !t.refused
	t.token, t.refused = nil, true
	return again
}

// served notes that a token is good.
func (t *tokens) served() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused = false
}
