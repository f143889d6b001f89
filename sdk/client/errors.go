package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// Error is what a plugin said when it refused a call.
type Error struct {
	// Plugin and Method are whom the call went to.
	Plugin, Method string
	// Status is the HTTP status; 200 where the text stood in an answer of success.
	Status int
	// Text is the plugin's own text, or the body or the name of the status where it
	// gave none. It is on one line.
	Text string
}

// Error returns the text with plugin and method before it.
func (e *Error) Error() string {
	return fmt.Sprintf("plugin %q: %s: %s", e.Plugin, e.Method, e.Text)
}

// maxText bounds what of a stranger's answer goes into an error, in bytes.
const maxText = 4 << 10

// refused makes an error of an answer. text is the plugin's; where it is empty it is
// looked for in body, as the engine does for a status other than 200.
func (c *Client) refused(method string, status int, class, text string, body ...byte) error {
	own := text != ""
	if !own {
		var e wire.Error
		if decode(body, &e) == nil && e.Err != "" {
			text, own = e.Err, true
		} else {
			text = strings.TrimSpace(string(body[:min(len(body), maxText)]))
		}
	}
	if text == "" {
		text = strings.ToLower(http.StatusText(status))
		if text == "" {
			text = fmt.Sprintf("status %d", status)
		}
	}
	err := &Error{Plugin: c.name, Method: method, Status: status, Text: oneLine(text)}
	if class != "" {
		return errdefs.Named(class, err)
	}
	if class := guess(method, status, own, text); class != nil {
		return errdefs.As(class, err)
	}
	return err
}

// guess finds the class of an error whose plugin does not name one; nil is internal. own
// says that the text is the plugin's, not a web server's.
func guess(method string, status int, own bool, text string) error {
	text = strings.ToLower(text)
	if strings.HasPrefix(method, wire.VolumeDriver+".") && strings.Contains(text, "no such volume") {
		return errdefs.ErrNotFound
	}
	if method == wire.VolumeGet && own {
		for _, s := range []string{"not found", "not exist", "no such", "unknown volume", "doesn't exist"} {
			if strings.Contains(text, s) {
				return errdefs.ErrNotFound
			}
		}
	}
	switch status {
	case http.StatusNotFound:
		if !own {
			return errdefs.ErrUnsupported
		}
	case http.StatusNotImplemented:
		return errdefs.ErrUnsupported
	case http.StatusUnauthorized, http.StatusForbidden:
		return errdefs.ErrDenied
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return errdefs.ErrUnavailable
	case http.StatusGatewayTimeout:
		return context.DeadlineExceeded
	}
	return nil
}

// errorText picks the text that the engine would look at in an answer with status 200.
func errorText(method, err, ipam string) string {
	kind, _, _ := strings.Cut(method, ".")
	switch kind {
	case wire.VolumeDriver, wire.NetworkDriver, "LogDriver":
		return err
	case wire.IpamDriver:
		return ipam
	}
	return ""
}

// transport gives an error of the connection its class, and takes the URL out of its
// text: the address says the same. caller is the context of the whole call, attempt the
// one of this attempt alone.
func transport(caller, attempt context.Context, err error) error {
	if caller.Err() != nil {
		return errdefs.As(caller.Err(), context.Cause(caller))
	}
	if attempt.Err() != nil {
		return &lost{context.Cause(attempt)}
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the plugin closed the connection without an answer: %w", err)
	}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	err = &lost{err}
	switch {
	case untrusted:
		err = errdefs.Hint(err, "the plugin's certificate must lead to CAFile and be for the host in its address")
	case errors.Is(err, syscall.ECONNREFUSED):
		err = errdefs.Hint(err, "nothing listens there: start the plugin, or remove the file that it left behind")
	case errors.Is(err, syscall.ENOENT):
		err = errdefs.Hint(err, "the socket is gone: start the plugin")
	case errors.Is(err, syscall.EACCES):
		return errdefs.Hint(errdefs.As(errdefs.ErrDenied, err), "run this as root, or as a user who may write to the socket")
	}
	return errdefs.As(errdefs.ErrUnavailable, err)
}

// lost marks an error in whose place no answer came.
type lost struct{ error }

func (e *lost) Unwrap() error { return e.error }

// noAnswer says whether err is of the sort after which an engine tries again.
func noAnswer(err error) bool {
	_, ok := errors.AsType[*lost](err)
	return ok
}

// oneLine folds a text onto one line, and bounds it.
func oneLine(text string) string {
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + " …"
	}
	return strings.Join(strings.Fields(text), " ")
}
