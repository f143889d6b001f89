package cinder

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// good is a pool that logs in by password.
func good() config {
	return config{
		Interface: "public", AuthURL: "https://keystone.test:5000/v3", UserName: "me", Password: catalog.NewSecret("open sesame"), ProjectName: "data", Config: block.Config{Rate: 10},
	}
}

func wantErr(t *testing.T, err, class error, words ...string) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("error is %v, want %v", err, class)
	}
	all := err.Error() + " " + strings.Join(errdefs.Hints(err), " ")
	for _, w := range words {
		if !strings.Contains(all, w) {
			t.Errorf("error does not say %q: %s", w, all)
		}
	}
	if strings.Contains(all, "\n") || strings.Contains(all, "open sesame") {
		t.Errorf("error has more than one line, or a secret: %q", all)
	}
}

func TestWrongPools(t *testing.T) {
	dir := t.TempDir()
	open, empty := filepath.Join(dir, "open"), filepath.Join(dir, "empty")
	for path, text := range map[string]string{open: "open sesame", empty: "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	badYAML := filepath.Join(dir, "clouds.yaml")
	if err := os.WriteFile(badYAML, []byte("clouds:\n  test:\n    auth: open sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(c *config)
		words  []string
	}{
		"no URL":            {func(c *config) { c.AuthURL = "" }, []string{`"auth_url"`, "clouds.yaml"}},
		"URL without http":  {func(c *config) { c.AuthURL = "keystone:5000" }, []string{`"auth_url"`, "https://"}},
		"no user":           {func(c *config) { c.UserName = "" }, []string{`"user_name"`}},
		"no password":       {func(c *config) { c.Password = catalog.Secret{} }, []string{`"password"`}},
		"no project":        {func(c *config) { c.ProjectName = "" }, []string{`"project_name"`}},
		"two users":         {func(c *config) { c.UserID = "1" }, []string{`"user_name"`, `"user_id"`}},
		"trust and project": {func(c *config) { c.TrustID = "1" }, []string{`"trust_id"`, "project_name"}},
		"credential, user":  {func(c *config) { c.AppCredID = "1" }, []string{`"application_credential_id"`, "user_name"}},
		"credential alone":  {func(c *config) { c.AppCredID, c.UserName = "1", "" }, []string{`"application_credential_secret"`}},
		"password twice":    {func(c *config) { c.PasswordFile = open }, []string{"leave out"}},
		"readable password": {func(c *config) { c.PasswordFile, c.Password = open, catalog.Secret{} }, []string{"others can read", "chmod 600"}},
		"empty password":    {func(c *config) { c.PasswordFile, c.Password = empty, catalog.Secret{} }, []string{"is empty"}},
		"no such password":  {func(c *config) { c.PasswordFile, c.Password = dir+"/none", catalog.Secret{} }, []string{"no such file"}},
		"no such CA":        {func(c *config) { c.CAFile = dir + "/none" }, []string{`"ca_file"`}},
		"CA without any":    {func(c *config) { c.CAFile = empty }, []string{"no certificate"}},
		"no such cloud":     {func(c *config) { c.Cloud, c.CloudsFile = "x", dir+"/none" }, []string{`"x"`, "not found"}},
		"YAML with secrets": {func(c *config) { c.Cloud, c.CloudsFile = "test", badYAML }, []string{"line 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			tt.change(&c)
			_, err := newProvider(t.Context(), c, catalog.Env{}.Log())
			wantErr(t, err, errdefs.ErrInvalid, tt.words...)
		})
	}
}

func TestEnvironment(t *testing.T) {
	look := func(all ...string) func(string) string {
		return func(name string) string {
			for _, kv := range all {
				if k, v, _ := strings.Cut(kv, "="); k == name {
					return v
				}
			}
			return ""
		}
	}
	rexray := look("CINDER_AUTHURL=http://k/v3", "CINDER_USERNAME=me", "CINDER_PASSWORD=open sesame", "CINDER_TENANTNAME=data",
		"CINDER_DOMAINNAME=Default", "CINDER_REGIONNAME=R1", "CINDER_AVAILABILITYZONENAME=z1", "OS_AUTH_URL=http://other/v3", "OS_USERNAME=other")
	var c config
	used := c.fromEnvironment(rexray)
	if c.AuthURL != "http://k/v3" || c.UserName != "me" || c.Password.Reveal() != "open sesame" || c.ProjectName != "data" || c.DomainName != "Default" || c.Region != "R1" || c.Zone != "z1" {
		t.Errorf("REX-Ray's variables: %+v", c)
	}
	if text := strings.Join(used, " "); strings.Contains(text, "sesame") || !strings.Contains(text, "CINDER_TENANTNAME as project_name") || strings.Contains(text, "OS_") {
		t.Errorf("used %q", used)
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}

	// What the pool says goes before, and a user by ID is no user by name too.
	c = config{UserID: "1", ProjectID: "2", AuthURL: "http://mine/v3"}
	c.fromEnvironment(rexray)
	if c.UserName != "" || c.ProjectName != "" || c.AuthURL != "http://mine/v3" {
		t.Errorf("with keys: %+v", c)
	}
	for _, own := range []config{{Cloud: "x"}, {AppCredID: "1", AuthURL: "http://mine/v3"}, {Token: catalog.NewSecret("t"), AuthURL: "http://mine/v3"}} {
		if used := own.fromEnvironment(rexray); len(used) != 0 {
			t.Errorf("a pool that logs in otherwise used %q", used)
		}
	}

	c = config{}
	c.fromEnvironment(look("OS_AUTH_URL=http://k/v3", "OS_APPLICATION_CREDENTIAL_ID=1", "OS_APPLICATION_CREDENTIAL_SECRET=open sesame", "OS_REGION_NAME=R2"))
	if err := c.check(); err != nil || c.AppCredID != "1" || c.Region != "R2" {
		t.Errorf("OpenStack's variables: %+v, %v", c, err)
	}
	c = config{}
	c.fromEnvironment(look("OS_CLOUD=test"))
	if c.Cloud != "test" {
		t.Errorf("OS_CLOUD: %+v", c)
	}
}

// What Keystone gets is what it takes: domains are those of names alone.
func TestScope(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(c *config)
		want   string
	}{
		"names":       {func(*config) {}, `{"project":{"domain":{"id":"default"},"name":"data"}}`},
		"domain":      {func(c *config) { c.DomainName = "D" }, `{"project":{"domain":{"name":"D"},"name":"data"}}`},
		"two domains": {func(c *config) { c.DomainName, c.ProjectDomainID = "D", "P" }, `{"project":{"domain":{"id":"P"},"name":"data"}}`},
		"project ID":  {func(c *config) { c.ProjectName, c.ProjectID = "", "7" }, `{"project":{"id":"7"}}`},
		"trust":       {func(c *config) { c.ProjectName, c.TrustID = "", "8" }, `{"OS-TRUST:trust":{"id":"8"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			tt.change(&c)
			a, _, err := c.auth()
			if err != nil {
				t.Fatal(err)
			}
			scope, err := a.opts.ToTokenV3ScopeMap()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, asJSON(t, scope)); diff != "" {
				t.Error(diff)
			}
			if _, err := a.opts.ToTokenV3CreateMap(scope); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSpec(t *testing.T) {
	c := good()
	c.Type, c.Zone = "fast", "z1"
	s := block.Spec{}
	if err := c.checkSpec(&s); err != nil || s.Type != "fast" || s.Zone != "z1" {
		t.Errorf("%+v, %v", s, err)
	}
	s = block.Spec{Snapshot: &block.Snapshot{ID: "1"}} // has the type of what it is made of
	if err := c.checkSpec(&s); err != nil || s.Type != "" {
		t.Errorf("%+v, %v", s, err)
	}
	s = block.Spec{Extra: map[string]string{multiAttach: "true"}}
	wantErr(t, c.checkSpec(&s), errdefs.ErrInvalid, multiAttach, "Manila")
}

func TestOptionsAreDescribed(t *testing.T) {
	got := map[string]bool{}
	for _, k := range Driver().Options() {
		got[k.Name] = true
	}
	for _, want := range []string{"size", "fs", "type", "zone", "encrypted", "snapshot", multiAttach} {
		if !got[want] {
			t.Errorf("no option %q", want)
		}
	}
	if got["iops"] || got["kms_key"] {
		t.Error("Cinder has no iops and no keys: they belong to the type")
	}
}
