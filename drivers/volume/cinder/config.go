package cinder

import (
	"os"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type config struct {
	block.Config
	Cloud           string         `opt:"cloud" help:"name of a cloud in clouds.yaml that says how to log in; keys of the pool go before what it says"`
	CloudsFile      string         `opt:"clouds_file" help:"the clouds.yaml, with secure.yaml beside it; without it as OpenStack's own tools look for it, in ~/.config/openstack and /etc/openstack"`
	AuthURL         string         `opt:"auth_url" help:"URL of Keystone, such as https://keystone.example.net:5000/v3"`
	UserName        string         `opt:"user_name" help:"name of the user"`
	UserID          string         `opt:"user_id" help:"ID of the user, in place of user_name and its domain"`
	Password        catalog.Secret `opt:"password" help:"password of the user; better in password_file"`
	PasswordFile    string         `opt:"password_file" help:"file with the password, or with the secret of the application credential, which only its owner can read"`
	DomainName      string         `opt:"domain_name" help:"domain of the user, and of the project if that has none of its own"`
	DomainID        string         `opt:"domain_id" help:"the same, by ID"`
	ProjectName     string         `opt:"project_name" help:"project (tenant) whose volumes they are"`
	ProjectID       string         `opt:"project_id" help:"the same, by ID"`
	ProjectDomain   string         `opt:"project_domain_name" help:"domain of the project"`
	ProjectDomainID string         `opt:"project_domain_id" help:"the same, by ID"`
	Token           catalog.Secret `opt:"token" help:"a token in place of a password; when it has expired the pool asks for another, and gets none"`
	TrustID         string         `opt:"trust_id" help:"trust by which the user acts in a project of somebody else"`
	AppCredID       string         `opt:"application_credential_id" help:"application credential, in place of a user and a project"`
	AppCredName     string         `opt:"application_credential_name" help:"the same by its name, with the user who made it"`
	AppCredSecret   catalog.Secret `opt:"application_credential_secret" help:"secret of the application credential; better in password_file"`
	Region          string         `opt:"region" help:"region of Cinder and Nova; without it the only one that the catalogue has"`
	Interface       string         `opt:"interface" enum:"public,internal,admin" default:"public" help:"which of the catalogue's endpoints are asked"`
	CAFile          string         `opt:"ca_file" help:"certificates to trust besides those of the system"`
	Insecure        bool           `opt:"insecure" help:"trust any certificate; whoever is on the way can then read the password"`
	Zone            string         `opt:"zone" help:"availability zone of a volume that is made without one; without it Cinder chooses"`
	Type            string         `opt:"type" help:"type of a volume that is made without one; without it Cinder's default"`
	Server          string         `opt:"server" help:"ID of the server that this is, if neither the metadata service nor the firmware says it"`
}

// check refuses what is wrong in the pool's table, and reads the file with the secret.
func (c *config) check() error {
	secret := &c.Password
	if c.AppCredID != "" || c.AppCredName != "" {
		secret = &c.AppCredSecret
	}
	if c.PasswordFile != "" {
		if !zero(*secret) {
			return errdefs.Errorf(errdefs.ErrInvalid, `key "password_file": there is a password or secret in the pool too; leave out one of them`)
		}
		read, err := readSecret(c.PasswordFile)
		if err != nil {
			return err
		}
		*secret = read
	}
	return c.checkLogin()
}

// checkLogin refuses what Keystone would refuse in words that nobody understands.
func (c *config) checkLogin() error {
	for _, two := range [][4]string{
		{"user_name", c.UserName, "user_id", c.UserID},
		{"domain_name", c.DomainName, "domain_id", c.DomainID},
		{"project_name", c.ProjectName, "project_id", c.ProjectID},
		{"project_domain_name", c.ProjectDomain, "project_domain_id", c.ProjectDomainID},
		{"trust_id", c.TrustID, "project_name or project_id", c.ProjectName + c.ProjectID},
		{"application_credential_id", c.AppCredID, "application_credential_name", c.AppCredName},
		{"application_credential_id", c.AppCredID, "user_name or user_id", c.UserName + c.UserID},
	} {
		if two[1] != "" && two[3] != "" {
			return errdefs.Errorf(errdefs.ErrInvalid, "keys %q and %q: leave out one of them", two[0], two[2])
		}
	}
	if c.Cloud != "" {
		return nil
	}
	user := c.UserName != "" || c.UserID != ""
	missing := func(keys string) error {
		err := errdefs.Errorf(errdefs.ErrInvalid, "key %s is missing", keys)
		return errdefs.Hint(err, `log in with auth_url, user_name, password and project_name, with application_credential_id and its secret, or with "cloud" of a clouds.yaml`)
	}
	switch {
	case c.AuthURL == "":
		return missing(`"auth_url"`)
	case c.AppCredID != "", c.AppCredName != "":
		if zero(c.AppCredSecret) {
			return missing(`"application_credential_secret"`)
		}
		if c.AppCredName != "" && !user {
			return missing(`"user_name"`)
		}
	case !zero(c.Token):
	case !user:
		return missing(`"user_name"`)
	case zero(c.Password):
		return missing(`"password"`)
	case c.ProjectName == "" && c.ProjectID == "" && c.TrustID == "":
		return missing(`"project_name"`)
	}
	if !strings.HasPrefix(c.AuthURL, "http://") && !strings.HasPrefix(c.AuthURL, "https://") {
		return errdefs.Errorf(errdefs.ErrInvalid, `key "auth_url": %q is not a URL, such as https://keystone.example.net:5000/v3`, c.AuthURL)
	}
	return nil
}

func zero(s catalog.Secret) bool { return s.Reveal() == "" }

// readSecret reads a file that only its owner can read.
func readSecret(path string) (none catalog.Secret, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return none, errdefs.Errorf(errdefs.ErrInvalid, `key "password_file": %w`, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return none, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `key "password_file": others can read %s`, path), "chmod 600 "+path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return none, errdefs.Errorf(errdefs.ErrInvalid, `key "password_file": %w`, err)
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" {
		return none, errdefs.Errorf(errdefs.ErrInvalid, `key "password_file": %s is empty`, path)
	}
	return catalog.NewSecret(secret), nil
}

// multiAttach is the option that is there to be refused.
const multiAttach = "multi_attach"

// checkSpec fills in what the pool says of a new disk, and refuses what Cinder would.
func (c *config) checkSpec(s *block.Spec) error {
	if s.Zone == "" {
		s.Zone = c.Zone
	}
	if s.Type == "" && s.Snapshot == nil && s.Source == nil {
		s.Type = c.Type
	}
	if slices.Contains([]string{"", "false", "0"}, strings.ToLower(s.Extra[multiAttach])) {
		return nil
	}
	err := errdefs.Errorf(errdefs.ErrInvalid, "option %q: a file system that two hosts have mounted is destroyed, whatever Cinder allows", multiAttach)
	return errdefs.Hint(err, "for files that several hosts share, use a pool of the driver mount (NFS, such as OpenStack Manila)")
}

// availability is the word for the interface.
func (c *config) availability() gophercloud.Availability {
	switch c.Interface {
	case "internal":
		return gophercloud.AvailabilityInternal
	case "admin":
		return gophercloud.AvailabilityAdmin
	}
	return gophercloud.AvailabilityPublic
}
