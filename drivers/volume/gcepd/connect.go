package gcepd

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"
	googleopt "google.golang.org/api/option"
	googlehttp "google.golang.org/api/transport/http"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// keyFile is what of a key file is of use here. The rest is for the SDK.
type keyFile struct {
	Type    string `json:"type"`
	Project string `json:"project_id"`
	Email   string `json:"client_email"`
}

// keyTypes are the kinds of key files that the SDK reads.
var keyTypes = []googleopt.CredentialsType{
	googleopt.ServiceAccount, googleopt.AuthorizedUser, googleopt.ImpersonatedServiceAccount, googleopt.ExternalAccount,
}

func readKey(text []byte, from string) (k keyFile, err error) {
	// What it says is never shown: it may be a key in another form.
	if json.Unmarshal(text, &k) != nil || !slices.Contains(keyTypes, googleopt.CredentialsType(k.Type)) {
		return k, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%s: this is not a key of Google, in JSON", from), "gcloud iam service-accounts keys create FILE --iam-account ACCOUNT makes one")
	}
	return k, nil
}

// connect reads the credentials and makes the provider of a pool. Compute Engine is not asked; the
// metadata server is only where nothing else says which project it is.
func connect(ctx context.Context, c config, log *slog.Logger, metadata string) (*provider, error) {
	used, err := c.fromREXRay(os.Getenv)
	if err != nil {
		return nil, err
	}
	for _, variable := range used {
		log.InfoContext(ctx, "a variable of REX-Ray is used", slog.String("variable", variable))
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	p := &provider{c: c, t: traits(), host: newMetadata(metadata), pending: map[string]pending{}, seen: map[string]labelled{}}
	text, from, err := c.credentials()
	if err != nil {
		return nil, err
	}
	who, opts := "the instance's account", []googleopt.ClientOption{googleopt.WithScopes(compute.ComputeScope), googleopt.WithUserAgent("remora")}
	var key keyFile
	if text != nil {
		if key, err = readKey(text, from); err != nil {
			return nil, err
		}
		who = cmp.Or(key.Email, key.Type+" of "+from)
		opts = append(opts, googleopt.WithAuthCredentialsJSON(googleopt.CredentialsType(key.Type), text))
	} else {
		p.tokens = &tokens{host: p.host}
		opts = append(opts, googleopt.WithTokenSource(p.tokens))
	}
	if p.c.Project = cmp.Or(c.Project, key.Project); p.c.Project == "" {
		if p.c.Project, err = p.host.get(ctx, "project/project-id"); err != nil {
			return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "which project it is cannot be found out: %w", err), `write project = "…" into the pool`)
		}
	}
	p.base = http.DefaultTransport.(*http.Transport).Clone()
	rt, err := googlehttp.NewTransport(ctx, p.base, opts...)
	if err != nil { // the text of the SDK's may have the key in it
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s: the key cannot be used", cmp.Or(from, "the account of the instance"))
	}
	more := []googleopt.ClientOption{googleopt.WithHTTPClient(&http.Client{Transport: rt})}
	if c.Endpoint != "" {
		more = append(more, googleopt.WithEndpoint(c.Endpoint))
	}
	if p.api, err = compute.NewService(ctx, more...); err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "the API of Compute Engine: %s", errdefs.OneLine(err.Error()))
	}
	account := strings.TrimSpace("gcepd " + p.c.Project + " " + who + " " + c.Endpoint)
	p.t.Client, p.t.Scope, p.t.Check = block.NewClient(account, c.Rate), "project "+p.c.Project, p.c.checkSpec
	return p, nil
}
