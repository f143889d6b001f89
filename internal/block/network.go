package block

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Unanswered is the error of a request to a cloud that got no answer: what happened, and what a person
// can look at. where says what was asked for; way is what leads there from a machine of the cloud
// which has no address on the internet, empty where nothing does.
func Unanswered(where, way string, err error) error {
	var text string
	hint := "the connection was cut, which happens, and it is asked again; where it happens all the time, look at what stands between: a firewall, a proxy"
	op, _ := errors.AsType[*net.OpError](err)
	dns, isName := errors.AsType[*net.DNSError](err)
	_, isJSON := errors.AsType[*json.SyntaxError](err)
	certificate, isTLS := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case isName && dns.IsNotFound:
		text, hint = "there is no host "+dns.Name, "is the name right, of the region or in endpoint?"
	case isName:
		text, hint = "the address of "+dns.Name+" cannot be looked up: "+dns.Err, "the name server of this host (/etc/resolv.conf) does not answer as it should"
	case isTLS:
		text, hint = "the certificate is not believed: "+certificate.Err.Error(), distrust(certificate.Err)
	case isJSON:
		return Stranger(fmt.Errorf("%s: the answer is none of the cloud's", where))
	case op != nil:
		text, hint = op.Error(), cmp.Or(unreached(op, way), hint)
	default:
		text = innermost(err).Error()
		if timeout, ok := errors.AsType[interface {
			error
			Timeout() bool
		}](err); ok && timeout.Timeout() {
			hint = noRoute(way)
		}
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s: %s", where, Short(errdefs.OneLine(text))), hint)
}

func noRoute(way string) string {
	hint := "is there a way from this host to the cloud's API? Look at its route, the firewall, and the proxy of the daemon (HTTPS_PROXY)"
	if way != "" {
		hint += "; a machine without an address on the internet needs " + way
	}
	return hint
}

func unreached(op *net.OpError, way string) string {
	switch {
	case op.Op == "proxyconnect":
		return "the proxy of the daemon (HTTPS_PROXY) does not answer"
	case errors.Is(op, syscall.ECONNREFUSED):
		return "nobody listens at that address: is endpoint right?"
	case errors.Is(op, syscall.ENETUNREACH), errors.Is(op, syscall.EHOSTUNREACH), errors.Is(op, syscall.ENETDOWN), op.Timeout(), errors.Is(op, os.ErrDeadlineExceeded):
		return noRoute(way)
	}
	return ""
}

// distrust says what may be wrong where a certificate is not believed.
func distrust(err error) string {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "compare the clock of this host with the right time: " + time.Now().UTC().Format(time.RFC3339) + " is what it shows"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "another server answers: is endpoint right?"
	}
	return "another server answers, or a proxy that looks into what passes: is endpoint right, and is the authority of the certificate among those that this host trusts?"
}

// innermost is what lies below all that says where it happened.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// Stranger is the error of an answer that is not the cloud's: of a proxy, or of the sign-in page of
// some network.
func Stranger(err error) error {
	return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "somebody else answers: is endpoint right, and does a proxy (HTTPS_PROXY) stand between?")
}

// Skew tells how far the clock of this host is off, by the date of an answer; empty where it is right,
// or nothing is known. Clouds refuse what is signed with a wrong time, and say something else.
func Skew(h http.Header) string {
	at, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return ""
	}
	off := time.Since(at).Round(time.Second)
	switch {
	case off > minSkew:
		return "the clock of this host is " + off.String() + " ahead of the cloud's: put it right"
	case off < -minSkew:
		return "the clock of this host is " + (-off).String() + " behind the cloud's: put it right"
	}
	return ""
}

// minSkew is how far a clock may be off, and how old an answer, before anybody is told.
const minSkew = time.Minute
