// Package registry brings plugins from registries to the store of managed plugins, and back. It
// believes nothing that a registry says: what is read is bounded, and hashed before it is used; a
// registry that falls silent is given up.
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	oras "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Limits of time. A registry that answers at all begins to within the second, and one that sends
// goes on sending. When it has all of a blob it may have to carry it to where it keeps it.
const (
	dialTime   = 10 * time.Second
	stallTime  = 60 * time.Second
	commitTime = 10 * time.Minute
)

// mediaTypeList is docker's word for an index.
const mediaTypeList = "application/vnd.docker.distribution.manifest.list.v2+json"

// Options say how registries are spoken to. The zero value will do.
type Options struct {
	// Insecure are registries, by host, host:port or CIDR, whose certificates are not looked at, and
	// that may speak plain HTTP. Those on the loopback interface always may.
	Insecure []string
	// UserAgent is sent with each request.
	UserAgent string
	// Stall is how long a registry may send nothing in the middle of a blob; 0 is a minute.
	Stall time.Duration
}

// Client speaks with registries. Its methods may be called from any goroutine.
type Client struct {
	stall            time.Duration
	agent            string
	hosts            map[string]bool
	nets             []netip.Prefix
	secure, insecure *http.Client
	probe            *http.Client

	mu    sync.Mutex
	safe  map[string]bool          // which insecure registries speak TLS
	small map[digest.Digest][]byte // manifests and configs that were looked at last
}

// New makes a client.
func New(o Options) (*Client, error) {
	c := &Client{
		stall: o.Stall, agent: o.UserAgent, hosts: map[string]bool{},
		safe: map[string]bool{}, small: map[digest.Digest][]byte{},
	}
	if c.stall == 0 {
		c.stall = stallTime
	}
	if c.agent == "" {
		c.agent = "remora"
	}
	for _, i := range o.Insecure {
		if !strings.Contains(i, "/") {
			c.hosts[i] = true
			continue
		}
		p, err := netip.ParsePrefix(i)
		if err != nil {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "insecure registry %q: neither a host nor a CIDR", i)
		}
		c.nets = append(c.nets, p)
	}
	secure, insecure := transport(), transport()
	insecure.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the user named this registry
	c.secure = &http.Client{Transport: retried(secure)}
	c.insecure = &http.Client{Transport: retried(insecure)}
	c.probe = &http.Client{Transport: insecure}
	return c, nil
}

func transport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSHandshakeTimeout: dialTime,
		IdleConnTimeout:     time.Minute,
		MaxIdleConnsPerHost: 4,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true, // digests are of what is sent
	}
}

// lax says whether a registry may be insecure.
func (c *Client) lax(registry string) bool {
	host := registry
	if h, _, err := net.SplitHostPort(registry); err == nil {
		host = h
	}
	if c.hosts[registry] || c.hosts[host] || host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return false
	}
	if ip.IsLoopback() {
		return true
	}
	for _, n := range c.nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// repository returns the client of one repository, for one user.
func (c *Client) repository(ctx context.Context, ref reference.Reference, a Auth) (*remote.Repository, error) {
	client := &auth.Client{
		Client: c.secure, Cache: auth.NewCache(),
		Header:     http.Header{"User-Agent": {c.agent}},
		Credential: func(context.Context, string) (auth.Credential, error) { return a.credential(), nil },
	}
	repo := &remote.Repository{
		Client:    client,
		Reference: oras.Reference{Registry: ref.Registry(), Repository: ref.Path()},
		ManifestMediaTypes: []string{
			store.MediaTypeManifest, mediaTypeList, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		},
		MaxMetadataBytes: store.MaxManifest,
	}
	if c.lax(ref.Registry()) {
		client.Client = c.insecure
		client.BlockedRealmPrefixes = []netip.Prefix{} // it may well have its tokens from beside it
		var err error
		repo.PlainHTTP, err = c.speaksPlain(ctx, ref.Registry())
		if err != nil {
			return nil, err
		}
	}
	return repo, nil
}

// scope adds what docker's registry calls the right to a plugin, which is another than that to an image.
func scope(ctx context.Context, ref reference.Reference, actions string) context.Context {
	return auth.AppendScopes(ctx, "repository(plugin):"+ref.Path()+":"+actions)
}

// speaksPlain finds out whether an insecure registry speaks plain HTTP. One that did is asked again: it may be given a
// certificate while the daemon runs.
func (c *Client) speaksPlain(ctx context.Context, registry string) (bool, error) {
	ctx, watch := c.watch(ctx)
	defer watch.stop()
	c.mu.Lock()
	known := c.safe[registry]
	c.mu.Unlock()
	if known {
		return false, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+registry+"/v2/", nil)
	if err != nil {
		return false, errdefs.As(errdefs.ErrInvalid, err)
	}
	resp, err := c.probe.Do(req)
	if err == nil {
		_ = resp.Body.Close() // that it came is all
	}
	_, isTLS := errors.AsType[tls.RecordHeaderError](err)
	plain := isTLS || errors.Is(err, http.ErrSchemeMismatch)
	if err != nil && !plain {
		return false, trim(ctx, err)
	}
	if !plain {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.safe[registry] = true
	}
	return plain, nil
}

// explain gives an error of a registry its class and one line.
func explain(ctx context.Context, doing string, ref reference.Reference, err error) error {
	err = fmt.Errorf("%s: %s: %w", doing, ref, trim(ctx, err))
	if _, silent := errors.AsType[silence](err); silent {
		return unreached(ctx, ref.Registry(), err)
	}
	if errdefs.Class(err) != nil {
		return err
	}
	login := "docker login"
	if r := ref.Registry(); r != "docker.io" {
		login += " " + r
	}
	if resp, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		switch resp.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return errdefs.Hint(errdefs.As(errdefs.ErrDenied, err), login)
		case http.StatusNotFound:
			return errdefs.As(errdefs.ErrNotFound, err)
		}
		return errdefs.As(errdefs.ErrUnavailable, err)
	}
	switch {
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return errdefs.Hint(errdefs.As(errdefs.ErrDenied, err), login)
	case errors.Is(err, errdef.ErrNotFound):
		return errdefs.As(errdefs.ErrNotFound, err)
	}
	return unreached(ctx, ref.Registry(), errdefs.As(errdefs.ErrUnavailable, err))
}

// unreached tells a person what to do about a registry that could not be asked.
func unreached(ctx context.Context, registry string, err error) error {
	if ctx.Err() != nil {
		return err // who asked has given up
	}
	host := oras.Reference{Registry: registry}.Host()
	_, badCert := errors.AsType[*tls.CertificateVerificationError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	_, noName := errors.AsType[*net.DNSError](err)
	switch {
	case badCert:
		return errdefs.Hint(err, "have this host trust who signed its certificate, or name it in plugins.insecure_registries, and restart the daemon")
	case noTLS || errors.Is(err, http.ErrSchemeMismatch):
		return errdefs.Hint(err, "it speaks no TLS: name it in plugins.insecure_registries, and restart the daemon")
	case noName:
		return errdefs.Hint(err, "look at the spelling, and whether this host can look it up: getent hosts "+hostname(host))
	}
	return errdefs.Hint(err, "see whether this host reaches it: curl -v https://"+host+"/v2/; a proxy is that of the daemon's environment, HTTPS_PROXY")
}

// hostname leaves the port out.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

// trim takes from an error what the caller says better, and the address of a request, which may hold
// a signature.
func trim(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, errdef.ErrNotFound) {
		return errdef.ErrNotFound
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	if resp, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		return &status{resp}
	}
	if err == nil {
		return nil
	}
	if text := query.ReplaceAllString(err.Error(), "$1"); text != err.Error() {
		return unsigned{err, text}
	}
	return err
}

// query is what follows the path of an address in a text: where a registry sends one on to a store of objects it holds a
// signature, by which everybody may read.
var query = regexp.MustCompile(`(https?://[^\s"?]+)\?[^\s"]*`)

// unsigned is an error without the signatures in its text.
type unsigned struct {
	error
	text string
}

func (u unsigned) Error() string { return u.text }

func (u unsigned) Unwrap() error { return u.error }

// status is an answer that is an error, in one line.
type status struct{ *errcode.ErrorResponse }

func (s *status) Error() string {
	said := []string{fmt.Sprintf("the registry answers %d %s", s.StatusCode, http.StatusText(s.StatusCode))}
	for _, e := range s.Errors {
		if e.Message != "" {
			said = append(said, e.Message)
		}
	}
	text := errdefs.OneLine(strings.Join(said, ": "))
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

func (s *status) Unwrap() error { return s.ErrorResponse }

// maxText bounds what an error quotes of a registry's words.
const maxText = 500

// read reads a manifest or config of at most max bytes, and checks it.
func (c *Client) read(ctx context.Context, desc ocispec.Descriptor, maxSize int64, fetch func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)) ([]byte, error) {
	if err := desc.Digest.Validate(); err != nil || desc.Digest.Algorithm() != digest.SHA256 {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "digest %q: it is no sha256", desc.Digest)
	}
	if desc.Size < 0 || desc.Size > maxSize {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "blob %s: longer than %d KiB", desc.Digest, maxSize>>10)
	}
	c.mu.Lock()
	data, ok := c.small[desc.Digest]
	c.mu.Unlock()
	if ok {
		return data, nil
	}
	ctx, watch := c.watch(ctx)
	defer watch.stop()
	body, err := fetch(ctx, desc)
	if err != nil {
		return nil, trim(ctx, err)
	}
	defer body.Close()
	data, err = io.ReadAll(io.LimitReader(watch.reader(body), desc.Size+1))
	if err != nil {
		return nil, trim(ctx, err)
	}
	if int64(len(data)) != desc.Size || digest.FromBytes(data) != desc.Digest {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "blob %s: what came has %d bytes and the digest %s", desc.Digest, len(data), digest.FromBytes(data))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.small) >= 32 {
		clear(c.small)
	}
	if len(data) <= 256<<10 {
		c.small[desc.Digest] = data
	}
	return data, nil
}
