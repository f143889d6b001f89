package gce

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/test/cloud/fake"
)

// The scopes that let a caller do anything here, and the one that lets it look only.
var (
	writeScopes = []string{"https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/compute"}
	readScope   = "https://www.googleapis.com/auth/compute.readonly"
)

const (
	// tokenLife is how long a token is good.
	tokenLife = time.Hour
	// audience is that of a token that a client signed itself.
	audience = "https://compute.googleapis.com/"
	// skew is how far a client's clock may be off.
	skew = 5 * time.Minute
)

// account is a service account and its only key.
type account struct {
	email, keyID string
	key          *rsa.PublicKey
	tokenURL     string
}

// grant is what a token stands for.
type grant struct {
	scopes []string
	until  time.Time
}

// ServiceAccount adds an account that may do everything, and returns its key file. Tokens
// are had at tokenURL, which is where the handler is, and /token.
func (c *Cloud) ServiceAccount(email, tokenURL string) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%x", sha256.Sum256(der))[:40]
	c.mu.Lock()
	c.accounts[email] = &account{email, id, &key.PublicKey, tokenURL}
	c.mu.Unlock()
	return json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": c.cfg.Project, "private_key_id": id,
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": email, "client_id": "100000000000000000001", "token_uri": tokenURL,
		"auth_uri": "https://accounts.google.com/o/oauth2/auth", "universe_domain": "googleapis.com",
	}, "", "  ")
}

// claims are those of a JSON web token that matter.
type claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Scope    string `json:"scope"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

// verify checks a token that a service account signed: the signature (RS256), the times,
// and that it is for one of the audiences that wanted returns.
func (c *Cloud) verify(jwt string, wanted func(*account) []string) (*claims, error) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return nil, errors.New("invalid JWT: it must have three parts")
	}
	var head struct{ Alg, Kid string }
	var body claims
	for part, v := range map[int]any{0: &head, 1: &body} {
		text, err := base64.RawURLEncoding.DecodeString(parts[part])
		if err == nil {
			err = json.Unmarshal(text, v)
		}
		if err != nil {
			return nil, fmt.Errorf("invalid JWT: %w", err)
		}
	}
	a := c.accounts[body.Issuer]
	if a == nil {
		return nil, errors.New("invalid grant: account not found")
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err != nil || head.Alg != "RS256" || head.Kid != a.keyID || rsa.VerifyPKCS1v15(a.key, crypto.SHA256, sum[:], sig) != nil {
		return nil, errors.New("invalid JWT signature")
	}
	now := c.clock.Now()
	issued, expires := time.Unix(body.Issued, 0), time.Unix(body.Expires, 0)
	if issued.After(now.Add(skew)) || !expires.After(now.Add(-skew)) || expires.Sub(issued) > tokenLife {
		return nil, errors.New("invalid JWT: token must be a short-lived token and in a reasonable timeframe: check its iat and exp values")
	}
	if want := wanted(a); want != nil && !slices.Contains(want, body.Audience) {
		return nil, errors.New("invalid JWT: failed audience check")
	}
	return &body, nil
}

const jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// token is the end point of OAuth 2. It is counted as oauth.token.
func (c *Cloud) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, kind, why string) {
		fake.JSON(w, status, map[string]string{"error": kind, "error_description": why})
	}
	style := fake.Style{
		Fail: func(http.ResponseWriter, *http.Request) {
			refuse(http.StatusInternalServerError, "internal_failure", "Backend Error")
		},
		Throttle: func(http.ResponseWriter, *http.Request) {
			refuse(http.StatusTooManyRequests, "rate_limit_exceeded", "Slow down")
		},
	}
	c.Calls.Serve(w, r, "oauth.token", style, func(counted http.ResponseWriter, r *http.Request) {
		w = counted
		if r.PostFormValue("grant_type") != jwtBearer {
			refuse(http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: "+r.PostFormValue("grant_type"))
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		body, err := c.verify(r.PostFormValue("assertion"), func(a *account) []string { return []string{a.tokenURL} })
		switch {
		case err != nil:
			refuse(http.StatusBadRequest, "invalid_grant", err.Error())
		case body.Scope == "":
			refuse(http.StatusBadRequest, "invalid_scope", "Empty or missing scope not allowed.")
		default:
			fake.JSON(w, http.StatusOK, c.issue(strings.Fields(body.Scope)))
		}
	})
}

// issue makes a token.
func (c *Cloud) issue(scopes []string) map[string]any {
	token := "ya29." + rand.Text()
	c.tokens[token] = grant{scopes, c.clock.Now().Add(tokenLife)}
	return map[string]any{"access_token": token, "expires_in": int(tokenLife.Seconds()), "token_type": "Bearer"}
}

// Revoke makes all tokens that were issued worthless, as the end of their life does.
func (c *Cloud) Revoke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.tokens)
}

// authorized checks the token of a call: one that was issued, or one that a service
// account signed itself for the API or for a scope.
func (c *Cloud) authorized(r *http.Request, write bool) *problem {
	if c.cfg.NoAuth {
		return nil
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	g, known := c.tokens[token]
	if !known {
		if body, err := c.verify(token, func(*account) []string { return nil }); err == nil {
			known = body.Audience == audience || body.Scope != ""
			g = grant{strings.Fields(body.Scope), time.Unix(body.Expires, 0)}
			if body.Audience == audience {
				g.scopes = writeScopes
			}
		}
	}
	if !known || !c.clock.Now().Before(g.until) {
		return &problem{http.StatusUnauthorized, "authError", "Request had invalid authentication credentials."}
	}
	for _, scope := range g.scopes {
		if slices.Contains(writeScopes, scope) || !write && scope == readScope {
			return nil
		}
	}
	return &problem{http.StatusForbidden, "insufficientPermissions", "Request had insufficient authentication scopes."}
}
