package ebs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// answerForm is how an answer of EC2 begins that is no error.
var answerForm = regexp.MustCompile(`^\s*(<\?xml[^>]*>\s*)?<[A-Za-z]+Response[\s>]`)

var errStranger = errors.New("not an answer of EC2")

// refuseStrangers makes an error of an answer that is not EC2's. The SDK takes any XML, and thus the page on
// which to sign in to a network, for a list with nothing in it.
func refuseStrangers(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("RefuseStrangers", func(
		ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
	) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		resp, ok := out.RawResponse.(*smithyhttp.Response)
		if err != nil || !ok || resp.StatusCode != http.StatusOK {
			return out, metadata, err
		}
		body := bufio.NewReader(cutReader{resp.Body})
		begins, failed := body.Peek(512)
		switch {
		case failed != nil && failed != io.EOF:
			err = failed
		case !answerForm.Match(begins):
			err = &smithyhttp.ResponseError{Response: resp, Err: errStranger}
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{body, resp.Body}
		return out, metadata, err
	}), middleware.After)
}

// cutReader marks what goes wrong on the way, so that a connection that breaks in the middle of an answer is told from
// an answer that makes no sense.
type cutReader struct{ io.Reader }

func (r cutReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil && err != io.EOF {
		err = &cutError{err}
	}
	return n, err
}

type cutError struct{ error }

func (e *cutError) Unwrap() error { return e.error }
