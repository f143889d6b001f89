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
		body := bufio.NewReader(resp.Body)
		if begins, _ := body.Peek(512); !answerForm.Match(begins) {
			err = &smithyhttp.ResponseError{Response: resp, Err: errStranger}
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{body, resp.Body}
		return out, metadata, err
	}), middleware.After)
}
