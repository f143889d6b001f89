package ebs

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// renewEarly is how long before their end credentials are renewed that have one. The
// metadata service has new ones five minutes before.
const renewEarly = 2 * time.Minute

// metadataLimit bounds a look at the metadata service, which is on the same machine.
const metadataLimit = 5 * time.Second

// connect reads the credentials and makes the provider of a pool. EC2 is not asked; the metadata
// service is only where nothing else says which region it is.
func connect(ctx context.Context, c config, log *slog.Logger, more ...func(*imds.Options)) (*provider, error) {
	for _, use := range c.fromREXRay(os.Getenv) {
		log.InfoContext(ctx, "a variable of REX-Ray is used", slog.String("variable", use))
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	host := newMetadata(more...)
	all, known, err := load(ctx, c, host)
	if err != nil {
		return nil, err
	}
	if all.Region == "" {
		if all.Region, err = host.region(ctx); err != nil {
			return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "which region it is cannot be found out: %w", err), `write region = "…" into the pool`)
		}
	}
	p := &provider{
		c: c, t: traits(), tags: c.ownTags(), creds: all.Credentials, host: host,
		making: map[string]*making{}, vanishedFor: longGone, absent: map[string]time.Time{}, client: block.NewClient(c.account(all.Region), c.Rate),
	}
	p.names.dev = c.Dev
	p.noteOwner(known)
	p.t.Client, p.t.Scope, p.t.Region, p.t.Check = p.client, "region "+all.Region, all.Region, c.checkSpec(all.Region)
	p.c.Region = all.Region
	p.ec2 = ec2.NewFromConfig(all, func(o *ec2.Options) {
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
		}
		o.HTTPSignerV4, o.HTTPClient = &signer{}, patient{o.HTTPClient}
		o.APIOptions = append(o.APIOptions, refuseStrangers)
	})
	return p, nil
}

// load reads the configuration of AWS as its own tools do, with what the pool says before it, and the
// credentials as far as nobody has to be asked for them.
func load(ctx context.Context, c config, host metadata) (all aws.Config, known aws.Credentials, err error) {
	opts := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithLogger(logging.Nop{}),
		// To try again is the core's, which tells what takes so long and when to give up.
		awsconfig.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		awsconfig.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = renewEarly }),
		awsconfig.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = host.Client }),
	}
	if c.Region != "" {
		opts = append(opts, awsconfig.WithRegion(c.Region))
	}
	if c.Profile != "" {
		opts = append(opts, awsconfig.WithSharedConfigProfile(c.Profile))
	}
	if c.CredentialsFile != "" {
		opts = append(opts, awsconfig.WithSharedCredentialsFiles([]string{c.CredentialsFile}))
		if c.Profile == "" {
			opts = append(opts, awsconfig.WithSharedConfigProfile("default"))
		}
	}
	if c.AccessKey != "" {
		opts = append(opts, awsconfig.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey.Reveal(), c.SessionToken.Reveal())))
	}
	all, err = awsconfig.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		text, _, _ := strings.Cut(errdefs.OneLine(err.Error()), "\n")
		return all, known, errdefs.Errorf(errdefs.ErrInvalid, "the configuration of AWS: %s", text)
	}
	known = fixed(ctx, all.Credentials)
	if c.CredentialsFile != "" || c.Profile != "" { // which people change
		all.Credentials = aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
			now, err := awsconfig.LoadDefaultConfig(ctx, opts...)
			if err != nil {
				return aws.Credentials{}, err
			}
			return now.Credentials.Retrieve(ctx)
		}), func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = renewEarly })
	}
	return all, known, nil
}

// fixed returns credentials that are known without asking anybody.
func fixed(ctx context.Context, creds aws.CredentialsProvider) aws.Credentials {
	if !aws.IsCredentialsProvider(creds, (*credentials.StaticCredentialsProvider)(nil)) {
		return aws.Credentials{}
	}
	now, err := creds.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}
	}
	return now
}

// noteOwner notes whose credentials are used now. Those of a session change by the hour and say nothing.
func (p *provider) noteOwner(now aws.Credentials) {
	if now.SessionToken != "" {
		now.AccessKeyID = ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owner = now.AccessKeyID
}

// Owner returns the key, where it is one that stays.
func (p *provider) Owner() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.owner
}

// metadata is the service that tells an instance about itself, in its second version alone.
type metadata struct{ *imds.Client }

func newMetadata(more ...func(*imds.Options)) metadata {
	o := imds.Options{
		EnableFallback: aws.FalseTernary, Endpoint: os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
		HTTPClient: &http.Client{Timeout: metadataLimit, Transport: &http.Transport{DisableKeepAlives: true}}, // never by a proxy
	}
	if strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		o.ClientEnableState = imds.ClientDisabled
	}
	return metadata{imds.New(o, more...)}
}

func (m metadata) region(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, metadataLimit, errNoMetadata)
	defer cancel()
	out, err := m.GetRegion(ctx, nil)
	if err != nil {
		return "", m.explain(ctx, err)
	}
	return out.Region, nil
}

var errNoMetadata = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the metadata service of the instance does not answer"),
	"the daemon has to run on an instance of EC2; in a container it needs a hop limit of 2: aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2 --instance-id …")

const strange = "is it that of EC2? AWS_EC2_METADATA_SERVICE_ENDPOINT may lead elsewhere"

// explain says what an error of the metadata service means.
func (m metadata) explain(ctx context.Context, err error) error {
	resp, answered := errors.AsType[*smithyhttp.ResponseError](err)
	switch {
	case answered && resp.HTTPStatusCode() == http.StatusNotFound:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the metadata service of the instance does not know"), strange)
	case answered && resp.HTTPStatusCode() == http.StatusForbidden:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the metadata service of the instance is turned off"),
			"aws ec2 modify-instance-metadata-options --http-endpoint enabled --instance-id …")
	case answered:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the metadata service of the instance answers %d", resp.HTTPStatusCode()), strange)
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled):
		return context.Cause(ctx)
	}
	return errNoMetadata
}

// instance is the machine that the daemon runs on.
type instance struct {
	block.Host
	kind string // such as t3.micro
}

// Self returns which instance this is.
func (p *provider) Self(ctx context.Context) (block.Host, error) {
	i, err := p.here(ctx)
	return i.Host, err
}

// here is Self with what else is known. It is asked once.
func (p *provider) here(ctx context.Context) (instance, error) {
	p.mu.Lock()
	known := p.self
	p.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, metadataLimit, errNoMetadata)
	defer cancel()
	out, err := p.host.GetInstanceIdentityDocument(ctx, nil)
	if err != nil {
		return instance{}, p.host.explain(ctx, err)
	}
	i := instance{block.Host{ID: out.InstanceID, Zone: out.AvailabilityZone}, out.InstanceType}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.self = &i
	return i, nil
}

// xenFamilies are the types of instance that show a disk as a device of Xen, which has no serial:
// nothing on it says which disk it is. Those of bare metal are of Nitro all the same.
var xenFamilies = strings.Fields("t1 t2 m1 m2 m3 m4 c1 c3 c4 cc1 cc2 cg1 cr1 r3 r4 x1 x1e d2 h1 hi1 hs1 i2 i3 f1 g2 g3 g3s p2 p3")

func isXen(kind string) bool {
	family, size, _ := strings.Cut(kind, ".")
	return slices.Contains(xenFamilies, family) && !strings.HasPrefix(size, "metal")
}

// refuseXen says why no disk can be attached to an instance.
func (i instance) refuseXen() error {
	if !isXen(i.kind) {
		return nil
	}
	err := errdefs.Errorf(errdefs.ErrUnsupported, "instance %s is a %s, which shows disks without a serial, so that none can be told from another", i.ID, i.kind)
	return errdefs.Hint(err, "change it to a type that is built on Nitro, such as t3, m5 or anything newer")
}
