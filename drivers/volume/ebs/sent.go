package ebs

import (
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// patient is an HTTP client that takes an answer also when it comes while the request is still being ended. The SDK closes
// the body of a request as soon as there is an answer, and a body that is closed and has a WriteTo fails with EOF (smithy-go,
// transport/http/internal/io, safeWriteToReadCloser): net/http then drops the connection with the answer on it.
// Without that method the body is at its end, as it is meant to be.
type patient struct{ ec2.HTTPClient }

func (p patient) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return p.HTTPClient.Do(r)
	}
	plain := *r
	plain.Body = struct {
		io.Reader
		io.Closer
	}{r.Body, r.Body}
	return p.HTTPClient.Do(&plain)
}
