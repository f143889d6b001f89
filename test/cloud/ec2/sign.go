package ec2

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxSkew is how far the clock of a caller may be off. Signatures, and the keys of roles, go
// by the real time whatever the cloud's clock shows, as those who sign do.
const maxSkew = 5 * time.Minute

var errAuth = failWith(http.StatusUnauthorized, "AuthFailure", "AWS was not able to validate the provided access credentials")

// authenticate checks the signature of a call (Signature Version 4), and returns who made it
// and the name of the region it is for.
func (c *Cloud) authenticate(r *http.Request, body []byte) (User, string, error) {
	fieldsOf, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return User{}, "", missing("AWSAccessKeyId")
	}
	auth := map[string]string{}
	for part := range strings.SplitSeq(fieldsOf, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		auth[key] = value
	}
	scope := strings.Split(auth["Credential"], "/") // key, day, region, service, aws4_request
	if len(scope) != 5 || scope[3] != "ec2" || scope[4] != "aws4_request" {
		return User{}, "", errAuth
	}
	user, ok := c.user(scope[0])
	if !ok || user.token != r.Header.Get("X-Amz-Security-Token") {
		return User{}, "", errAuth
	}
	date := r.Header.Get("X-Amz-Date")
	at, err := time.Parse("20060102T150405Z", date)
	if err != nil || !strings.HasPrefix(date, scope[1]) {
		return User{}, "", errAuth
	}
	signed := strings.Split(auth["SignedHeaders"], ";")
	if !slices.Contains(signed, "host") {
		return User{}, "", errAuth
	}
	toSign := "AWS4-HMAC-SHA256\n" + date + "\n" + strings.Join(scope[1:], "/") + "\n" + hash(canonical(r, signed, body))
	key := []byte("AWS4" + user.SecretKey)
	for _, part := range append(scope[1:], toSign) {
		mac := hmac.New(sha256.New, key)
		_, _ = mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	if subtle.ConstantTimeCompare([]byte(hex.EncodeToString(key)), []byte(auth["Signature"])) != 1 {
		return User{}, "", errAuth
	}
	now := time.Now()
	if d := now.Sub(at); d > maxSkew || d < -maxSkew || !user.expires.IsZero() && now.After(user.expires) {
		return User{}, "", fail("RequestExpired", "Request has expired.")
	}
	return user, scope[2], nil
}

func (c *Cloud) user(key string) (User, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range c.users {
		if u.AccessKey == key {
			return u, true
		}
	}
	return User{}, false
}

// canonical is the text of a request over which the signature goes.
func canonical(r *http.Request, signed []string, body []byte) string {
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n" + path + "\n" + strings.ReplaceAll(url.Values.Encode(r.URL.Query()), "+", "%20") + "\n")
	for _, name := range signed {
		values := r.Header.Values(name)
		switch name {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{r.Header.Get("Content-Length")}
		}
		for i := range values {
			values[i] = strings.Join(strings.Fields(values[i]), " ")
		}
		b.WriteString(name + ":" + strings.Join(values, ",") + "\n")
	}
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + hash(string(body)))
	return b.String()
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
