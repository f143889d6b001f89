package authz

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// toRequest makes a Request of what the engine sent. Errors are ErrInvalid.
func toRequest(w *wire.AuthZRequest) (*Request, error) {
	if w.RequestMethod == "" {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "request: no method")
	}
	target, err := parseTarget(w.RequestURI)
	if err != nil {
		return nil, err
	}
	certs, err := toCertificates(w.RequestPeerCertificates)
	if err != nil {
		return nil, err
	}
	return &Request{
		User: w.User, AuthMethod: w.UserAuthNMethod,
		Method: w.RequestMethod, URI: w.RequestURI,
		Path: target.path, Version: target.version, Query: target.query,
		Headers: header(w.RequestHeaders), Body: w.RequestBody, PeerCertificates: certs,
	}, nil
}

func toResponse(w *wire.AuthZRequest) *Response {
	return &Response{Status: w.ResponseStatusCode, Headers: header(w.ResponseHeaders), Body: w.ResponseBody}
}

// header makes a header of the engine's map, in which names that differ in case cannot be.
func header(m map[string]string) http.Header {
	h := make(http.Header, len(m))
	for k, v := range m {
		h.Set(k, v)
	}
	return h
}

func toCertificates(blocks [][]byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for i, b := range blocks {
		block, rest := pem.Decode(b)
		if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "client certificate %d: not one PEM block", i)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "client certificate %d: %w", i, err)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// maxMessage bounds a message to a user in bytes.
const maxMessage = 1024

// userinfo finds the user and password in a URL.
var userinfo = regexp.MustCompile(`://[^/\s"'@]*@`)

// clean makes a text fit to be shown to a user: one line, no control characters, no
// password out of a URL, not too long.
func clean(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	text = userinfo.ReplaceAllString(text, "://REDACTED@")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

// cleanError is an error whose text was cleaned.
type cleanError struct{ error }

func (e *cleanError) Error() string { return clean(e.error.Error()) }
func (e *cleanError) Unwrap() error { return e.error }

// NewRequest makes the Request that an Authorizer would be shown of a method, a target
// such as "/v1.41/containers/json?all=1", and a JSON body, nil for none. It is for tests
// of rules. The error is ErrInvalid.
func NewRequest(method, target string, body []byte) (*Request, error) {
	w := wire.AuthZRequest{RequestMethod: method, RequestURI: target, RequestBody: body}
	if len(body) > 0 {
		w.RequestHeaders = map[string]string{"Content-Type": "application/json", "Content-Length": strconv.Itoa(len(body))}
	}
	return toRequest(&w)
}
