package ebs

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/ec2"
)

var all = block.Query{Namespace: "test"}

// noKeys is a pool that takes its credentials from elsewhere.
func (c *cloud) noKeys() config {
	conf := c.pool()
	conf.AccessKey, conf.SecretKey = "", catalog.Secret{}
	return conf
}

// TestCredentials takes them from each place where they may be.
func TestCredentials(t *testing.T) {
	file := func(t *testing.T, text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "credentials")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keys := "aws_access_key_id = " + accessKey + "\naws_secret_access_key = " + secretKey + "\n"
	wrong := "[default]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong\n"
	for _, tt := range []struct {
		what string
		give func(t *testing.T, c *config)
	}{
		{"a file", func(t *testing.T, c *config) { c.CredentialsFile = file(t, "[default]\n"+keys) }},
		{"a profile of a file", func(t *testing.T, c *config) {
			c.CredentialsFile, c.Profile = file(t, wrong+"[storage]\n"+keys), "storage"
		}},
		{"a profile of the host", func(t *testing.T, c *config) {
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file(t, wrong+"[storage]\n"+keys))
			c.Profile = "storage"
		}},
		{"the environment", func(t *testing.T, _ *config) {
			t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
			t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
		}},
		{"the environment of REX-Ray", func(t *testing.T, _ *config) {
			t.Setenv("EBS_ACCESSKEY", accessKey)
			t.Setenv("EBS_SECRETKEY", secretKey)
		}},
		{"a file before the environment", func(t *testing.T, c *config) {
			t.Setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
			c.CredentialsFile = file(t, "[default]\n"+keys)
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			c := newCloud(t, ec2.Config{})
			conf := c.noKeys()
			tt.give(t, &conf)
			p := c.open(t, conf, "")
			if p.Owner() != accessKey { // before anybody is asked
				t.Errorf("the volumes are those of %q", p.Owner())
			}
			if _, err := p.List(t.Context(), all); err != nil || p.Owner() != accessKey {
				t.Errorf("the volumes are those of %q, %v", p.Owner(), err)
			}
		})
	}
}

// TestRole takes them from the role of the instance, with a token, and renews them in time.
func TestRole(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	_, metadata := c.instance(t, ec2.InstanceSpec{Role: "storage", RoleTTL: 3 * time.Second, RoleDeny: []string{"DeleteVolume"}})
	p := c.open(t, c.noKeys(), metadata)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if _, err := p.List(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	if p.Owner() != "" { // those of a role are others by the hour
		t.Errorf("the volumes are those of %q", p.Owner())
	}
	d, err := p.Create(t.Context(), spec("data"))
	if err != nil {
		t.Fatal(err)
	}
	err = p.Delete(t.Context(), d)
	wantErr(t, err, errdefs.ErrDenied, "DeleteVolume", "policy")
}

// TestExpired: keys of a role that end before their time are taken anew.
func TestExpired(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	i, metadata := c.instance(t, ec2.InstanceSpec{Role: "storage"})
	var asked atomic.Int64
	counts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/storage") {
			asked.Add(1)
		}
		i.Metadata().ServeHTTP(w, r)
	}))
	defer counts.Close()
	p := c.open(t, c.noKeys(), counts.URL)
	for range 2 {
		if _, err := p.List(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	c.Break(ec2.Fault{Kind: ec2.Refuse, Code: "RequestExpired", Message: "Request has expired.", Count: 1})
	_, err := p.List(t.Context(), all)
	wantErr(t, err, errdefs.ErrUnavailable, "RequestExpired", "clock")
	if n := asked.Load(); n != 1 {
		t.Errorf("credentials were asked for %d times before", n)
	}
	if _, err := p.List(t.Context(), all); err != nil || asked.Load() != 2 {
		t.Errorf("%v; credentials were asked for %d times", err, asked.Load())
	}
	p = c.open(t, c.pool(), metadata)
	c.Break(ec2.Fault{Kind: ec2.Refuse, Code: "ExpiredToken", Message: "It has expired.", Count: 1})
	_, err = p.List(t.Context(), all)
	wantErr(t, err, errdefs.ErrDenied, "session of the access key")
}

// TestCredentialsFileIsMended: a file with a wrong key that is put right needs no restart, nor does one
// whose key was exchanged.
func TestCredentialsFileIsMended(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	conf := c.noKeys()
	conf.CredentialsFile = filepath.Join(t.TempDir(), "credentials")
	write := func(key, secret string) {
		t.Helper()
		text := "[default]\naws_access_key_id = " + key + "\naws_secret_access_key = " + secret + "\n"
		if err := os.WriteFile(conf.CredentialsFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("AKIAWRONG", "wrong")
	p := c.open(t, conf, "http://127.0.0.1:1")
	_, err := p.List(t.Context(), all)
	wantErr(t, err, errdefs.ErrDenied, "AuthFailure", "credentials are wrong")
	was := p.Owner()
	write(accessKey, secretKey)
	if _, err := p.List(t.Context(), all); err != nil {
		t.Errorf("with the right key: %v", err)
	}
	if was != "AKIAWRONG" || p.Owner() != accessKey {
		t.Errorf("the volumes were those of %q, and are those of %q", was, p.Owner())
	}
}

// TestNoCredentials: an instance without a role, and no instance at all.
func TestNoCredentials(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	_, metadata := c.instance(t, ec2.InstanceSpec{})
	_, err := c.open(t, c.noKeys(), metadata).List(t.Context(), all)
	wantErr(t, err, errdefs.ErrDenied, "no credentials", "role", "credentials_file")
	_, err = c.open(t, c.noKeys(), "http://127.0.0.1:1").List(t.Context(), all)
	wantErr(t, err, errdefs.ErrUnavailable, "no credentials", "metadata service", "role")
}

// TestMetadata: the region and the host are those of the instance, asked by a token alone.
func TestMetadata(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	i, metadata := c.instance(t, ec2.InstanceSpec{Zone: east + "b", Role: "storage"})
	conf := c.noKeys()
	conf.Region = ""
	p := c.open(t, conf, metadata)
	if got := p.Traits().Scope; got != "region "+east {
		t.Errorf("scope is %q", got)
	}
	for range 2 {
		if h, err := p.Self(t.Context()); err != nil || h != (block.Host{ID: i.ID, Zone: east + "b"}) {
			t.Errorf("this is %+v, %v", h, err)
		}
	}
	conf.Region = ""
	_, err := connect(t.Context(), conf, slog.New(slog.DiscardHandler), func(o *imds.Options) { o.Endpoint = "http://127.0.0.1:1" })
	wantErr(t, err, errdefs.ErrUnavailable, "region", "metadata service", "hop limit", "write region")
	t.Setenv("AWS_REGION", "eu-west-1")
	if got := c.open(t, conf, "http://127.0.0.1:1").Traits().Scope; got != "region eu-west-1" {
		t.Errorf("scope is %q", got)
	}
	// One that only has the first version, which others in a container could ask as well.
	var asked atomic.Int64
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		asked.Add(1)
	}))
	defer old.Close()
	if _, err := c.open(t, conf, old.URL).Self(t.Context()); err == nil || asked.Load() > 0 {
		t.Errorf("without a token: %v, asked %d times", err, asked.Load())
	}
}

// TestNothingIsShown: neither what is logged nor what is kept on the disk has a secret in it.
func TestNothingIsShown(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	t.Setenv("EBS_SECRETKEY", secretKey)
	t.Setenv("EBS_ACCESSKEY", accessKey)
	state := t.TempDir()
	var log bytes.Buffer
	d, err := Driver().Open(t.Context(), map[string]any{"region": east, "endpoint": c.url, "zone": east + "a"},
		catalog.Env{PoolName: "cloud", StateDir: state, RunDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Create(t.Context(), "data", nil); err != nil {
		t.Error(err)
	}
	if err := d.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "EBS_ACCESSKEY") {
		t.Error("that a variable of REX-Ray is used is not in the log")
	}
	shown := log.String()
	err = filepath.WalkDir(state, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var text []byte
			text, err = os.ReadFile(path)
			shown += string(text)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(shown, secretKey) {
		t.Error("the secret is shown")
	}
}
