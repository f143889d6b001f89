package cinder

import (
	"github.com/remora-plugins/remora/internal/catalog"
)

// variable fills in a key that the pool leaves open.
type variable struct {
	name, key string
	set       func(c *config, value string)
	open      func(c config) bool
}

func text(name, key string, field func(c *config) *string, others ...func(c *config) *string) variable {
	return variable{name, key, func(c *config, v string) { *field(c) = v }, func(c config) bool {
		open := *field(&c) == ""
		for _, o := range others {
			open = open && *o(&c) == ""
		}
		return open
	}}
}

func secret(name, key string, field func(c *config) *catalog.Secret) variable {
	return variable{name, key, func(c *config, v string) { *field(c) = catalog.NewSecret(v) }, func(c config) bool {
		return zero(*field(&c)) && c.PasswordFile == ""
	}}
}

// The keys that variables stand for.
func authURL(c *config) *string         { return &c.AuthURL }
func userName(c *config) *string        { return &c.UserName }
func userID(c *config) *string          { return &c.UserID }
func domainName(c *config) *string      { return &c.DomainName }
func domainID(c *config) *string        { return &c.DomainID }
func projectName(c *config) *string     { return &c.ProjectName }
func projectID(c *config) *string       { return &c.ProjectID }
func projectDomain(c *config) *string   { return &c.ProjectDomain }
func projectDomainID(c *config) *string { return &c.ProjectDomainID }
func trustID(c *config) *string         { return &c.TrustID }
func region(c *config) *string          { return &c.Region }
func caFile(c *config) *string          { return &c.CAFile }

// ofREXRay are the variables of REX-Ray's plugin for Cinder that mean something here. They are the
// only way to set up a managed plugin, whose users have them in their scripts.
func ofREXRay() []variable {
	return []variable{
		text("CINDER_AUTHURL", "auth_url", authURL),
		text("CINDER_USERID", "user_id", userID, userName),
		text("CINDER_USERNAME", "user_name", userName, userID),
		secret("CINDER_PASSWORD", "password", func(c *config) *catalog.Secret { return &c.Password }),
		secret("CINDER_TOKENID", "token", func(c *config) *catalog.Secret { return &c.Token }),
		text("CINDER_TRUSTID", "trust_id", trustID, projectID, projectName),
		text("CINDER_TENANTID", "project_id", projectID, projectName, trustID),
		text("CINDER_TENANTNAME", "project_name", projectName, projectID, trustID),
		text("CINDER_DOMAINID", "domain_id", domainID, domainName),
		text("CINDER_DOMAINNAME", "domain_name", domainName, domainID),
		text("CINDER_REGIONNAME", "region", region),
		text("CINDER_AVAILABILITYZONENAME", "zone", func(c *config) *string { return &c.Zone }),
		text("CINDER_CACERT", "ca_file", caFile),
	}
}

// ofOpenStack are those that every tool of OpenStack reads.
func ofOpenStack() []variable {
	return []variable{
		text("OS_CLOUD", "cloud", func(c *config) *string { return &c.Cloud }),
		text("OS_AUTH_URL", "auth_url", authURL),
		text("OS_USER_ID", "user_id", userID, userName),
		text("OS_USERNAME", "user_name", userName, userID),
		secret("OS_PASSWORD", "password", func(c *config) *catalog.Secret { return &c.Password }),
		secret("OS_TOKEN", "token", func(c *config) *catalog.Secret { return &c.Token }),
		text("OS_TRUST_ID", "trust_id", trustID, projectID, projectName),
		text("OS_PROJECT_ID", "project_id", projectID, projectName, trustID),
		text("OS_PROJECT_NAME", "project_name", projectName, projectID, trustID),
		text("OS_TENANT_ID", "project_id", projectID, projectName, trustID),
		text("OS_TENANT_NAME", "project_name", projectName, projectID, trustID),
		text("OS_USER_DOMAIN_ID", "domain_id", domainID, domainName),
		text("OS_USER_DOMAIN_NAME", "domain_name", domainName, domainID),
		text("OS_DOMAIN_ID", "domain_id", domainID, domainName),
		text("OS_DOMAIN_NAME", "domain_name", domainName, domainID),
		text("OS_PROJECT_DOMAIN_ID", "project_domain_id", projectDomainID, projectDomain),
		text("OS_PROJECT_DOMAIN_NAME", "project_domain_name", projectDomain, projectDomainID),
		text("OS_APPLICATION_CREDENTIAL_ID", "application_credential_id", func(c *config) *string { return &c.AppCredID }),
		text("OS_APPLICATION_CREDENTIAL_NAME", "application_credential_name", func(c *config) *string { return &c.AppCredName }),
		secret("OS_APPLICATION_CREDENTIAL_SECRET", "application_credential_secret", func(c *config) *catalog.Secret { return &c.AppCredSecret }),
		text("OS_REGION_NAME", "region", region),
		text("OS_CACERT", "ca_file", caFile),
	}
}

// described are the variables that a pool reads.
func described() []catalog.Variable {
	var all []catalog.Variable
	for _, v := range append(ofREXRay(), ofOpenStack()...) {
		all = append(all, catalog.Variable{Name: v.name, Help: "stands for the key " + v.key})
	}
	return all
}

// fromEnvironment fills in what the pool leaves open: from REX-Ray's variables, and if nothing
// says yet where to log in, from those of OpenStack's own tools. It returns which were used.
func (c *config) fromEnvironment(lookup func(string) string) (used []string) {
	fill := func(all []variable) {
		for _, v := range all {
			if value := lookup(v.name); value != "" && v.open(*c) {
				v.set(c, value)
				used = append(used, v.name+" as "+v.key)
			}
		}
	}
	if c.Cloud == "" && c.AppCredID == "" && c.AppCredName == "" && zero(c.Token) {
		fill(ofREXRay())
	}
	if c.Cloud == "" && c.AuthURL == "" {
		fill(ofOpenStack())
	}
	return used
}
