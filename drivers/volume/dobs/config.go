package dobs

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type config struct {
	block.Config
	Token     catalog.Secret `opt:"token" help:"token of the API; better in token_file"`
	TokenFile string         `opt:"token_file" help:"file with the token, which only its owner can read; a new token in it is noticed"`
	TokenEnv  string         `opt:"token_env" help:"variable of the daemon's environment with the token; without any of the three DIGITALOCEAN_TOKEN, DIGITALOCEAN_ACCESS_TOKEN, DO_TOKEN or DOBS_TOKEN"`
	Region    string         `opt:"region" help:"region of a volume that is made without one, such as nyc3; without it that of the droplet"`
	Droplet   int64          `opt:"droplet" help:"ID of the droplet that this host is, where its metadata service is out of reach; needs region"`
	Endpoint  string         `opt:"endpoint" help:"URL of the API, where it is not DigitalOcean's own"`
	Tags      []string       `opt:"tags" help:"tags of each disk and snapshot that is made, besides Remora's own"`
}

// tokenVariables are where a token is looked for that the pool does not tell: as doctl and
// Terraform have it, Convoy, and REX-Ray.
var tokenVariables = []string{"DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN", "DO_TOKEN", "DOBS_TOKEN"}

// needless are variables of REX-Ray's plugin for DigitalOcean that say nothing here, and why.
var needless = map[string]string{
	"DOBS_CONVERTUNDERSCORES": "names are kept as they are",
	"DOBS_STATUSMAXATTEMPTS":  "the waits are right by themselves",
	"DOBS_STATUSINITIALDELAY": "the waits are right by themselves",
	"DOBS_STATUSTIMEOUT":      "the waits are right by themselves",
}

// described are the variables that a pool reads.
func described() []catalog.Variable {
	var all []catalog.Variable
	for _, name := range tokenVariables {
		all = append(all, catalog.Variable{Name: name, Help: "stands for the key token"})
	}
	return append(all, catalog.Variable{Name: "DOBS_REGION", Help: "stands for the key region, as with REX-Ray"})
}

// fromREXRay fills in what REX-Ray's variables say and the pool does not, and returns a word on each.
func (c *config) fromREXRay(lookup func(string) string) (words []string) {
	if region := lookup("DOBS_REGION"); region != "" && c.Region == "" {
		c.Region = region
		words = append(words, "DOBS_REGION is taken as region")
	}
	for name, why := range needless {
		if lookup(name) != "" {
			words = append(words, name+" is not needed: "+why)
		}
	}
	return words
}

var (
	regionForm = regexp.MustCompile(`^[a-z]{3}[0-9]{1,2}$`)
	wordForm   = regexp.MustCompile(`^[A-Za-z0-9_:-]+$`)
)

// check refuses what is wrong in the pool's table.
func (c *config) check() error {
	given := 0
	for _, s := range []string{c.Token.Reveal(), c.TokenFile, c.TokenEnv} {
		if s != "" {
			given++
		}
	}
	switch {
	case given > 1:
		return errdefs.Errorf(errdefs.ErrInvalid, `keys "token", "token_file" and "token_env": give one of them`)
	case c.Region != "" && !regionForm.MatchString(c.Region):
		return errdefs.Errorf(errdefs.ErrInvalid, `key "region": %q is not the short name of a region, such as nyc3`, c.Region)
	case c.Droplet < 0:
		return errdefs.Errorf(errdefs.ErrInvalid, `key "droplet": %d is not the ID of a droplet`, c.Droplet)
	case c.Droplet != 0 && c.Region == "":
		return errdefs.Errorf(errdefs.ErrInvalid, `key "droplet" needs "region"`)
	}
	for _, tag := range c.Tags {
		switch {
		case !wordForm.MatchString(tag) || len(tag) > 255:
			return errdefs.Errorf(errdefs.ErrInvalid, `key "tags": %q: a tag of DigitalOcean has up to 255 letters, digits, colons, dashes and underscores`, tag)
		case strings.HasPrefix(strings.ToLower(tag), prefix):
			return errdefs.Errorf(errdefs.ErrInvalid, `key "tags": %q is not for others to set`, tag)
		}
	}
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, `key "endpoint": not a URL such as https://api.digitalocean.com`)
		}
	}
	return nil
}

// checkSpec refuses what DigitalOcean would.
func checkSpec(s *block.Spec) error {
	if s.Zone != "" && !regionForm.MatchString(s.Zone) {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "zone": %q is not the short name of a region, such as nyc3`, s.Zone)
	}
	return nil
}

// readToken finds the token.
func (c *config) readToken(lookup func(string) string) (*token, error) {
	t := &token{file: c.TokenFile}
	switch {
	case c.TokenFile != "":
		return t, t.read()
	case c.TokenEnv != "":
		if t.value = strings.TrimSpace(lookup(c.TokenEnv)); t.value == "" {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, `key "token_env": the daemon's environment has no %s`, c.TokenEnv)
		}
	case c.Token.Reveal() != "":
		t.value = strings.TrimSpace(c.Token.Reveal())
	default:
		for _, name := range tokenVariables {
			t.value = cmp.Or(t.value, strings.TrimSpace(lookup(name)))
		}
		if t.value == "" {
			return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "there is no token of DigitalOcean's API"),
				`write token_file = "…" into the pool, or give the daemon the variable DIGITALOCEAN_TOKEN`)
		}
	}
	return t, t.check()
}

var tokenForm = regexp.MustCompile(`^[!-~]+$`)

// readFile returns the token in a file, which nobody else may read.
func readFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", errdefs.Errorf(errdefs.ErrInvalid, `key "token_file": %w`, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `key "token_file": others can read %s`, path), "chmod 600 "+path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", errdefs.Errorf(errdefs.ErrInvalid, `key "token_file": %w`, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// account says whose requests are counted together, without the token.
func (c *config) account(t *token) string {
	sum := sha256.Sum256([]byte(t.get()))
	return strings.TrimSpace(fmt.Sprintf("dobs %x %s", sum[:4], c.Endpoint))
}
