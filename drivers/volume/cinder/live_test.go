package cinder

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	stack "github.com/remora-plugins/remora/test/cloud/openstack"
)

var everything = block.Query{Namespace: "test"}

// TestLogin: each way in, and what is said of wrong ones.
func TestLogin(t *testing.T) {
	c := newCloud(t, "files")
	p := c.open(t, c.pool(), "")
	if _, err := p.List(t.Context(), everything); err != nil {
		t.Fatal(err)
	}
	s, err := p.login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keystone, err := openstack.NewIdentityV3(s.volumes.ProviderClient, p.auth.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	user, err := tokens.Get(t.Context(), keystone, s.volumes.Token()).ExtractUser()
	if err != nil {
		t.Fatal(err)
	}
	cred, err := applicationcredentials.Create(t.Context(), keystone, user.ID, applicationcredentials.CreateOpts{Name: c.name}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	yaml := strings.ReplaceAll(c.CloudsYAML(stack.RegionTLS), "project_name: "+stack.Project, "project_name: "+c.name)
	secret := catalog.NewSecret
	for name, tt := range map[string]struct {
		change func(o *config)
		class  error
		words  []string
	}{
		"application credential": {func(o *config) {
			o.UserName, o.Password, o.ProjectName, o.AppCredID, o.AppCredSecret = "", secret(""), "", cred.ID, secret(cred.Secret)
		}, nil, nil},
		"its secret in a file": {func(o *config) {
			o.UserName, o.Password, o.ProjectName, o.AppCredID, o.PasswordFile = "", secret(""), "", cred.ID, file("secret", cred.Secret+"\n")
		}, nil, nil},
		"by its name": {func(o *config) {
			o.Password, o.ProjectName, o.AppCredName, o.AppCredSecret = secret(""), "", c.name, secret(cred.Secret)
		}, nil, nil},
		"user and project by ID": {func(o *config) {
			o.UserName, o.ProjectName, o.UserID, o.ProjectID = "", "", user.ID, c.project
		}, nil, nil},
		"domain by name": {func(o *config) { o.DomainName, o.ProjectDomain = stack.Domain, stack.Domain }, nil, nil},
		"token": {func(o *config) {
			o.UserName, o.Password, o.Token = "", secret(""), secret(s.volumes.Token())
		}, nil, nil},
		"TLS": {func(o *config) { o.AuthURL, o.Region, o.CAFile = c.AuthURLTLS, stack.RegionTLS, c.CA }, nil, nil},
		"clouds.yaml": {func(o *config) {
			*o = config{Config: o.Config, Interface: "public", Cloud: "test", CloudsFile: file("clouds.yaml", yaml)}
		}, nil, nil},
		"wrong password": {func(o *config) { o.Password = secret("open sesame") }, errdefs.ErrDenied, []string{"Login", "its password or the project is wrong"}},
		"wrong project":  {func(o *config) { o.ProjectName = "nobodys" }, errdefs.ErrDenied, []string{"nobodys"}},
		"wrong token":    {func(o *config) { o.UserName, o.Password, o.Token = "", secret(""), secret("open sesame") }, errdefs.ErrDenied, []string{"token"}},
		"wrong credential": {func(o *config) {
			o.UserName, o.Password, o.ProjectName, o.AppCredID, o.AppCredSecret = "", secret(""), "", cred.ID, secret("open sesame")
		}, errdefs.ErrDenied, []string{"application credential"}},
		"no region":       {func(o *config) { o.Region = "" }, errdefs.ErrInvalid, []string{`"region"`, stack.Region + ", " + stack.RegionTLS}},
		"wrong region":    {func(o *config) { o.Region = "Atlantis" }, errdefs.ErrInvalid, []string{"region Atlantis", "catalog"}},
		"no authority":    {func(o *config) { o.AuthURL, o.Region = c.AuthURLTLS, stack.RegionTLS }, errdefs.ErrUnavailable, []string{"unknown authority", "ca_file"}},
		"wrong interface": {func(o *config) { o.Interface = "admin" }, errdefs.ErrInvalid, []string{"admin"}},
	} {
		t.Run(name, func(t *testing.T) {
			conf := c.pool()
			tt.change(&conf)
			_, err := c.open(t, conf, "").List(t.Context(), everything)
			if tt.class == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantErr(t, err, tt.class, tt.words...)
			if strings.Contains(err.Error(), c.Password) {
				t.Errorf("the password is in %v", err)
			}
		})
	}
	// A token that is revoked is replaced by itself. It is the last: the revocation is of all
	// tokens of that second.
	if err := tokens.Revoke(t.Context(), keystone, s.volumes.Token()).Err; err != nil {
		t.Fatal(err)
	}
	if _, err := p.List(t.Context(), everything); err != nil {
		t.Errorf("after the token was revoked: %v", err)
	}
}

func spec(name string) block.Spec {
	id := "00000000-0000-8000-8000-" + strings.Repeat("0", 12-len(name)) + name
	return block.Spec{UUID: id, Size: gib, Tags: block.Tags{block.TagUUID: id, block.TagNamespace: "test", block.TagName: "v" + name}}
}

// made makes a disk, and waits for it.
func (c *cloud) made(t *testing.T, p *provider, s block.Spec) block.Disk {
	t.Helper()
	d, err := p.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return until(t, p, d.ID, func(d block.Disk) bool { return d.State == block.Ready })
}

func until(t *testing.T, p *provider, id string, is func(block.Disk) bool) block.Disk {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		all, err := p.List(t.Context(), block.Query{Namespace: "test", IDs: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 && is(all[0]) {
			return all[0]
		}
		if time.Now().After(end) {
			t.Fatalf("disk %s: %+v", id, all)
		}
	}
}

// TestCreate: what is wrong is said with what would be right, and quotas are told from limits.
func TestCreate(t *testing.T) {
	c := newCloud(t, "files")
	p := c.open(t, c.pool(), "")
	for name, tt := range map[string]struct {
		change func(s *block.Spec)
		words  []string
	}{
		"type":      {func(s *block.Spec) { s.Type = "gold" }, []string{`"gold"`, "there are: ", "files", "ceph"}},
		"zone":      {func(s *block.Spec) { s.Zone = "moon" }, []string{`"moon"`, "there are: ", stack.Zone}},
		"snapshot":  {func(s *block.Spec) { s.Snapshot = &block.Snapshot{ID: "00000000-0000-4000-8000-000000000000"} }, []string{"could not be found"}},
		"encrypted": {func(s *block.Spec) { yes := true; s.Encrypted, s.Type = &yes, "files" }, []string{`"encrypted"`, `"files"`, "volume type list"}},
	} {
		s := spec("1")
		tt.change(&s)
		_, err := p.Create(t.Context(), s)
		wantErr(t, err, errdefs.ErrInvalid, tt.words...)
		_ = name
	}
	s := spec("2")
	s.Type = "files"
	d := c.made(t, p, s)
	again, err := p.Create(t.Context(), s)
	if err != nil || again.ID != d.ID {
		t.Errorf("made again: %v, %v", again.ID, err)
	}
	if d.Zone != stack.Zone || d.Type != "files" || d.Size != gib || d.Tags[block.TagName] != "v2" {
		t.Errorf("disk %+v", d)
	}
	if err := p.SetTags(t.Context(), d, block.Tags{"fs": "ext4", "formatted": "now"}); err != nil {
		t.Fatal(err)
	}
	if err := p.SetTags(t.Context(), d, block.Tags{"fs": "", "never": "", "root": "a 'b' \"c\" ü"}); err != nil {
		t.Fatal(err)
	}
	d = until(t, p, d.ID, func(block.Disk) bool { return true })
	if d.Tags["fs"] != "" || d.Tags["formatted"] != "now" || d.Tags["root"] != "a 'b' \"c\" ü" || d.Tags[block.TagName] != "v2" {
		t.Errorf("tags %v", d.Tags)
	}
	if err := p.SetTags(t.Context(), block.Disk{ID: "00000000-0000-4000-8000-000000000000"}, block.Tags{"fs": ""}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("tags of no disk: %v", err)
	}

	// A state that is in error is told, and a disk with data stays a volume.
	if err := c.ResetState(t.Context(), d.ID, "error"); err != nil {
		t.Fatal(err)
	}
	if d = until(t, p, d.ID, func(block.Disk) bool { return true }); d.State != block.Ready {
		t.Errorf("a disk with data that is in error is %s", d.State)
	}
	host := c.Host(t)
	err = host.Provider(t).Attach(t.Context(), d, block.Host{ID: host.ID})
	wantErr(t, err, errdefs.ErrInvalid, "status is error", "reset its state")
	if err := p.SetTags(t.Context(), d, block.Tags{"formatted": ""}); err != nil {
		t.Fatal(err)
	}
	if d = until(t, p, d.ID, func(block.Disk) bool { return true }); d.State != block.Failed || !strings.Contains(d.Reason, "error") {
		t.Errorf("a disk that never got done is %s: %s", d.State, d.Reason)
	}
	for range 2 {
		if err := p.Delete(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTooLarge: what no back end has room for is in error a little later, with a reason.
func TestTooLarge(t *testing.T) {
	c := newCloud(t, "ceph")
	p := c.open(t, c.pool(), "")
	s := spec("1")
	s.Type, s.Size = "ceph", 90000*gib
	d, err := p.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	d = until(t, p, d.ID, func(d block.Disk) bool { return d.State == block.Failed })
	if !strings.Contains(d.Reason, "No storage could be allocated") && !strings.Contains(d.Reason, "weighted backend") {
		t.Errorf("reason is %q", d.Reason)
	}
}

func TestQuota(t *testing.T) {
	c := newCloud(t, "files")
	conf := c.pool()
	conf.ProjectName = stack.Project // whose quota can be set
	p := c.open(t, conf, "")
	t.Cleanup(func() {
		if err := c.SetQuota(context.WithoutCancel(t.Context()), -1, -1); err != nil {
			t.Error(err)
		}
	})
	if err := c.SetQuota(t.Context(), 0, -1); err != nil {
		t.Fatal(err)
	}
	_, err := p.Create(t.Context(), spec("1"))
	wantErr(t, err, errdefs.ErrInvalid, "VolumeLimitExceeded", "larger quota", "region RegionOne")
	if err := c.SetQuota(t.Context(), -1, 0); err != nil {
		t.Fatal(err)
	}
	_, err = p.Create(t.Context(), spec("1"))
	wantErr(t, err, errdefs.ErrInvalid, "Quota", "larger quota")
}

// TestAttach: who has it, who is refused, and what is left of a server that Nova has forgotten.
func TestAttach(t *testing.T) {
	c := newCloud(t, "files")
	one, two := c.nova.Server(t, c.project), c.nova.Server(t, c.project)
	p := c.open(t, c.pool(), "")
	s := spec("1")
	s.Type = "files"
	d := c.made(t, p, s)
	for range 2 { // as when an answer got lost
		if err := p.Attach(t.Context(), d, block.Host{ID: one.ID}); err != nil {
			t.Fatal(err)
		}
	}
	has := func(id string, as block.Holding) func(block.Disk) bool {
		return func(d block.Disk) bool {
			return len(d.Holders) == 1 && d.Holders[0].Host == id && d.Holders[0].State == as
		}
	}
	d = until(t, p, d.ID, has(one.ID, block.Attached))
	if d.Holders[0].Since.IsZero() {
		t.Error("nobody knows since when")
	}
	wantErr(t, p.Attach(t.Context(), d, block.Host{ID: two.ID}), errdefs.ErrInUse, "in-use")
	wantErr(t, p.Delete(t.Context(), d), errdefs.ErrInUse)
	wantErr(t, p.Attach(t.Context(), d, block.Host{ID: "00000000-0000-4000-8000-00000000000a"}), errdefs.ErrUnavailable, "Nova does not know server")
	if err := p.Detach(t.Context(), d, two.ID, false); err != nil {
		t.Errorf("from a server that has it not: %v", err)
	}
	if d = until(t, p, d.ID, has(one.ID, block.Attached)); len(one.Machine.Names()) != 1 {
		t.Errorf("devices %q", one.Machine.Names())
	}

	one.SetState("ACTIVE", "migrating")
	wantErr(t, p.Detach(t.Context(), d, one.ID, false), errdefs.ErrUnavailable, "migrating", "openstack server show")
	one.SetState("ACTIVE", "")
	for range 2 {
		if err := p.Detach(t.Context(), d, one.ID, false); err != nil {
			t.Fatal(err)
		}
	}
	d = until(t, p, d.ID, func(d block.Disk) bool { return len(d.Holders) == 0 })

	if err := p.Attach(t.Context(), d, block.Host{ID: one.ID}); err != nil {
		t.Fatal(err)
	}
	d = until(t, p, d.ID, has(one.ID, block.Attached))
	gone := func(want bool) {
		t.Helper()
		if got, err := p.Gone(t.Context(), one.ID); err != nil || got != want {
			t.Errorf("gone: %v, %v", got, err)
		}
	}
	gone(false)
	one.SetState("SUSPENDED", "")
	gone(false)
	one.Stop(t)
	gone(true)
	one.SetState("SHUTOFF", "powering-on")
	gone(false)
	one.Forget()
	gone(true)
	if err := p.Detach(t.Context(), d, one.ID, true); err != nil {
		t.Fatalf("from a server that Nova has forgotten: %v", err)
	}
	d = until(t, p, d.ID, func(d block.Disk) bool { return len(d.Holders) == 0 })
	if err := p.Attach(t.Context(), d, block.Host{ID: two.ID}); err != nil {
		t.Fatal(err)
	}
	until(t, p, d.ID, has(two.ID, block.Attached))
}

// TestThrottledCloud: a cloud that says when to come back is asked then.
func TestThrottledCloud(t *testing.T) {
	c := newCloud(t, "files")
	conf := c.pool()
	conf.AuthURL, conf.Region, conf.CAFile = c.AuthURLTLS, stack.RegionTLS, c.CA
	p := c.open(t, conf, "")
	if _, err := p.List(t.Context(), everything); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	c.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) == 1 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				_, _ = w.Write([]byte(`{"overLimit": {"message": "This request was rate-limited.", "code": 413, "retryAfter": "1"}}`))
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	t.Cleanup(func() { c.Intercept(nil) })
	began := time.Now()
	if _, err := p.List(t.Context(), everything); err != nil {
		t.Fatal(err)
	}
	if n, took := calls.Load(), time.Since(began); n != 2 || took < 900*time.Millisecond {
		t.Errorf("%d requests in %s", n, took)
	}
}
