package cinder

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// microversion is what is asked of Cinder: to extend what is in use came with 3.42 (Pike, 2017).
const microversion = "3.42"

// auth is how to log in, and where.
type auth struct {
	opts     gophercloud.AuthOptions
	endpoint gophercloud.EndpointOpts
}

// session is the project, logged in.
type session struct {
	volumes, compute *gophercloud.ServiceClient
	noCompute        error // why there is no compute
}

// newProvider reads the credentials. The cloud is not asked: it may be away when the daemon starts.
func newProvider(ctx context.Context, c config, log *slog.Logger) (*provider, error) {
	for _, use := range c.fromEnvironment(os.Getenv) {
		log.InfoContext(ctx, "a variable of the environment is used", slog.String("variable", use))
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	p := &provider{c: c, t: traits(), metadata: metadataURL, gate: make(chan struct{}, 1)}
	var conf *tls.Config
	var err error
	if p.auth, conf, err = c.auth(); err != nil {
		return nil, err
	}
	p.http = http.Client{Timeout: requestLimit, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
	}}
	p.client = block.NewClient(p.auth.account(), c.Rate)
	p.t.Client, p.t.Check, p.t.Scope = p.client, p.c.checkSpec, p.auth.scope()
	return p, nil
}

// requestLimit bounds each request, also where nothing else does.
const requestLimit = time.Minute

// auth makes of the pool's keys, and the clouds.yaml that they name, what gophercloud takes.
func (c *config) auth() (a auth, conf *tls.Config, err error) {
	if c.Cloud != "" {
		if a, conf, err = c.fromClouds(); err != nil {
			return a, nil, err
		}
	} else {
		a.opts = c.options()
		a.endpoint = gophercloud.EndpointOpts{Availability: c.availability()}
	}
	if c.Region != "" {
		a.endpoint.Region = c.Region
	}
	// A token cannot be had again; for all else the password is kept.
	a.opts.AllowReauth = a.opts.TokenID == ""
	if conf == nil {
		conf = &tls.Config{}
	}
	conf.MinVersion = tls.VersionTLS12
	if c.Insecure {
		conf.InsecureSkipVerify = true //nolint:gosec // it was asked for
	}
	if c.CAFile != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return a, nil, errdefs.Errorf(errdefs.ErrInvalid, `key "ca_file": %w`, err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return a, nil, errdefs.Errorf(errdefs.ErrInvalid, `key "ca_file": there is no certificate in %s`, c.CAFile)
		}
		conf.RootCAs = pool
	}
	return a, conf, nil
}

// options are what the pool's own keys say.
func (c *config) options() gophercloud.AuthOptions {
	o := gophercloud.AuthOptions{
		IdentityEndpoint: c.AuthURL, Username: c.UserName, UserID: c.UserID, Password: c.Password.Reveal(), TokenID: c.Token.Reveal(),
		ApplicationCredentialID: c.AppCredID, ApplicationCredentialName: c.AppCredName, ApplicationCredentialSecret: c.AppCredSecret.Reveal(),
	}
	name, id := c.DomainName, c.DomainID
	if name == "" && id == "" {
		id = "default" // as OpenStack's own tools have it
	}
	if o.Username != "" {
		o.DomainName, o.DomainID = name, id
	}
	switch {
	case c.TrustID != "":
		o.Scope = &gophercloud.AuthScope{TrustID: c.TrustID}
	case c.ProjectID != "":
		o.Scope = &gophercloud.AuthScope{ProjectID: c.ProjectID}
	case c.ProjectName != "":
		o.Scope = &gophercloud.AuthScope{ProjectName: c.ProjectName, DomainName: c.ProjectDomain, DomainID: c.ProjectDomainID}
		if c.ProjectDomain == "" && c.ProjectDomainID == "" {
			o.Scope.DomainName, o.Scope.DomainID = name, id
		}
	}
	return o
}

// yamlLine is all that is said of an error of YAML, whose text may have a password in it.
var yamlLine = regexp.MustCompile(`line \d+`)

// fromClouds reads a clouds.yaml.
func (c *config) fromClouds() (a auth, conf *tls.Config, err error) {
	opts := []clouds.ParseOption{
		clouds.WithCloudName(c.Cloud), clouds.WithUsername(c.UserName), clouds.WithUserID(c.UserID), clouds.WithPassword(c.Password.Reveal()),
		clouds.WithIdentityEndpoint(c.AuthURL), clouds.WithProjectID(c.ProjectID), clouds.WithProjectName(c.ProjectName), clouds.WithRegion(c.Region),
		clouds.WithDomainName(c.DomainName), clouds.WithDomainID(c.DomainID), clouds.WithToken(c.Token.Reveal()),
		clouds.WithApplicationCredentialID(c.AppCredID), clouds.WithApplicationCredentialSecret(c.AppCredSecret.Reveal()),
	}
	if c.CloudsFile != "" {
		opts = append(opts, clouds.WithLocations(c.CloudsFile))
	}
	if c.Interface != "public" {
		opts = append(opts, clouds.WithEndpointType(c.Interface))
	}
	a.opts, a.endpoint, conf, err = clouds.Parse(opts...)
	if err != nil {
		why := errdefs.OneLine(err.Error())
		if strings.Contains(why, "yaml: ") {
			why = "the file is not YAML as it should be, " + yamlLine.FindString(why)
		}
		return a, nil, errdefs.Errorf(errdefs.ErrInvalid, `key "cloud": %q: %s`, c.Cloud, why)
	}
	if a.opts.IdentityEndpoint == "" {
		return a, nil, errdefs.Errorf(errdefs.ErrInvalid, `key "cloud": %q has no auth_url in clouds.yaml`, c.Cloud)
	}
	if c.TrustID != "" {
		a.opts.Scope = &gophercloud.AuthScope{TrustID: c.TrustID}
	}
	return a, conf, nil
}

// account says whose requests are counted together, without a secret.
func (a auth) account() string {
	who := a.opts.ApplicationCredentialID + a.opts.ApplicationCredentialName
	if who == "" {
		who = strings.TrimSpace(a.opts.Username + a.opts.UserID + " " + a.project())
	}
	return strings.Join([]string{"cinder", a.opts.IdentityEndpoint, a.endpoint.Region, who}, " ")
}

// project is what the pool calls it.
func (a auth) project() string {
	s := a.opts.Scope
	if s == nil {
		return a.opts.TenantName + a.opts.TenantID
	}
	if s.TrustID != "" {
		return "trust " + s.TrustID
	}
	return s.ProjectName + s.ProjectID
}

// scope says in errors where it was looked.
func (a auth) scope() string {
	where := "at " + a.opts.IdentityEndpoint
	if a.endpoint.Region != "" {
		where = "region " + a.endpoint.Region
	}
	if project := a.project(); project != "" {
		where += ", project " + project
	}
	return where
}

// login returns the session, and makes it if there is none. What expires is had again by
// gophercloud. Who was refused is not asked again at once: Keystone may lock the user out.
func (p *provider) login(ctx context.Context) (*session, error) {
	select {
	case p.gate <- struct{}{}:
		defer func() { <-p.gate }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	switch {
	case p.session != nil:
		return p.session, nil
	case p.refused != nil && time.Now().Before(p.until):
		return nil, p.refused
	}
	var s *session
	err := p.client.Do(ctx, "Login", func(ctx context.Context) error {
		pc, err := openstack.NewClient(p.auth.opts.IdentityEndpoint)
		if err != nil {
			return p.explain(ctx, "Login", err)
		}
		pc.HTTPClient = p.http
		pc.UserAgent.Prepend("remora")
		if err := openstack.Authenticate(ctx, pc, p.auth.opts); err != nil {
			return p.explain(ctx, "Login", err)
		}
		s, err = p.locate(pc)
		return p.explain(ctx, "Login", err)
	})
	if err != nil {
		p.refused = nil
		if definite(err) {
			p.refused, p.until = err, time.Now().Add(retryLogin)
		}
		return nil, err
	}
	p.session, p.refused = s, nil
	return s, nil
}

// retryLogin is how long a login that was refused is not tried again.
const retryLogin = 10 * time.Second

// locate finds the services in the catalogue.
func (p *provider) locate(pc *gophercloud.ProviderClient) (*session, error) {
	if p.auth.endpoint.Region == "" {
		if all := regions(pc); len(all) > 1 {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, `key "region" is missing: the catalogue has Cinder in %s`, strings.Join(all, ", "))
		}
	}
	volumes, err := openstack.NewBlockStorageV3(pc, p.auth.endpoint)
	if err != nil {
		return nil, fmt.Errorf("cinder: %w", err)
	}
	volumes.Microversion = microversion
	s := &session{volumes: volumes}
	s.compute, s.noCompute = openstack.NewComputeV2(pc, p.auth.endpoint)
	return s, nil
}

// regions returns where the catalogue has Cinder.
func regions(pc *gophercloud.ProviderClient) (all []string) {
	got, ok := pc.GetAuthResult().(interface {
		ExtractServiceCatalog() (*tokens.ServiceCatalog, error)
	})
	if !ok {
		return nil
	}
	catalog, err := got.ExtractServiceCatalog()
	if err != nil {
		return nil
	}
	for _, service := range catalog.Entries {
		if service.Type != "volumev3" && service.Type != "block-storage" && service.Type != "block-store" {
			continue
		}
		for _, e := range service.Endpoints {
			if !slices.Contains(all, e.Region) {
				all = append(all, e.Region)
			}
		}
	}
	slices.Sort(all)
	return all
}
