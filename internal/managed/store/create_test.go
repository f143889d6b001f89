package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// goldenLayer is the layer of the bundle golden. That the engine makes the same of a bundle is tested with an
// engine (TestInteropWithEngine); this is what would change with the compression of another Go.
const goldenLayer = "sha256:cc454d5721d012b0f5534a801bc12dab9ae35000cb63de50d04762434287a1f1"

func golden(t testing.TB) []byte {
	return archive(t, reg("config.json", `{"description":"golden","entrypoint":["/bin/p"],"interface":{"types":["docker.volumedriver/1.0"],"socket":"p.sock"}}`),
		dir("rootfs/"), dir("rootfs/bin/"), reg("rootfs/bin/p", strings.Repeat("#!/bin/sh\n", 1000)), hard("rootfs/bin/q", "rootfs/bin/p"), link("rootfs/l", "bin/p"))
}

func TestCreate(t *testing.T) {
	s := opened(t, t.TempDir())
	r := must[Record](t)(s.Create(t.Context(), "golden:latest", bytes.NewReader(golden(t))))
	zip := must[Record](t)(s.Create(t.Context(), "zip:latest", bytes.NewReader(zipped(t, golden(t)))))
	slow := must[Record](t)(s.Create(t.Context(), "slow:latest", iotest.OneByteReader(bytes.NewReader(golden(t)))))
	for _, other := range []Record{zip, slow} {
		if other.Layers[0].Digest != r.Layers[0].Digest || other.ConfigDigest != r.ConfigDigest || other.Manifest != r.Manifest {
			t.Errorf("the same bundle is another plugin: %+v", other)
		}
		if other.Plugin.ID == r.Plugin.ID {
			t.Error("two plugins have one ID")
		}
	}
	if r.Layers[0].Digest != goldenLayer {
		t.Errorf("the layer is %s", r.Layers[0].Digest)
	}
	if diff := cmp.Diff([]string{goldenLayer}, r.Plugin.Config.Rootfs.DiffIds); diff != "" {
		t.Error(diff)
	}
	raw := must[[]byte](t)(s.ReadBlob(r.ConfigDigest, settings.MaxSize))
	if c := must[any](t)(decoded(raw)); c.(map[string]any)["DockerVersion"] != nil || !bytes.HasSuffix(raw, []byte("}\n")) {
		t.Errorf("%s", raw)
	}
	// The layer is a tar of what is below rootfs, and unpacks to what was unpacked.
	var names []string
	f, _, err := s.Blob(r.Layers[0].Digest)
	check(t, err)
	defer f.Close()
	for tr := tar.NewReader(must[*gzip.Reader](t)(gzip.NewReader(f))); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		names = append(names, h.Name+h.Linkname)
	}
	if diff := cmp.Diff([]string{".", "bin", "bin/p", "bin/qbin/p", "lbin/p"}, names); diff != "" {
		t.Error(diff)
	}
	img, _, err := s.Image(r)
	check(t, err)
	again := must[Record](t)(s.Install(t.Context(), "again:latest", "", img, nil, nil))
	if diff := cmp.Diff(tree(t, s.Rootfs(r)), tree(t, s.Rootfs(again))); diff != "" {
		t.Error(diff)
	}
	if again.Plugin.Config.Description != "golden" {
		t.Errorf("%+v", again.Plugin)
	}
}

func decoded(raw []byte) (any, error) {
	var v any
	err := json.Unmarshal(raw, &v)
	return v, err
}

func TestCreateOrder(t *testing.T) {
	s := opened(t, t.TempDir())
	for i, files := range [][]file{
		{dir("rootfs"), reg("rootfs/a", "1"), reg("config.json", "{}")},
		{reg("./config.json", "{}"), reg("./rootfs/a", "1")},
		{reg("./config.json", "{}"), reg("./rootfs/b", "1"), hard("./rootfs/a", "./rootfs/b")},
		{reg("/config.json", "{}"), reg("/rootfs/b", "1"), hard("/rootfs/a", "/rootfs/b")},
		{reg("/config.json", "{}"), reg("other/x", "x"), reg("/rootfs/a", "1"), reg("../rootfs/b", "no part of it")},
		{reg("config.json", "{}"), reg("rootfs/a", "1"), reg("rootfs/config.json", "of the plugin"), reg("rootfsother", "")},
	} {
		r, err := s.Create(t.Context(), string(rune('a'+i))+":latest", bytes.NewReader(archive(t, files...)))
		if err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		if _, err := os.Stat(s.Rootfs(r) + "/a"); err != nil {
			t.Error(err)
		}
	}
	tidied(t, s)
}

func TestCreateRefuses(t *testing.T) {
	s := opened(t, t.TempDir())
	fine := golden(t)
	for name, tt := range map[string]struct {
		body  []byte
		class error
		text  string
	}{
		"nothing":       {nil, errdefs.ErrInvalid, "no rootfs found: EOF"},
		"no rootfs":     {archive(t, reg("config.json", "{}")), errdefs.ErrInvalid, "no rootfs found: EOF"},
		"no config":     {archive(t, dir("rootfs")), errdefs.ErrInvalid, "config not found"},
		"wrong config":  {archive(t, dir("rootfs"), reg("config.json", "{")), errdefs.ErrInvalid, "failed to parse config: unexpected end of JSON input"},
		"empty config":  {archive(t, dir("rootfs"), reg("config.json", "")), errdefs.ErrInvalid, "failed to parse config: unexpected end of JSON input"},
		"no tar":        {[]byte(strings.Repeat("no tar", 1000)), errdefs.ErrInvalid, "failed to read from tar: archive/tar: invalid tar header"},
		"xz":            {[]byte("\xfd7zXZ\x00" + strings.Repeat("x", 1000)), errdefs.ErrInvalid, "failed to read from tar: archive/tar: invalid tar header"},
		"cut off":       {fine[:6000], errdefs.ErrInvalid, "the archive is cut off"},
		"zip, cut off":  {zipped(t, fine)[:200], errdefs.ErrInvalid, "the archive is cut off"},
		"zip, no tar":   {zipped(t, []byte(strings.Repeat("no tar", 1000))), errdefs.ErrInvalid, "failed to read from tar: archive/tar: invalid tar header"},
		"zip, damaged":  {append([]byte("\x1f\x8b"), fine...), errdefs.ErrInvalid, "failed to read from tar: gzip: invalid header"},
		"above rootfs":  {archive(t, reg("config.json", "{}"), link("rootfs/l", "../../x")), errdefs.ErrInvalid, `"l": it links to "../../x", which leads out of the rootfs`},
		"device":        {archive(t, reg("config.json", "{}"), special(tar.TypeBlock, "rootfs/sda")), errdefs.ErrInvalid, `"sda": it is a device`},
		"link above":    {archive(t, reg("config.json", "{}"), hard("rootfs/l", "../../x")), errdefs.ErrInvalid, `"l": it is a link to "../../x", which is no file of the rootfs`},
		"rootfs a file": {archive(t, reg("config.json", "{}"), reg("rootfs", "x")), errdefs.ErrInvalid, "the root is no directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Create(t.Context(), "a:latest", bytes.NewReader(tt.body))
			wants(t, err, tt.class, tt.text)
			tidied(t, s)
			if len(s.Records()) > 0 {
				t.Error("it is there")
			}
		})
	}
}

func TestCreateCanceled(t *testing.T) {
	s := opened(t, t.TempDir())
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errdefs.ErrInUse)
	_, err := s.Create(ctx, "a:latest", bytes.NewReader(golden(t)))
	wants(t, err, errdefs.ErrInUse, "in use")
	tidied(t, s)
}

// A reader that breaks off, as a client does that goes away, leaves nothing.
func TestCreateBreaks(t *testing.T) {
	s := opened(t, t.TempDir())
	body := golden(t)
	for _, n := range []int{0, 100, 1024, 3000, len(body) - 1024} {
		broken := errors.New("the client went away")
		_, err := s.Create(t.Context(), "a:latest", io.MultiReader(bytes.NewReader(body[:n]), iotest.ErrReader(broken)))
		wants(t, err, broken, "the client went away")
		tidied(t, s)
	}
}

func TestBuildManifest(t *testing.T) {
	config, layer := describe(MediaTypeConfig, []byte("c")), describe(MediaTypeLayerGzip, []byte("l"))
	layer.Annotations = map[string]string{"a": "b"}
	got := string(must[[]byte](t)(BuildManifest(config, []ocispec.Descriptor{layer})))
	want := `{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.plugin.v1+json","digest":"` + digest.FromString("c").String() + `","size":1},` +
		`"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"` + digest.FromString("l").String() + `","size":1}],` +
		`"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
