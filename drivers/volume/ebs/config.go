package ebs

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type config struct {
	block.Config
	Region          string         `opt:"region" help:"region of the volumes, such as eu-west-1; without it that of the AWS configuration, or of the instance"`
	Zone            string         `opt:"zone" help:"zone of a volume that is made without one; without it that of the instance"`
	AccessKey       string         `opt:"access_key" help:"access key ID; without it the credentials of the profile, of the environment, or of the instance's role"`
	SecretKey       catalog.Secret `opt:"secret_key" help:"the secret of access_key; better in credentials_file"`
	SessionToken    catalog.Secret `opt:"session_token" help:"session token of access_key, where it has one"`
	CredentialsFile string         `opt:"credentials_file" help:"file with credentials, in the form of ~/.aws/credentials, which only its owner can read"`
	Profile         string         `opt:"profile" help:"profile of credentials_file, or of the AWS configuration, that is used"`
	Endpoint        string         `opt:"endpoint" help:"URL of the API, where it is not that of the region"`
	Type            string         `opt:"type" enum:"gp3,gp2,io2,io1,st1,sc1,standard" default:"gp3" help:"type of a volume that is made without one"`
	IOPS            int64          `opt:"iops" help:"operations a second of a volume of the pool's type that is made without them"`
	Throughput      int64          `opt:"throughput" help:"MiB a second of a volume of the pool's type that is made without them"`
	Encrypted       bool           `opt:"encrypted" help:"whether volumes are encrypted that do not say so themselves; without it as the account has it"`
	KMSKey          string         `opt:"kms_key" help:"key of KMS that encrypts the volumes which name none, by ID, ARN or alias; they are encrypted then"`
	Tags            []string       `opt:"tags" help:"tags of each disk and snapshot that is made, as KEY=VALUE, such as those by which costs are told apart"`
}

// variable is one of REX-Ray's, which fills in what the pool leaves open.
type variable struct {
	name string
	used string // the key that it stands for
	set  func(c *config, value string)
	open func(c config) bool
}

// variables are those of REX-Ray's plugin for EBS that mean something here. They are the only
// way to set up a managed plugin, whose users have them in their scripts.
func variables() []variable {
	noKey := func(c config) bool { return c.AccessKey == "" && c.CredentialsFile == "" && c.Profile == "" }
	return []variable{
		{"EBS_REGION", "region", func(c *config, v string) { c.Region = v }, func(c config) bool { return c.Region == "" }},
		{"EBS_ENDPOINT", "endpoint", func(c *config, v string) { c.Endpoint = v }, func(c config) bool { return c.Endpoint == "" }},
		{"EBS_KMSKEYID", "kms_key", func(c *config, v string) { c.KMSKey = v }, func(c config) bool { return c.KMSKey == "" }},
		// The secret first: it belongs to a key that is not there yet.
		{"EBS_SECRETKEY", "secret_key", func(c *config, v string) { c.SecretKey = catalog.NewSecret(v) }, noKey},
		{"EBS_ACCESSKEY", "access_key", func(c *config, v string) { c.AccessKey = v }, noKey},
	}
}

// ofAmazon are those of the tools of Amazon's own that are of use in a place without files.
var ofAmazon = []catalog.Variable{
	{Name: "AWS_ACCESS_KEY_ID", Help: "access key ID, as every tool of Amazon reads it"},
	{Name: "AWS_SECRET_ACCESS_KEY", Help: "its secret"},
	{Name: "AWS_SESSION_TOKEN", Help: "its session token, where it has one"},
	{Name: "AWS_REGION", Help: "region, where the pool and EBS_REGION name none"},
	{Name: "AWS_EC2_METADATA_SERVICE_ENDPOINT", Help: "where the instance's metadata is served, if not at 169.254.169.254"},
}

// described are the variables that a pool reads.
func described() []catalog.Variable {
	var all []catalog.Variable
	for _, v := range variables() {
		all = append(all, catalog.Variable{Name: v.name, Help: "stands for the key " + v.used + ", as with REX-Ray"})
	}
	return append(all, ofAmazon...)
}

// fromREXRay fills in what REX-Ray's variables say, and returns which were used.
func (c *config) fromREXRay(lookup func(string) string) (used []string) {
	for _, v := range variables() {
		if value := lookup(v.name); value != "" && v.open(*c) {
			v.set(c, value)
			used = append(used, v.name+" as "+v.used)
		}
	}
	return used
}

var regionForm = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]+$`)

// check refuses what is wrong in the pool's table, and makes one form of what may be given in
// several.
func (c *config) check() error {
	if c.Region != "" && !regionForm.MatchString(c.Region) {
		return errdefs.Errorf(errdefs.ErrInvalid, `key "region": %q is not the name of a region, such as eu-west-1`, c.Region)
	}
	switch secret := c.SecretKey.Reveal(); {
	case c.AccessKey != "" && secret == "":
		return errdefs.Errorf(errdefs.ErrInvalid, `key "access_key" needs "secret_key"`)
	case c.AccessKey == "" && (secret != "" || c.SessionToken.Reveal() != ""):
		return errdefs.Errorf(errdefs.ErrInvalid, `key "secret_key" needs "access_key"`)
	case c.AccessKey != "" && (c.CredentialsFile != "" || c.Profile != ""):
		return errdefs.Errorf(errdefs.ErrInvalid, `key "access_key": there is a profile or a credentials_file too; leave out one of them`)
	}
	if c.CredentialsFile != "" {
		info, err := os.Stat(c.CredentialsFile)
		switch {
		case err != nil:
			return errdefs.Errorf(errdefs.ErrInvalid, `key "credentials_file": %w`, err)
		case info.Mode().Perm()&0o077 != 0:
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `key "credentials_file": others can read %s`, c.CredentialsFile), "chmod 600 "+c.CredentialsFile)
		}
	}
	if c.Endpoint != "" && !strings.Contains(c.Endpoint, "://") { // as REX-Ray has it
		c.Endpoint = "https://" + c.Endpoint
	}
	if c.KMSKey != "" {
		c.Encrypted = true
	}
	for _, t := range c.Tags {
		key, value, ok := strings.Cut(t, "=")
		if !ok || key == "" || utf8.RuneCountInString(key) > 127 || utf8.RuneCountInString(value) > 255 || strings.Contains(value, "\n") {
			return errdefs.Errorf(errdefs.ErrInvalid, `key "tags": %q is not KEY=VALUE`, t)
		}
		if k := strings.ToLower(key); k == "name" || strings.HasPrefix(k, "aws:") || strings.HasPrefix(k, prefix) {
			return errdefs.Errorf(errdefs.ErrInvalid, `key "tags": %q is not for others to set`, key)
		}
	}
	if r := kinds[c.Type]; c.IOPS != 0 && !r.iops || c.Throughput != 0 && !r.throughput {
		return errdefs.Errorf(errdefs.ErrInvalid, `key "type": iops and throughput cannot be chosen for %s`, c.Type)
	}
	if r := kinds[c.Type]; r.needsIOPS && c.IOPS == 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, `key "type": %s needs "iops"`, c.Type)
	}
	return nil
}

// kind is what a type of disk can have. How much of it, and how much for each GiB, changes from
// year to year and is left to EBS.
type kind struct {
	min                         int64 // GiB
	iops, needsIOPS, throughput bool
}

var kinds = map[string]kind{
	"gp3": {min: 1, iops: true, throughput: true}, "gp2": {min: 1}, "standard": {min: 1},
	"io1": {min: 4, iops: true, needsIOPS: true}, "io2": {min: 4, iops: true, needsIOPS: true},
	"st1": {min: 125}, "sc1": {min: 125},
}

// multiAttach is the option that is there to be refused.
const multiAttach = "multi_attach"

// checkSpec fills in what the pool says of a new disk, and refuses what EBS would.
func (c *config) checkSpec(region string) func(*block.Spec) error {
	return func(s *block.Spec) error {
		if s.Type == "" {
			s.Type = c.Type
		}
		k, ok := kinds[s.Type]
		if !ok {
			return errdefs.Errorf(errdefs.ErrInvalid, `option "type": EBS has no %q (there are: %s)`, s.Type, strings.Join(typeNames(), ", "))
		}
		if s.Type == c.Type {
			s.IOPS, s.Throughput = either(s.IOPS, c.IOPS), either(s.Throughput, c.Throughput)
		}
		switch {
		case s.IOPS < 0 || s.IOPS > 1<<31-1:
			return errdefs.Errorf(errdefs.ErrInvalid, `option "iops": no disk has %d`, s.IOPS)
		case s.Throughput < 0 || s.Throughput > 1<<31-1:
			return errdefs.Errorf(errdefs.ErrInvalid, `option "throughput": no disk has %d`, s.Throughput)
		case s.IOPS != 0 && !k.iops:
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `option "iops": those of type %s cannot be chosen`, s.Type), "take type gp3, io1 or io2, or leave iops out")
		case s.Throughput != 0 && !k.throughput:
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `option "throughput": that of type %s cannot be chosen`, s.Type), "take type gp3, or leave throughput out")
		case s.IOPS == 0 && k.needsIOPS:
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `option "iops" is missing: type %s is paid for by them`, s.Type), "add iops=, or take type gp3")
		case s.Size != 0 && s.Size < k.min*gib:
			return errdefs.Errorf(errdefs.ErrInvalid, "size %s: the smallest disk of type %s has %dg", catalog.Bytes(s.Size), s.Type, k.min)
		case s.Zone != "" && !strings.HasPrefix(s.Zone, region):
			return errdefs.Errorf(errdefs.ErrInvalid, `option "zone": %q is not in region %s, which is the pool's`, s.Zone, region)
		}
		if err := refuseMulti(s.Extra[multiAttach]); err != nil {
			return err
		}
		return c.encrypt(s)
	}
}

// encrypt decides whether a new disk is encrypted, and with which key.
func (c *config) encrypt(s *block.Spec) error {
	plain := s.Encrypted != nil && !*s.Encrypted
	if s.KMSKey != "" && plain {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "kms_key": encrypted is false`)
	}
	if plain {
		return nil
	}
	if s.KMSKey == "" {
		s.KMSKey = c.KMSKey
	}
	if yes := true; s.KMSKey != "" || c.Encrypted {
		s.Encrypted = &yes
	}
	return nil
}

func refuseMulti(value string) error {
	switch strings.ToLower(value) {
	case "", "false", "0":
		return nil
	}
	err := errdefs.Errorf(errdefs.ErrInvalid, "option %q: a file system that two hosts have mounted is destroyed, whatever EBS allows", multiAttach)
	return errdefs.Hint(err, "for files that several hosts share, use a pool of the driver mount (NFS, such as Amazon EFS)")
}

func either(a, b int64) int64 {
	if a != 0 {
		return a
	}
	return b
}

func typeNames() []string {
	all := make([]string, 0, len(kinds))
	for name := range kinds {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// ownTags returns the tags that the pool adds. check has seen that they can be read.
func (c config) ownTags() map[string]string {
	all := make(map[string]string, len(c.Tags))
	for _, t := range c.Tags {
		k, v, _ := strings.Cut(t, "=")
		all[k] = v
	}
	return all
}

// account says whose requests are counted together, without a secret.
func (c config) account(region string) string {
	who := "of the environment or the instance"
	switch {
	case c.AccessKey != "":
		who = c.AccessKey
	case c.CredentialsFile != "" || c.Profile != "":
		who = strings.TrimSpace(fmt.Sprintf("%s %s", c.CredentialsFile, c.Profile))
	}
	if c.Endpoint != "" {
		region += " " + c.Endpoint
	}
	return "ebs " + region + " " + who
}
