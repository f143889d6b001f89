package ebs

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// signer signs requests. That of the SDK remembers a secret by the ID of its key alone, and would go on
// with a wrong one after it was put right.
type signer struct {
	mu     sync.Mutex
	secret string
	of     *v4.Signer
}

// SignHTTP implements [ec2.HTTPSignerV4].
func (s *signer) SignHTTP(
	ctx context.Context, c aws.Credentials, r *http.Request, payloadHash, service, region string, at time.Time, opts ...func(*v4.SignerOptions),
) error {
	return s.with(c.SecretAccessKey).SignHTTP(ctx, c, r, payloadHash, service, region, at, opts...)
}

func (s *signer) with(secret string) *v4.Signer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || s.secret != secret {
		s.of, s.secret = v4.NewSigner(), secret
	}
	return s.of
}
