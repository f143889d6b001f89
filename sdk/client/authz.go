package client

import (
	"context"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// AuthZ calls the methods of an authorization plugin. An engine gives these calls no limit
// of time; set [Options].Timeout, or end the context.
type AuthZ struct{ c *Client }

// AuthZ returns the calls of an authorization plugin. Whether the plugin is one, Activate
// says.
func (c *Client) AuthZ() AuthZ { return AuthZ{c} }

// APIRequest is a request to an engine's API as the engine describes it to an
// authorization plugin. What is empty is not sent.
type APIRequest struct {
	// User is the name in the client's certificate, AuthMethod "TLS" where there is one.
	User, AuthMethod string
	// Method and URI are those of the request line.
	Method, URI string
	// Headers has one value for each, the last.
	Headers map[string]string
	// Body is a JSON body; engines keep other bodies to themselves.
	Body []byte
	// PeerCertificates are the client's certificates, a PEM block each.
	PeerCertificates [][]byte
}

// APIResponse is the engine's answer to an [APIRequest].
type APIResponse struct {
	Status  int
	Headers map[string]string
	Body    []byte
}

// Request asks whether a request may be carried out. A denial is ErrDenied, its text the
// plugin's message. Any other error denies as well: an engine lets nothing pass that was
// not allowed.
func (a AuthZ) Request(ctx context.Context, r APIRequest) error {
	return a.ask(ctx, wire.AuthZReq, r, APIResponse{})
}

// Response asks whether the answer to r may go out. Errors are those of Request.
func (a AuthZ) Response(ctx context.Context, r APIRequest, answer APIResponse) error {
	return a.ask(ctx, wire.AuthZRes, r, answer)
}

func (a AuthZ) ask(ctx context.Context, method string, r APIRequest, answer APIResponse) error {
	resp, err := call[wire.AuthZResponse](ctx, a.c, method, wire.AuthZRequest{
		User: r.User, UserAuthNMethod: r.AuthMethod, RequestMethod: r.Method, RequestURI: r.URI, RequestBody: r.Body,
		RequestHeaders: r.Headers, RequestPeerCertificates: r.PeerCertificates,
		ResponseStatusCode: answer.Status, ResponseHeaders: answer.Headers, ResponseBody: answer.Body,
	}, nil)
	if err != nil {
		return err
	}
	if !resp.Allow {
		// These are the engine's words to the user.
		return errdefs.Errorf(errdefs.ErrDenied, "authorization denied by plugin %s: %s", a.c.name, oneLine(resp.Msg))
	}
	return nil
}
