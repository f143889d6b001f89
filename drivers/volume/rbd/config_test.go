package rbd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestFromREXRay(t *testing.T) {
	env := map[string]string{
		"RBD_DEFAULTPOOL": "old", "RBD_CEPHARGS": "--id rexray --conf=/etc/ceph/x.conf -m 10.0.0.1,10.0.0.2 -k /k",
	}
	var c config
	if err := c.fromREXRay(func(k string) string { return env[k] }); err != nil {
		t.Fatal(err)
	}
	want := []string{"--conf", "/etc/ceph/x.conf", "--id", "rexray", "--keyring", "/k", "--mon-host", "10.0.0.1,10.0.0.2"}
	if diff := cmp.Diff(want, (&cluster{c: &c}).client()); diff != "" || c.Pool != "old" {
		t.Errorf("pool %q, %s", c.Pool, diff)
	}
	c = config{Pool: "mine", User: "me"}
	if err := c.fromREXRay(func(k string) string { return env[k] }); err != nil || c.Pool != "mine" || c.User != "me" {
		t.Errorf("over what the pool says: %+v, %v", c, err)
	}
	for args, word := range map[string]string{"--key AQSECRET==": "keyring", "--key=AQSECRET==": "keyring", "--debug 20": "--debug"} {
		env["RBD_CEPHARGS"] = args
		c = config{}
		err := c.fromREXRay(func(k string) string { return env[k] })
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error()+strings.Join(errdefs.Hints(err), ""), word) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestWrongConfig(t *testing.T) {
	keyring := filepath.Join(t.TempDir(), "keyring")
	if err := os.WriteFile(keyring, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	odd := catalog.Bytes(3 << 20)
	for word, change := range map[string]func(*config){
		"pool":                func(c *config) { c.Pool = "a/b" },
		`"user"`:              func(c *config) { c.User = "--conf" },
		"others can read":     func(c *config) { c.Keyring = keyring },
		`"conf"`:              func(c *config) { c.Conf = "/no/such/file" },
		"no power of two":     func(c *config) { c.ObjectSize = &odd },
		`"secret"`:            func(c *config) { c.MapOptions = []string{"secret=x"} },
		`"share"`:             func(c *config) { c.MapOptions = []string{"queue_depth=2", "share"} },
		`"a b"`:               func(c *config) { c.MapOptions = []string{"a b"} },
		"no namespaces":       func(c *config) { c.RadosNS, c.Map = "ns", "fuse" },
		`"timeout"`:           func(c *config) { c.Timeout = time.Millisecond },
		`"io_timeout"`:        func(c *config) { c.IOTimeout = time.Millisecond },
		"prove that a host":   func(c *config) { c.Preempt = "dead" },
		`"rados_namespace": `: func(c *config) { c.RadosNS = "a b" },
	} {
		c := config{Pool: "rbd", Timeout: time.Second}
		if err := c.check(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := c.Check(); (err == nil) != (c.Keyring+c.Conf != "") { // what stands in the table alone
			t.Errorf("%s, looked at: %v", word, err)
		}
		if err := c.check(); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", word, err)
		}
	}
}

func TestOptions(t *testing.T) {
	c := config{DataPool: "ec"}
	got, _, err := c.layout(block.Spec{Extra: map[string]string{"object_size": "1m", "stripe_unit": "64k", "stripe_count": "4", "features": "deep-flatten", "data_pool": "fast"}})
	want := "--image-feature layering,deep-flatten --object-size 1048576B --stripe-unit 65536B --stripe-count 4 --data-pool fast"
	if err != nil || strings.Join(got, " ") != want {
		t.Errorf("flags %q, %v", got, err)
	}
	for opts, word := range map[string]string{
		"features=exclusive-lock": "no host through", "features=journaling": "exclusive-lock", "features=x": "layering",
		"object_size=5m": "power of two", "stripe_unit=64k": "need each other", "data_pool=a/b": "data_pool",
		"stripe_unit=3k,stripe_count=2": "does not divide", "stripe_unit=64k,stripe_count=0": "1024", "flatten=perhaps": "flatten",
	} {
		s := block.Spec{Extra: map[string]string{}}
		for o := range strings.SplitSeq(opts, ",") {
			k, v, _ := strings.Cut(o, "=")
			s.Extra[k] = v
		}
		if err := c.checkSpec(&s); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", opts, err)
		}
	}
}

func TestClaim(t *testing.T) {
	c := claim{Host: "web-1", Boot: "b", Nonce: "n", Since: time.Unix(1e9, 0).UTC(), Clients: []string{"10.0.0.1:0/1", "10.0.0.1:0/2"}}
	got, ok := lock{ID: c.String()}.claim()
	if diff := cmp.Diff(c, got); diff != "" || !ok {
		t.Error(diff)
	}
	for _, id := range []string{"", "auto 140", "remora1 a b c d", "remora1 a b c d e"} {
		if _, ok := (lock{ID: id}).claim(); ok {
			t.Errorf("%q is taken for ours", id)
		}
	}
	if h := (lock{ID: "auto 140", Address: "10.0.0.1:0/1"}).holder(); h.Host != "10.0.0.1:0/1" {
		t.Errorf("holder %+v", h)
	}
}

func FuzzMeta(f *testing.F) {
	f.Add("remora.0011223344."+uuidA, `{"tags":{"id":"`+uuidA+`"}}`, "=v", "")
	f.Add("remora.x", "{", "-", "remora1 a b c 2026-01-01T00:00:00Z x")
	f.Fuzz(func(t *testing.T, image, tags, tag, id string) {
		w, ok := meta{metaTags: tags, metaTag + "k": tag}.tags(image)
		if uuid, is := uuidOf(image); ok && (!is || w.Tags[block.TagUUID] != uuid) {
			t.Errorf("%q is believed to be %q", image, uuid)
		}
		if c, ok := (lock{ID: id}).claim(); ok && c.Host == "" && !strings.Contains(id, "  ") {
			t.Errorf("claim %+v of %q", c, id)
		}
	})
}
