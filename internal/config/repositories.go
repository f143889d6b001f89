package config

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// repositoriesEnv names repositories that are made by the environment alone.
const repositoriesEnv = "REMORA_REPOSITORIES"

// Repository is one place where backups lie. Secrets are not in it, but where they are.
type Repository struct {
	Name string
	// URL has the scheme file, s3 or sftp, and a path that is not empty.
	URL *url.URL
	// PasswordFile or PasswordEnv, one of them, says where the password is.
	PasswordFile string
	PasswordEnv  string
	// Parallel is how many files are read or written at a time; 0 is what suits the repository.
	Parallel int
	// Stall is how long nothing may move before it is given up.
	Stall time.Duration
	S3    RepositoryS3
	SFTP  RepositorySFTP
}

// The bounds of what a repository's numbers may be.
const (
	maxParallel = 64
	minStall    = 5 * time.Second
)

// RepositoryS3 is about a repository in S3.
type RepositoryS3 struct {
	// Endpoint is an URL with the scheme http or https.
	Endpoint *url.URL
	Region   string
	CAFile   string
	// CredentialsFile is in the form of ~/.aws/credentials. Without one the variables are
	// read.
	CredentialsFile string
	AccessKeyEnv    string
	SecretKeyEnv    string
}

// RepositorySFTP is about a repository on a server with SFTP.
type RepositorySFTP struct {
	KeyFile    string
	KnownHosts string
}

// The schemes of repositories.
const (
	SchemeFile = "file"
	SchemeS3   = "s3"
	SchemeSFTP = "sftp"
)

// repositoryKey is a key of a repository.
type repositoryKey struct {
	Key
	// scheme is the one alone for which the key is there; empty is every one.
	scheme string
	set    func(r *Repository, text string) error
}

func repositoryKeys() []repositoryKey {
	return []repositoryKey{
		{
			Key: Key{Name: "url", Type: typeText, Help: "required: `/PATH` or `file:///PATH`, `s3://BUCKET/PREFIX`, or `sftp://USER@HOST:PORT/PATH`"},
			set: func(r *Repository, s string) (err error) { r.URL, err = repositoryURL(s); return err },
		},
		{
			Key: Key{Name: "password_file", Type: typePath, Help: "file with the password of the repository, of mode 0600; without the password nothing in it can be read, by nobody"},
			set: repositoryPath(func(r *Repository) *string { return &r.PasswordFile }),
		},
		{
			Key: Key{Name: "password_env", Type: typeText, Help: "in its place, the variable of the daemon that has the password"},
			set: repositoryVariable(func(r *Repository) *string { return &r.PasswordEnv }),
		},
		{
			Key: Key{Name: "parallel", Type: typeNumber, Default: "0", Help: "files that are read or written at a time, up to 64; 0 is one for each processor, and at least four with a server. Each takes some 40 MiB of memory"},
			set: func(r *Repository, s string) error {
				n, err := strconv.ParseUint(s, 10, 31)
				if err != nil || n > maxParallel {
					return errdefs.Errorf(errdefs.ErrInvalid, "%q is not a number from 0 to %d", s, maxParallel)
				}
				r.Parallel = int(n)
				return nil
			},
		},
		{
			Key: Key{Name: "stall", Type: typeDuration, Default: "1m", Help: "how long nothing may move before a repository is given up, 5s at least"},
			set: func(r *Repository, s string) error {
				d, err := time.ParseDuration(s)
				if err != nil || d < minStall {
					return errdefs.Errorf(errdefs.ErrInvalid, "%q is not a duration of 5s at least, such as 2m", s)
				}
				r.Stall = d
				return nil
			},
		},
		{
			Key: Key{Name: "endpoint", Type: typeText, Default: "https://s3.amazonaws.com", Help: "where S3 is served; any but Amazon's and Google's is asked with the bucket in the path"}, scheme: SchemeS3,
			set: func(r *Repository, s string) (err error) { r.S3.Endpoint, err = endpointURL(s); return err },
		},
		{
			Key: Key{Name: "region", Type: typeText, Help: "region of the bucket; empty asks the server"}, scheme: SchemeS3,
			set: func(r *Repository, s string) error { r.S3.Region = s; return nil },
		},
		{
			Key: Key{Name: "ca_file", Type: typePath, Help: "certificates, in PEM, by which the server is known; empty is those of the host"}, scheme: SchemeS3,
			set: repositoryPath(func(r *Repository) *string { return &r.S3.CAFile }),
		},
		{
			Key: Key{Name: "credentials_file", Type: typePath, Help: "file of mode 0600 with `aws_access_key_id = …` and `aws_secret_access_key = …`"}, scheme: SchemeS3,
			set: repositoryPath(func(r *Repository) *string { return &r.S3.CredentialsFile }),
		},
		{
			Key: Key{Name: "access_key_env", Type: typeText, Default: "AWS_ACCESS_KEY_ID", Help: "without that file, the variable of the daemon that has the access key"}, scheme: SchemeS3,
			set: repositoryVariable(func(r *Repository) *string { return &r.S3.AccessKeyEnv }),
		},
		{
			Key: Key{Name: "secret_key_env", Type: typeText, Default: "AWS_SECRET_ACCESS_KEY", Help: "and the one that has the secret key"}, scheme: SchemeS3,
			set: repositoryVariable(func(r *Repository) *string { return &r.S3.SecretKeyEnv }),
		},
		{
			Key: Key{Name: "key_file", Type: typePath, Help: "required: private key, without a passphrase, in a file of mode 0600"}, scheme: SchemeSFTP,
			set: repositoryPath(func(r *Repository) *string { return &r.SFTP.KeyFile }),
		},
		{
			Key: Key{Name: "known_hosts", Type: typePath, Help: "required: file with the server's key, as `ssh-keyscan` prints it"}, scheme: SchemeSFTP,
			set: repositoryPath(func(r *Repository) *string { return &r.SFTP.KnownHosts }),
		},
	}
}

// RepositoryKeys returns the keys of a repository.
func RepositoryKeys() []Key {
	var keys []Key
	for _, k := range repositoryKeys() {
		if k.scheme != "" {
			k.Help = strings.ToUpper(k.scheme) + ": " + k.Help
		}
		keys = append(keys, k.Key)
	}
	return keys
}

func repositoryPath(at func(*Repository) *string) func(*Repository, string) error {
	return func(r *Repository, s string) error {
		if !filepath.IsAbs(s) {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q is not an absolute path", s)
		}
		*at(r) = filepath.Clean(s)
		return nil
	}
}

// repositoryVariable takes the name of a variable. Its error does not show what was given:
// it may be the secret itself.
func repositoryVariable(at func(*Repository) *string) func(*Repository, string) error {
	return func(r *Repository, s string) error {
		const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
		if strings.Trim(s, letters+"0123456789") != "" || !strings.ContainsAny(s[:1], letters) {
			return errdefs.Errorf(errdefs.ErrInvalid, "want the name of a variable, such as BACKUP_PASSWORD")
		}
		*at(r) = s
		return nil
	}
}

func repositoryURL(s string) (*url.URL, error) {
	if strings.HasPrefix(s, "/") {
		return &url.URL{Scheme: SchemeFile, Path: filepath.Clean(s)}, nil
	}
	u, err := url.Parse(s)
	wrong := func(format string, args ...any) (*url.URL, error) {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, format, args...)
	}
	if err != nil {
		return wrong("is no URL") // the error shows all of it, with a password that may be in it
	}
	if _, has := u.User.Password(); has {
		return wrong("%q: no password in an URL", u.Redacted())
	}
	switch {
	case u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return wrong("%q: want nothing behind the path", s)
	case u.Scheme == SchemeFile && (u.Host != "" || u.User != nil || !filepath.IsAbs(u.Path)):
		return wrong("%q: want file:///PATH", s)
	case u.Scheme == SchemeS3 && (u.Host == "" || u.Port() != "" || u.User != nil):
		return wrong("%q: want s3://BUCKET/PREFIX", s)
	case u.Scheme == SchemeSFTP && (u.Hostname() == "" || u.User.Username() == "" || strings.Trim(u.Path, "/") == ""):
		return wrong("%q: want sftp://USER@HOST/PATH", s)
	case u.Scheme == SchemeFile:
		u.Path = filepath.Clean(u.Path)
	case u.Scheme != SchemeS3 && u.Scheme != SchemeSFTP:
		return wrong("%q: want an absolute path, file://, s3:// or sftp://", s)
	}
	return u, nil
}

func endpointURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "want https://HOST or http://HOST:PORT")
	}
	return u, nil
}

// repositories reads the tables of the repositories.
func (b *builder) repositories(raw any) error {
	tables, err := b.tables("repository", "[repository.offsite]", repositoriesEnv, raw)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		err := checkName("repository", name)
		var r Repository
		if err == nil {
			r, err = b.repository(name, tables[name])
		} else {
			err = fmt.Errorf("%s: %w", b.whereTable("repository."+name, repositoriesEnv), err)
		}
		if err != nil {
			return err
		}
		b.config.Repositories = append(b.config.Repositories, r)
	}
	return b.unknownFlags("repository")
}

// repository reads one repository.
func (b *builder) repository(name string, table map[string]any) (Repository, error) {
	prefix := "repository." + name + "."
	file := map[string]any{}
	for key, v := range table {
		file[prefix+key] = v
	}
	r := Repository{Name: name}
	var known []string
	given := map[string]Value{}
	for _, k := range repositoryKeys() {
		known = append(known, k.Name)
		if k.scheme != "" && (r.URL == nil || k.scheme != r.URL.Scheme) {
			k.Default = ""
		}
		v, err := b.resolve(Key{Name: prefix + k.Name, Env: envName(prefix + k.Name), Default: k.Default}, file)
		if err == nil && v.Value != "" {
			err = k.set(&r, v.Value)
		}
		if err == nil && v.Source != "default" && k.scheme != "" && r.URL != nil && k.scheme != r.URL.Scheme {
			err = errdefs.Errorf(errdefs.ErrInvalid, "is for a repository with %s:// alone", k.scheme)
		}
		if err != nil {
			return r, b.wrong(v.Key, v.Source, err)
		}
		if v.Value != "" {
			b.config.values = append(b.config.values, v)
			given[k.Name] = v
		}
		delete(file, prefix+k.Name)
	}
	for _, name := range []string{r.PasswordEnv, r.S3.AccessKeyEnv, r.S3.SecretKeyEnv} {
		b.used[name] = name // it may look like a key of ours
	}
	for _, full := range b.inOrder(file) {
		key := strings.TrimPrefix(full, prefix)
		return r, errdefs.Errorf(errdefs.ErrInvalid, "%s: repository %q: unknown key %q%s", b.where(full), name, key, near(key, known))
	}
	if err := r.check(given); err != nil {
		return r, fmt.Errorf("%s: repository %q: %w", b.whereTable("repository."+name, repositoriesEnv), name, err)
	}
	return r, nil
}

// check says what is missing.
func (r *Repository) check(given map[string]Value) error {
	missing := func(key, why string) error {
		return errdefs.Errorf(errdefs.ErrInvalid, "key %q is missing: %s", key, why)
	}
	_, file := given["password_file"]
	_, env := given["password_env"]
	switch {
	case r.URL == nil:
		return missing("url", "where it lies, such as /srv/backups or s3://bucket/prefix")
	case !file && !env:
		return missing("password_file", "a repository is encrypted; or give password_env")
	case file && env:
		return errdefs.Errorf(errdefs.ErrInvalid, "password_file and password_env: want one of them")
	case r.URL.Scheme == SchemeSFTP && r.SFTP.KeyFile == "":
		return missing("key_file", "the private key for "+r.URL.Host)
	case r.URL.Scheme == SchemeSFTP && r.SFTP.KnownHosts == "":
		return missing("known_hosts", "a file with the key of the server, as ssh-keyscan prints it")
	}
	return nil
}
