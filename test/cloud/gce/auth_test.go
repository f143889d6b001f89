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
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/compute/v1"
	"google.golang.org/api/option"
)

// keyFile is that of an account of the cloud.
func (w *world) keyFile(t *testing.T) []byte {
	t.Helper()
	key, err := w.ServiceAccount("remora@fake-project.iam.gserviceaccount.com", w.url+"/token")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func list(api *compute.Service) error {
	_, err := api.Disks.List(project, zone).Do()
	return err
}

func TestKeyFileBuysATokenThatRunsOut(t *testing.T) {
	w := serve(t, Config{})
	conf, err := google.JWTConfigFromJSON(w.keyFile(t), compute.ComputeScope)
	if err != nil {
		t.Fatal(err)
	}
	source := conf.TokenSource(t.Context())
	token, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	api := client(t, w.url, option.WithTokenSource(oauth2.StaticTokenSource(token)))
	if err := list(api); err != nil {
		t.Errorf("with a token: %v", err)
	}
	if _, err := api.Disks.Insert(project, zone, &compute.Disk{Name: "data", SizeGb: 10}).Do(); err != nil {
		t.Errorf("insert: %v", err)
	}
	w.clock.Advance(time.Hour)
	refused(t, "an hour later", list(api), 401, "authError", "invalid authentication credentials")
	w.clock.Advance(-time.Hour)
	if err := list(api); err != nil {
		t.Errorf("before that: %v", err)
	}
	w.Revoke()
	refused(t, "after it was revoked", list(api), 401, "authError", "invalid authentication credentials")
	refused(t, "without any", list(client(t, w.url, option.WithoutAuthentication())), 401, "authError", "")
	if n := w.Calls.Counts()["oauth.token"].Calls; n != 1 {
		t.Errorf("%d tokens were asked for", n)
	}
}

func TestKeyFileInTheClient(t *testing.T) {
	// The client signs its tokens itself, and asks for none.
	w := serve(t, Config{})
	api := client(t, w.url, option.WithAuthCredentialsJSON(option.ServiceAccount, w.keyFile(t)))
	if err := list(api); err != nil {
		t.Error(err)
	}
	other := serve(t, Config{})
	refused(t, "of another cloud", list(client(t, w.url, option.WithAuthCredentialsJSON(option.ServiceAccount, other.keyFile(t)))), 401, "authError", "")
}

func TestScopes(t *testing.T) {
	w := serve(t, Config{})
	conf, err := google.JWTConfigFromJSON(w.keyFile(t), compute.ComputeReadonlyScope)
	if err != nil {
		t.Fatal(err)
	}
	api := client(t, w.url, option.WithTokenSource(conf.TokenSource(t.Context())))
	if err := list(api); err != nil {
		t.Error(err)
	}
	_, err = api.Disks.Insert(project, zone, &compute.Disk{Name: "data", SizeGb: 10}).Do()
	refused(t, "insert", err, 403, "insufficientPermissions", "insufficient authentication scopes")
}

type header struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
}

// sign makes a JSON web token.
func sign(head *header, body *claims, key *rsa.PrivateKey) (string, error) {
	var parts []string
	for _, v := range []any{head, body} {
		text, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(text))
	}
	text := strings.Join(parts, ".")
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig), err
}

func TestWrongAssertions(t *testing.T) {
	w := serve(t, Config{})
	var file struct {
		Email string `json:"client_email"`
		KeyID string `json:"private_key_id"`
		Key   string `json:"private_key"`
	}
	if err := json.Unmarshal(w.keyFile(t), &file); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(file.Key))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ask := func(change func(*header, *claims, **rsa.PrivateKey), grantType string) (int, string) {
		t.Helper()
		key := parsed.(*rsa.PrivateKey)
		head := &header{"RS256", file.KeyID}
		body := &claims{
			Issuer: file.Email, Audience: w.url + "/token", Scope: compute.ComputeScope, Issued: now.Unix(), Expires: now.Add(time.Hour).Unix(),
		}
		change(head, body, &key)
		assertion, err := sign(head, body, key)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.PostForm(w.url+"/token", url.Values{"grant_type": {grantType}, "assertion": {assertion}})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	for what, c := range map[string]struct {
		change func(*header, *claims, **rsa.PrivateKey)
		want   string
	}{
		"another key":     {func(_ *header, _ *claims, k **rsa.PrivateKey) { *k = other }, "signature"},
		"another key id":  {func(h *header, _ *claims, _ **rsa.PrivateKey) { h.Kid = "x" }, "signature"},
		"unknown account": {func(_ *header, b *claims, _ **rsa.PrivateKey) { b.Issuer = "x@y" }, "account not found"},
		"audience":        {func(_ *header, b *claims, _ **rsa.PrivateKey) { b.Audience = "https://x/token" }, "audience"},
		"no scope":        {func(_ *header, b *claims, _ **rsa.PrivateKey) { b.Scope = "" }, "invalid_scope"},
		"long ago": {func(_ *header, b *claims, _ **rsa.PrivateKey) {
			b.Issued, b.Expires = now.Add(-2*time.Hour).Unix(), now.Add(-time.Hour).Unix()
		}, "reasonable timeframe"},
		"for a day": {func(_ *header, b *claims, _ **rsa.PrivateKey) { b.Expires = now.Add(24 * time.Hour).Unix() }, "reasonable timeframe"},
	} {
		if status, got := ask(c.change, jwtBearer); status != 400 || !strings.Contains(got, c.want) {
			t.Errorf("%s: %d %s", what, status, got)
		}
	}
	nothing := func(*header, *claims, **rsa.PrivateKey) {}
	if status, got := ask(nothing, "password"); status != 400 || !strings.Contains(got, "unsupported_grant_type") {
		t.Errorf("another grant: %d %s", status, got)
	}
	if status, got := ask(nothing, jwtBearer); status != 200 || !strings.Contains(got, "access_token") {
		t.Errorf("nothing wrong: %d %s", status, got)
	}
}

func TestMetadata(t *testing.T) {
	w := serve(t, Config{})
	w.add(zone, "a", nil)
	srv := httptest.NewServer(w.Metadata(zone, "a", compute.ComputeScope))
	defer srv.Close()
	get := func(path string, header http.Header) (int, string) {
		req, err := http.NewRequest(http.MethodGet, srv.URL+"/computeMetadata/v1/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.Header.Get("Metadata-Flavor"); got != "Google" {
			t.Errorf("%s: the answer is flavoured %q", path, got)
		}
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	flavour := http.Header{"Metadata-Flavor": {"Google"}}
	for path, want := range map[string]string{
		"instance/name": "a", "instance/zone": "projects/123456789012/zones/" + zone, "project/project-id": project,
		"instance/service-accounts/default/scopes": compute.ComputeScope + "\n",
	} {
		if status, got := get(path, flavour); status != 200 || got != want {
			t.Errorf("%s: %d %q", path, status, got)
		}
	}
	if status, _ := get("instance/none", flavour); status != 404 {
		t.Errorf("a value that there is not: %d", status)
	}
	if status, _ := get("instance/name", nil); status != 403 {
		t.Errorf("without the header: %d", status)
	}
	forwarded := http.Header{"Metadata-Flavor": {"Google"}, "X-Forwarded-For": {"10.0.0.1"}}
	if status, _ := get("instance/name", forwarded); status != 403 {
		t.Errorf("through a proxy: %d", status)
	}

	// The client finds it by the environment and gets its token there.
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(srv.URL, "http://"))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("HOME", t.TempDir())
	api := client(t, w.url, option.WithTokenSource(google.ComputeTokenSource("", compute.ComputeScope)))
	if err := list(api); err != nil {
		t.Errorf("with the instance's account: %v", err)
	}
}
