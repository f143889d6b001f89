package authz

import (
	"mime"
	"net/http"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// need says what a route does with a body.
type need int

const (
	// needsBody: the meaning of the request lies in a JSON body.
	needsBody need = iota
	// noBody: the engine reads none.
	noBody
	// unseen: the engine reads a stream that it does not pass on, or a JSON body that most
	// clients leave out. An authorizer has to decide without it.
	unseen
	// secret: a login, whose body and answer are nobody's business.
	secret
)

// bodyRoutes says what routes with the methods POST, PUT and PATCH do with a body; the
// first that fits counts. What is not here needs a body: engines get new routes, and
// to guess that one has none is to wave the next privileged mode through. The list is that
// of the routers below moby api/server/router, v20.10 to v29.
var bodyRoutes = []struct {
	pattern string
	need    need
}{
	{"POST /auth", secret},
	{"POST /build", unseen},
	{"POST /build/cancel", noBody},
	{"POST /build/prune", noBody},
	{"POST /commit", unseen},
	{"POST /containers/create", needsBody},
	{"POST /containers/prune", noBody},
	{"PUT /containers/*/archive", unseen},
	{"POST /containers/*/attach", noBody},
	{"POST /containers/*/kill", noBody},
	{"POST /containers/*/pause", noBody},
	{"POST /containers/*/rename", noBody},
	{"POST /containers/*/resize", noBody},
	{"POST /containers/*/restart", noBody},
	{"POST /containers/*/start", noBody},
	{"POST /containers/*/stop", noBody},
	{"POST /containers/*/unpause", noBody},
	{"POST /containers/*/wait", noBody},
	{"POST /exec/*/resize", noBody},
	{"POST /grpc", unseen},
	{"POST /images/create", noBody}, // the import of a stream is in bodyNeed
	{"POST /images/load", unseen},
	{"POST /images/prune", noBody},
	{"POST /images/*/push", unseen},
	{"POST /images/*/tag", noBody},
	{"POST /networks/prune", noBody},
	{"POST /plugins/create", unseen},
	{"POST /plugins/*/disable", noBody},
	{"POST /plugins/*/enable", noBody},
	{"POST /plugins/*/push", unseen},
	{"POST /session", unseen},
	{"POST /swarm/leave", noBody},
	{"POST /volumes/prune", noBody},
}

// bodyNeed returns what the engine will do with a body of r.
func bodyNeed(r *Request) need {
	if !readsForms(r.Method) {
		return noBody
	}
	// Before API 1.24 the start of a container could bring a whole HostConfig.
	if olderThan(r.Version, 24) && r.Match("POST /containers/*/start") {
		return needsBody
	}
	if r.Query.Get("fromSrc") == "-" && r.Match("POST /images/create") {
		return unseen
	}
	for _, e := range bodyRoutes {
		if r.Match(e.pattern) {
			return e.need
		}
	}
	return needsBody
}

// readsForms says for which methods net/http, and with it an engine, looks into the body
// for what else comes as query parameters.
func readsForms(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// checkBody decides, before the authorizer is asked, about a request whose body is not
// what the engine will read. It sets BodyMissing and removes the body of a login.
func (h *Handler) checkBody(r *Request) error {
	need := bodyNeed(r)
	if need == secret {
		r.Body, r.BodyMissing = nil, true
		return nil
	}
	kind, length := r.Headers.Get("Content-Type"), r.Headers.Get("Content-Length")
	media, _, err := mime.ParseMediaType(kind)
	if err != nil {
		media = "" // to the engine too, an unreadable type is none
	}
	if len(r.Body) > 0 {
		if need == needsBody && media != "application/json" {
			return errdefs.Errorf(errdefs.ErrDenied, "content type %.64q: this request needs application/json", kind)
		}
		return h.checkKeys(r)
	}
	if media == "application/x-www-form-urlencoded" && length != "0" && readsForms(r.Method) {
		return errdefs.Errorf(errdefs.ErrDenied,
			"a form in the body takes the place of query parameters and is not shown to plugins; send them in the URL")
	}
	// A chunked body has no length, and no sign of it but that it has a type.
	hidden := length != "" && length != "0" || length == "" && kind != "" && readsForms(r.Method)
	r.BodyMissing = hidden || need != noBody
	if !r.BodyMissing || need == unseen {
		return nil
	}
	if h.opts.AllowMissingBody != nil && h.opts.AllowMissingBody(r) {
		return nil
	}
	if need == noBody {
		return errdefs.Errorf(errdefs.ErrDenied, "this request takes no body, and one that is not shown to plugins came with it; send Content-Length: 0")
	}
	return errdefs.Errorf(errdefs.ErrDenied,
		"the engine did not pass on the body of this request, so nobody can tell what it asks for (is it application/json, not chunked, and below 1 MiB?)")
}

// checkKeys denies a body that is not one JSON value, or that says a thing twice.
func (h *Handler) checkKeys(r *Request) error {
	keys, err := r.DuplicateKeys()
	if err != nil {
		return err
	}
	if len(keys) > 0 && !h.opts.AllowDuplicateKeys {
		return errdefs.Errorf(errdefs.ErrDenied, "body: key %.128q is there more than once", strings.Join(keys, `", "`))
	}
	return nil
}
