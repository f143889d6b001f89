package ebs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TestSpec has what the options of a volume and the keys of its pool come to.
func TestSpec(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		what string
		pool config
		spec block.Spec
		want block.Spec
	}{
		{"the pool's type", config{Type: "gp3"}, block.Spec{}, block.Spec{Type: "gp3"}},
		{"the pool's iops", config{Type: "gp3", IOPS: 4000, Throughput: 250}, block.Spec{IOPS: 5000}, block.Spec{Type: "gp3", IOPS: 5000, Throughput: 250}},
		{"another type has none of them", config{Type: "gp3", IOPS: 4000, Throughput: 250}, block.Spec{Type: "st1", Size: 125 * gib}, block.Spec{Type: "st1", Size: 125 * gib}},
		{"io1", config{Type: "gp3"}, block.Spec{Type: "io1", IOPS: 200, Size: 4 * gib}, block.Spec{Type: "io1", IOPS: 200, Size: 4 * gib}},
		{"io2", config{Type: "io2", IOPS: 300}, block.Spec{Size: 4 * gib}, block.Spec{Type: "io2", IOPS: 300, Size: 4 * gib}},
		{"standard", config{Type: "gp3"}, block.Spec{Type: "standard"}, block.Spec{Type: "standard"}},
		{"gp2", config{Type: "gp2"}, block.Spec{}, block.Spec{Type: "gp2"}},
		{"sc1", config{Type: "gp2"}, block.Spec{Type: "sc1", Size: 125 * gib}, block.Spec{Type: "sc1", Size: 125 * gib}},
		{"encrypted", config{Type: "gp3"}, block.Spec{Encrypted: &yes}, block.Spec{Type: "gp3", Encrypted: &yes}},
		{"a key encrypts", config{Type: "gp3"}, block.Spec{KMSKey: "alias/k"}, block.Spec{Type: "gp3", Encrypted: &yes, KMSKey: "alias/k"}},
		{"the pool encrypts", config{Type: "gp3", Encrypted: true}, block.Spec{}, block.Spec{Type: "gp3", Encrypted: &yes}},
		{"the pool's key", config{Type: "gp3", KMSKey: "alias/p"}, block.Spec{}, block.Spec{Type: "gp3", Encrypted: &yes, KMSKey: "alias/p"}},
		{"the volume's own", config{Type: "gp3", KMSKey: "alias/p"}, block.Spec{KMSKey: "alias/k"}, block.Spec{Type: "gp3", Encrypted: &yes, KMSKey: "alias/k"}},
		{"not this one", config{Type: "gp3", KMSKey: "alias/p"}, block.Spec{Encrypted: &no}, block.Spec{Type: "gp3", Encrypted: &no}},
		{"zone", config{Type: "gp3"}, block.Spec{Zone: "us-east-1c"}, block.Spec{Type: "gp3", Zone: "us-east-1c"}},
		{"no multi-attach", config{Type: "gp3"}, block.Spec{Extra: map[string]string{multiAttach: "false"}}, block.Spec{Type: "gp3", Extra: map[string]string{multiAttach: "false"}}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			for _, s := range []*block.Spec{&tt.spec, &tt.want} {
				if s.Size == 0 {
					s.Size = gib
				}
			}
			if err := tt.pool.check(); err != nil {
				t.Fatal(err)
			}
			if err := tt.pool.checkSpec(east)(&tt.spec); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, tt.spec); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRefusedOptions: what EBS would refuse is refused before it is asked, with what to do.
func TestRefusedOptions(t *testing.T) {
	no := false
	for _, tt := range []struct {
		what  string
		spec  block.Spec
		words []string
	}{
		{"type", block.Spec{Type: "gp9"}, []string{`"gp9"`, "gp3", "standard"}},
		{"iops of gp2", block.Spec{Type: "gp2", IOPS: 3000}, []string{`"iops"`, "gp2", "take type gp3"}},
		{"throughput of io2", block.Spec{Type: "io2", IOPS: 100, Throughput: 125, Size: 4 * gib}, []string{`"throughput"`, "take type gp3"}},
		{"no iops", block.Spec{Type: "io1", Size: 4 * gib}, []string{`"iops" is missing`, "io1"}},
		{"negative", block.Spec{IOPS: -1}, []string{`"iops"`}},
		{"far too many", block.Spec{Throughput: 1 << 40}, []string{`"throughput"`}},
		{"size of st1", block.Spec{Type: "st1"}, []string{"size 1g", "125g"}},
		{"size of io2", block.Spec{Type: "io2", IOPS: 100}, []string{"size 1g", "4g"}},
		{"zone", block.Spec{Zone: "eu-west-1a"}, []string{`"eu-west-1a"`, "region us-east-1"}},
		{"key without encryption", block.Spec{KMSKey: "alias/k", Encrypted: &no}, []string{`"kms_key"`, "encrypted is false"}},
		{"multi-attach", block.Spec{Extra: map[string]string{multiAttach: "true"}}, []string{multiAttach, "destroyed", "driver mount"}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if tt.spec.Size == 0 {
				tt.spec.Size = gib
			}
			c := config{Type: "gp3"}
			wantErr(t, c.checkSpec(east)(&tt.spec), errdefs.ErrInvalid, tt.words...)
		})
	}
}

// TestRefusedPools: a pool's table that cannot work is refused with the key that is wrong.
func TestRefusedPools(t *testing.T) {
	ignoreEnvironment(t)
	open := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(open, []byte("[default]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(closed, []byte("[default]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what  string
		table map[string]any
		words []string
	}{
		{"region", map[string]any{"region": "Ireland"}, []string{`"region"`, "eu-west-1"}},
		{"key alone", map[string]any{"region": east, "access_key": accessKey}, []string{`"access_key"`, `"secret_key"`}},
		{"secret alone", map[string]any{"region": east, "secret_key": secretKey}, []string{`"secret_key"`, `"access_key"`}},
		{"two ways", map[string]any{"region": east, "access_key": accessKey, "secret_key": secretKey, "profile": "p"}, []string{"leave out one"}},
		{"no file", map[string]any{"region": east, "credentials_file": "/no/such/file"}, []string{"credentials_file", "no such file"}},
		{"open file", map[string]any{"region": east, "credentials_file": open}, []string{"others can read", "chmod 600"}},
		{"no profile", map[string]any{"region": east, "credentials_file": closed, "profile": "nobody"}, []string{"nobody"}},
		{"type", map[string]any{"region": east, "type": "gp9"}, []string{`"type"`}},
		{"type without iops", map[string]any{"region": east, "type": "io2"}, []string{`"iops"`}},
		{"iops of a type without", map[string]any{"region": east, "type": "st1", "iops": 100}, []string{"st1"}},
		{"tag", map[string]any{"region": east, "tags": []any{"cost"}}, []string{"KEY=VALUE"}},
		{"our tag", map[string]any{"region": east, "tags": []any{"Remora:id=1"}}, []string{"Remora:id"}},
		{"Name", map[string]any{"region": east, "tags": []any{"Name=x"}}, []string{"Name"}},
		{"REX-Ray's spelling", map[string]any{"region": east, "accessKey": accessKey}, []string{`did you mean "access_key"`}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, err := Driver().Open(t.Context(), tt.table, catalog.Env{PoolName: "cloud", StateDir: t.TempDir(), RunDir: t.TempDir()})
			wantErr(t, err, errdefs.ErrInvalid, tt.words...)
		})
	}
}

// TestREXRaysVariables: they fill in what the pool leaves open, and nothing else.
func TestREXRaysVariables(t *testing.T) {
	env := map[string]string{
		"EBS_REGION": "eu-west-1", "EBS_ENDPOINT": "ec2.eu-west-1.amazonaws.com", "EBS_KMSKEYID": "alias/k",
		"EBS_ACCESSKEY": accessKey, "EBS_SECRETKEY": secretKey,
	}
	lookup := func(name string) string { return env[name] }
	c := config{Type: "gp3"}
	used := c.fromREXRay(lookup)
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	if c.Region != "eu-west-1" || c.Endpoint != "https://ec2.eu-west-1.amazonaws.com" || c.KMSKey != "alias/k" || !c.Encrypted ||
		c.AccessKey != accessKey || c.SecretKey.Reveal() != secretKey || len(used) != len(env) {
		t.Errorf("%+v, used %q", c, used)
	}
	c = config{Type: "gp3", Region: east, Profile: "p"}
	if used := c.fromREXRay(lookup); c.Region != east || c.AccessKey != "" || c.SecretKey.Reveal() != "" || len(used) != 2 {
		t.Errorf("%+v, used %q", c, used)
	}
}
