package csi

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"

	"github.com/remora-plugins/remora/internal/catalog"
)

// TestCatalog: every file of the catalog is a pool that the daemon takes as it is, once the files of its secrets are there.
func TestCatalog(t *testing.T) {
	seen := map[string]string{}
	all := examples()
	if len(all) < 25 {
		t.Errorf("%d files", len(all))
	}
	for _, x := range all {
		t.Run(x.Name, func(t *testing.T) {
			table, err := poolOf(x.Text)
			if err != nil {
				t.Fatal(err)
			}
			plant(t, table)
			c, err := catalog.DecodeTable[config](table)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.check(); err != nil {
				t.Errorf("check: %v", err)
			}
			if c.Name == "" || !strings.HasPrefix(x.Driver, c.Name+", ") {
				t.Errorf("csi_driver is %q, and the comment has %q", c.Name, x.Driver)
			}
			if was, twice := seen[c.Name]; twice {
				t.Errorf("the same driver as %s", was)
			}
			seen[c.Name] = x.Name
			named, err := reference.ParseNormalizedNamed(table["image"].(string))
			if err != nil {
				t.Fatalf("image: %v", err)
			}
			tag, ok := named.(reference.Tagged)
			if !ok || tag.Tag() == "latest" {
				t.Fatalf("image %s: want a version", named)
			}
			if version := digits.FindString(tag.Tag()); !strings.HasSuffix(x.Driver, "v"+version) {
				t.Errorf("image %s, and the comment has %q", named, x.Driver)
			}
		})
	}
}

var digits = regexp.MustCompile(`[0-9.]+`)

// plant puts a file in the place of each secret of a pool.
func plant(t *testing.T, table map[string]any) {
	t.Helper()
	secrets, _ := table["secrets"].(map[string]any)
	for key, ref := range secrets {
		if !strings.HasPrefix(ref.(string), "file:/etc/remora/secrets/") {
			t.Errorf("secret %s is at %s", key, ref)
		}
		file := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(file, []byte("s3cret"), 0o600); err != nil {
			t.Fatal(err)
		}
		secrets[key] = "file:" + file
	}
}

// TestCatalogIsRefused: a file that lacks what people have to be told is no file of the catalog.
func TestCatalogIsRefused(t *testing.T) {
	const head = "# T\n#\n# driver: x.example.com, x v1\n# state: tested here: how\n# needs: a\n#   b\n# sources: https://example.com\n\n"
	const good = "[pool.x]\ndriver = \"csi\"\nimage = \"x:v1\"\nkubeshim = true\n"
	x, err := readExample("x", head+good)
	if err != nil {
		t.Fatal(err)
	}
	if x.Needs != "a b" || x.State != "tested here" || x.How != "how" || x.Start != "image" || !x.Kubeshim {
		t.Errorf("it was read as %+v", x)
	}
	bad := map[string]string{
		"state":  strings.Replace(head, "tested here", "surely works", 1) + good,
		"needs":  strings.Replace(head, "# needs: a\n#   b\n", "", 1) + good,
		"pool":   head,
		"driver": head + strings.Replace(good, `"csi"`, `"dir"`, 1),
		"two":    head + good + "[pool.y]\ndriver = \"csi\"\n",
		"toml":   head + "[pool",
	}
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		if _, err := readExample("x", bad[name]); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}
