package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/config"
)

func TestRepositories(t *testing.T) {
	c := mustLoad(t, `
[repository.near]
url = "/srv/backups/"
password_file = "/etc/near.password"
[repository.far]
url = "s3://bucket/a/prefix"
endpoint = "http://127.0.0.1:7070"
password_env = "FAR_PASSWORD"
region = "eu-west-1"
[repository.box]
url = "sftp://me@box:2222/srv/x"
password_file = "/p"
key_file = "/k"
known_hosts = "/h"
`, "REMORA_REPOSITORIES=more", "REMORA_REPOSITORY_MORE_URL=file:///srv/more", "REMORA_REPOSITORY_MORE_PASSWORD_ENV=REMORA_SECRET",
		"REMORA_SECRET=x", "REMORA_REPOSITORY_FAR_CREDENTIALS_FILE=/c")
	type repo struct{ name, url, file, env string }
	var got []repo
	for _, r := range c.Repositories {
		got = append(got, repo{r.Name, r.URL.String(), r.PasswordFile, r.PasswordEnv})
	}
	want := []repo{
		{"box", "sftp://me@box:2222/srv/x", "/p", ""},
		{"far", "s3://bucket/a/prefix", "", "FAR_PASSWORD"},
		{"more", "file:///srv/more", "", "REMORA_SECRET"},
		{"near", "file:///srv/backups", "/etc/near.password", ""},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(repo{})); diff != "" {
		t.Errorf("repositories (-want +got):\n%s", diff)
	}
	far := c.Repositories[1].S3
	far.Endpoint = nil
	wantS3 := config.RepositoryS3{
		Region: "eu-west-1", CredentialsFile: "/c", AccessKeyEnv: "AWS_ACCESS_KEY_ID", SecretKeyEnv: "AWS_SECRET_ACCESS_KEY",
	}
	if diff := cmp.Diff(wantS3, far); diff != "" {
		t.Errorf("S3 (-want +got):\n%s", diff)
	}
}

// Every key of a repository has a variable.
func TestEveryRepositoryKeyHasAVariable(t *testing.T) {
	schemes := map[string]string{"endpoint": "s3", "region": "s3", "ca_file": "s3", "credentials_file": "s3", "access_key_env": "s3", "secret_key_env": "s3", "key_file": "sftp", "known_hosts": "sftp"}
	urls := map[string]string{"s3": "s3://bucket", "sftp": "sftp://u@h/p", "": "/srv/x"}
	for _, k := range config.RepositoryKeys() {
		value := map[string]string{"url": "/srv/y", "endpoint": "https://h"}[k.Name]
		if value == "" {
			value = map[string]string{"path": "/some/path", "text": "SOME", "number": "7", "duration": "77s"}[k.Type]
		}
		env := []string{"REMORA_REPOSITORIES=x", "REMORA_REPOSITORY_X_URL=" + urls[schemes[k.Name]]}
		if k.Name != "password_env" {
			env = append(env, "REMORA_REPOSITORY_X_PASSWORD_FILE=/p")
		}
		env = append(env, "REMORA_REPOSITORY_X_"+strings.ToUpper(k.Name)+"="+value)
		if schemes[k.Name] == "sftp" {
			env = append([]string{"REMORA_REPOSITORY_X_KEY_FILE=/k", "REMORA_REPOSITORY_X_KNOWN_HOSTS=/h"}, env...)
		}
		c := mustLoad(t, "", env...)
		found := false
		for _, v := range c.Values() {
			found = found || v.Key == "repository.x."+k.Name && v.Value == value
		}
		if !found || k.Help == "" {
			t.Errorf("key %q is not taken from %q: %v", k.Name, env, c.Values())
		}
	}
}

func TestRepositoryErrors(t *testing.T) {
	const password = "password_file = \"/p\"\n"
	for _, tt := range []struct{ name, text, env, want string }{
		{"no table", "repository = 3\n", "", "FILE:1:1: repository: want tables such as [repository.offsite]"},
		{"upper case", "[repository.Far]\n", "", `FILE:1:2: repository "Far": want lower-case letters`},
		{"no url", "[repository.x]\n" + password, "", `FILE:1:2: repository "x": key "url" is missing: where it lies`},
		{"no password", "[repository.x]\nurl = \"/x\"\n", "", `FILE:1:2: repository "x": key "password_file" is missing: a repository is encrypted`},
		{"two passwords", "[repository.x]\nurl = \"/x\"\npassword_env = \"A\"\n" + password, "", `FILE:1:2: repository "x": password_file and password_env: want one`},
		{"unknown key", "[repository.x]\nurl = \"/x\"\npasword_file = \"/p\"\n", "", `FILE:3:1: repository "x": unknown key "pasword_file", did you mean "password_file"?`},
		{"relative path", "[repository.x]\nurl = \"backups\"\n" + password, "", `FILE:2:1: repository.x.url: "backups": want an absolute path, file://, s3:// or sftp://`},
		{"other scheme", "[repository.x]\nurl = \"ftp://h/x\"\n" + password, "", `FILE:2:1: repository.x.url: "ftp://h/x": want an absolute path`},
		{"password in the url", "[repository.x]\nurl = \"sftp://u:hunter2@h/x\"\n" + password, "", `repository.x.url: "sftp://u:xxxxx@h/x": no password in an URL`},
		{"sftp without a user", "[repository.x]\nurl = \"sftp://h/x\"\n" + password, "", `repository.x.url: "sftp://h/x": want sftp://USER@HOST/PATH`},
		{"too many at a time", "[repository.x]\nurl = \"/x\"\nparallel = 65\n" + password, "", `"65" is not a number from 0 to 64`},
		{"no patience", "[repository.x]\nurl = \"/x\"\nstall = \"1s\"\n" + password, "", `"1s" is not a duration of 5s at least, such as 2m`},
		{"sftp without a key", "[repository.x]\nurl = \"sftp://u@h/x\"\n" + password, "", `repository "x": key "key_file" is missing: the private key for h`},
		{"sftp without a host's key", "[repository.x]\nurl = \"sftp://u@h/x\"\nkey_file = \"/k\"\n" + password, "", `key "known_hosts" is missing`},
		{"s3 without a bucket", "[repository.x]\nurl = \"s3:///x\"\n" + password, "", `repository.x.url: "s3:///x": want s3://BUCKET/PREFIX`},
		{"key of s3", "[repository.x]\nurl = \"/x\"\nregion = \"eu\"\n" + password, "", `FILE:3:1: repository.x.region: is for a repository with s3:// alone`},
		{"endpoint", "[repository.x]\nurl = \"s3://b\"\nendpoint = \"host:1\"\n" + password, "", `repository.x.endpoint: want https://HOST or http://HOST:PORT`},
		{"secret for a name", "[repository.x]\nurl = \"/x\"\npassword_env = \"hunter 2\"\n", "", "repository.x.password_env: want the name of a variable"},
		{"relative file", "[repository.x]\nurl = \"/x\"\npassword_file = \"p\"\n", "", `repository.x.password_file: "p" is not an absolute path`},
		{"variable of none", "", "REMORA_REPOSITORY_X_URL=/x", `environment: "REMORA_REPOSITORY_X_URL" is no key of a repository there is`},
		{"from the environment", "", "REMORA_REPOSITORIES=x", `REMORA_REPOSITORIES: repository "x": key "url" is missing`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, tt.text)
			_, err := config.Load(config.Source{File: file, Env: []string{tt.env}, Drivers: drivers()})
			if err == nil {
				t.Fatal("it is taken")
			}
			got := strings.ReplaceAll(err.Error(), file, "FILE")
			if !strings.Contains(got, tt.want) || strings.Contains(got, "\n") || strings.Contains(got, "hunter") {
				t.Errorf("error is %q, want %q", got, tt.want)
			}
		})
	}
}
