package reference

import (
	"errors"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

const sum = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParse(t *testing.T) {
	type parts struct{ whole, name, repository, registry, path, tag, digest string }
	for text, want := range map[string]parts{
		"sshfs":                    {"docker.io/library/sshfs:latest", "sshfs:latest", "sshfs", "docker.io", "library/sshfs", "latest", ""},
		"vieux/sshfs":              {"docker.io/vieux/sshfs:latest", "vieux/sshfs:latest", "vieux/sshfs", "docker.io", "vieux/sshfs", "latest", ""},
		"docker.io/vieux/sshfs:v1": {"docker.io/vieux/sshfs:v1", "vieux/sshfs:v1", "vieux/sshfs", "docker.io", "vieux/sshfs", "v1", ""},
		"index.docker.io/a":        {"docker.io/library/a:latest", "a:latest", "a", "docker.io", "library/a", "latest", ""},
		"127.0.0.1:5000/a/b/c:1":   {"127.0.0.1:5000/a/b/c:1", "127.0.0.1:5000/a/b/c:1", "127.0.0.1:5000/a/b/c", "127.0.0.1:5000", "a/b/c", "1", ""},
		"localhost/a":              {"localhost/a:latest", "localhost/a:latest", "localhost/a", "localhost", "a", "latest", ""},
		"[::1]:5000/a":             {"[::1]:5000/a:latest", "[::1]:5000/a:latest", "[::1]:5000/a", "[::1]:5000", "a", "latest", ""},
		"a@" + sum:                 {"docker.io/library/a@" + sum, "a:latest", "a", "docker.io", "library/a", "latest", sum},
		"a:t@" + sum:               {"docker.io/library/a:t@" + sum, "a:t", "a", "docker.io", "library/a", "t", sum},
	} {
		r, err := Parse(text)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := (parts{r.String(), r.Name(), r.Repository(), r.Registry(), r.Path(), r.Tag(), r.Digest().String()}); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
		named, err := ParseName(text)
		if want.digest != "" {
			if err == nil || err.Error() != "canonical references are not permitted" {
				t.Errorf("%s: %v", text, err)
			}
		} else if err != nil || named.Name() != want.name {
			t.Errorf("%s: %v, %v", text, named, err)
		}
	}
	if (Reference{}).String() != "" {
		t.Error("none is something")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"", "A", "a:", "a b", "a/../b", "a@sha256:00", "https://a/b", strings.Repeat("a/", 200) + "a", strings.Repeat("0", 64)} {
		if _, err := Parse(text); !errors.Is(err, errdefs.ErrInvalid) || !strings.HasPrefix(err.Error(), "failed to parse reference ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// What is shown is read as what it was.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"a", "vieux/sshfs:v1", "127.0.0.1:5000/a@" + sum, "[::1]:1/a"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		for _, again := range []string{r.String(), r.Repository() + ":" + r.Tag() + suffix(r)} {
			if a, err := Parse(again); err != nil || a.Name() != r.Name() || a.Registry() != r.Registry() || a.Digest() != r.Digest() {
				t.Fatalf("%q: %v, %v", again, a, err)
			}
		}
	})
}

func suffix(r Reference) string {
	if r.Digest() == "" {
		return ""
	}
	return "@" + r.Digest().String()
}
