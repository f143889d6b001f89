package registry

import (
	"errors"
	"net"
	"net/http"
	"time"

	"oras.land/oras-go/v2/registry/remote/retry"
)

// retried is the library's way of trying again, but for registries that cannot be connected to: six times ten seconds end in
// nothing but silence, of which nobody learns what is wrong.
func retried(base http.RoundTripper) http.RoundTripper {
	policy := &retry.GenericPolicy{Retryable: retryable, Backoff: retry.DefaultBackoff, MinWait: 200 * time.Millisecond, MaxWait: 3 * time.Second, MaxRetry: 5}
	return &retry.Transport{Base: base, Policy: func() retry.Policy { return policy }}
}

func retryable(resp *http.Response, err error) (bool, error) {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return false, err
	}
	return retry.DefaultPredicate(resp, err)
}
