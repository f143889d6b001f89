package dobs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TestWrongKeys: what is wrong in a pool is refused before anybody is asked.
func TestWrongKeys(t *testing.T) {
	ignoreEnvironment(t)
	dir := t.TempDir()
	loose, none := filepath.Join(dir, "loose"), filepath.Join(dir, "none")
	if err := os.WriteFile(loose, []byte(secret), 0o644); err != nil {
		t.Fatal(err)
	}
	blank := filepath.Join(dir, "blank")
	if err := os.WriteFile(blank, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		table map[string]any
		words []string
	}{
		{map[string]any{}, []string{"no token", "token_file", "DIGITALOCEAN_TOKEN"}},
		{map[string]any{"token": secret, "token_file": loose}, []string{"one of them"}},
		{map[string]any{"token_file": loose}, []string{"others can read", "chmod 600"}},
		{map[string]any{"token_file": none}, []string{"token_file", "no such file"}},
		{map[string]any{"token_file": blank}, []string{"empty"}},
		{map[string]any{"token_env": "NOT_THERE"}, []string{"NOT_THERE"}},
		{map[string]any{"token": "two words"}, []string{"not shown"}},
		{map[string]any{"token": secret, "region": "New York"}, []string{"nyc3"}},
		{map[string]any{"token": secret, "droplet": int64(5)}, []string{"region"}},
		{map[string]any{"token": secret, "droplet": int64(-5), "region": nyc}, []string{"-5"}},
		{map[string]any{"token": secret, "endpoint": "api.digitalocean.com"}, []string{"https://"}},
		{map[string]any{"token": secret, "endpoint": "https://u:" + secret + "@x"}, []string{"endpoint"}},
		{map[string]any{"token": secret, "tags": []any{"a b"}}, []string{"a b", "255"}},
		{map[string]any{"token": secret, "tags": []any{"Remora:pool:x"}}, []string{"not for others"}},
		{map[string]any{"token": secret, "size": "17000g"}, []string{"largest"}},
		{map[string]any{"token": secret, "iops": "5"}, []string{"unknown key"}},
	} {
		_, err := Driver().Open(t.Context(), tt.table, catalog.Env{PoolName: "data", StateDir: dir, RunDir: dir})
		wantErr(t, err, errdefs.ErrInvalid, tt.words...)
	}
}

// TestToken: it is found where the pool says, or where other tools have it.
func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("of-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"DO_TOKEN": "convoy", "DOBS_TOKEN": "rexray", "MINE": "mine"}
	for _, tt := range []struct {
		c    config
		drop string
		want string
	}{
		{config{Token: catalog.NewSecret("of-key")}, "", "of-key"},
		{config{TokenFile: file}, "", "of-file"},
		{config{TokenEnv: "MINE"}, "", "mine"},
		{config{}, "", "convoy"},
		{config{}, "DO_TOKEN", "rexray"},
	} {
		got, err := tt.c.readToken(func(name string) string {
			if name == tt.drop {
				return ""
			}
			return env[name]
		})
		if err != nil || got.get() != tt.want {
			t.Errorf("token is %v, %v; want %s", got, err, tt.want)
		}
		if a := tt.c.account(got); strings.Contains(a, tt.want) {
			t.Errorf("the account's name shows the token: %s", a)
		}
	}
}

// TestNewTokenInFile: when the old one is refused, the file is read again.
func TestNewTokenInFile(t *testing.T) {
	c := newCloud(t, still())
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := c.pool()
	conf.Token, conf.TokenFile = catalog.Secret{}, file
	p := c.open(t, conf, "")
	_, err := p.List(t.Context(), block.Query{})
	wantErr(t, err, errdefs.ErrDenied, "token")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	was := p.Owner()
	_, err = p.List(t.Context(), block.Query{})
	wantErr(t, err, errdefs.ErrUnavailable, "new token")
	if now := p.Owner(); now == was || now != c.open(t, c.pool(), "").Owner() {
		t.Errorf("the volumes were those of %q, and are those of %q", was, now)
	}
	if _, err := p.List(t.Context(), block.Query{}); err != nil {
		t.Error(err)
	}
}

// TestREXRayVariables: those that mean something are used where the pool leaves it open, and a word
// is said on each.
func TestREXRayVariables(t *testing.T) {
	env := map[string]string{"DOBS_REGION": "fra1", "DOBS_CONVERTUNDERSCORES": "true", "DOBS_STATUSTIMEOUT": "2m"}
	lookup := func(name string) string { return env[name] }
	var open config
	words := open.fromREXRay(lookup)
	slices.Sort(words)
	if open.Region != "fra1" || len(words) != 3 || !strings.Contains(words[0], "names are kept") {
		t.Errorf("region is %q, words are %q", open.Region, words)
	}
	set := config{Region: nyc}
	if words := set.fromREXRay(lookup); set.Region != nyc || len(words) != 2 {
		t.Errorf("region is %q, words are %q", set.Region, words)
	}
}

// TestOptions: those that DigitalOcean has are taken, and all others refused with what there is.
func TestOptions(t *testing.T) {
	c := newCloud(t, quick())
	d := c.daemon(t)
	drv := d.driver(t)
	for option, words := range map[string][]string{
		"type=gp3":        {"nothing of the kind", "leave it out"},
		"iops=100":        {"nothing of the kind"},
		"encrypted=true":  {"nothing of the kind"},
		"kms_key=x":       {"nothing of the kind"},
		"volumeType=ssd":  {"volumeType"},
		"zone=New York":   {"nyc3"},
		"size=17t":        {"largest", "16t"},
		"size=0":          {"below"},
		"snapshot=none":   {"no snapshot none"},
		"multi_attach=no": {"unknown option"},
	} {
		k, v, _ := strings.Cut(option, "=")
		wantErr(t, drv.Create(t.Context(), "data", map[string]string{k: v}), errdefs.ErrInvalid, words...)
	}
	// A number alone is GiB, and keys are read in any case, as REX-Ray has it.
	if err := drv.Create(t.Context(), "Pg_Data.1", map[string]string{"Size": "2", "availabilityZone": "fra1", "fsType": "xfs"}); err != nil {
		t.Fatal(err)
	}
	p := c.open(t, c.pool(), d.metadata)
	all, err := p.List(t.Context(), block.Query{Namespace: "test", Names: []string{"Pg_Data.1"}})
	if err != nil || len(all) != 1 || all[0].Size != 2*gib || all[0].Zone != "fra1" || all[0].Tags["fs"] != "xfs" {
		t.Fatalf("disks are %+v, %v", all, err)
	}
	v, _, err := c.sdk(t).Storage.GetVolume(t.Context(), all[0].ID)
	if err != nil || !slices.Contains(v.Tags, "remora:volume:Pg_Data:2e1:ua") || !strings.Contains(v.Description, "Pg_Data.1") {
		t.Errorf("people see %v, %v", v, err)
	}
	if strings.Contains(v.Name, "Pg") || len(v.Name) > 64 {
		t.Errorf("its name is %q", v.Name)
	}
}
