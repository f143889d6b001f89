package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestAdd(t *testing.T) {
	s := opened(t, t.TempDir())
	defer s.Hold()()
	data := []byte(strings.Repeat("data", 1000))
	want := describe("", data)
	check(t, s.Add(t.Context(), iotest.OneByteReader(bytes.NewReader(data)), want))
	check(t, s.Add(t.Context(), iotest.ErrReader(errors.New("it is read again")), want))
	if got := must[[]byte](t)(s.ReadBlob(want.Digest, 5000)); !bytes.Equal(got, data) {
		t.Errorf("%d bytes", len(got))
	}
	_, err := s.ReadBlob(want.Digest, 10)
	wants(t, err, errdefs.ErrInvalid, "longer than 10 bytes")

	other := describe("", []byte("other"))
	for what, tt := range map[string]struct {
		r     io.Reader
		want  ocispec.Descriptor
		class error
		text  string
	}{
		"other bytes": {strings.NewReader("OTHER"), other, errdefs.ErrInvalid, "what came has the digest sha256:"},
		"too short":   {strings.NewReader("oth"), other, errdefs.ErrUnavailable, "cut off after 3 of 5 bytes"},
		"endless":     {iotest.DataErrReader(endless{}), other, errdefs.ErrInvalid, "longer than the 5 bytes that it was said to have"},
		"breaks":      {io.MultiReader(strings.NewReader("ot"), iotest.ErrReader(io.ErrUnexpectedEOF)), other, io.ErrUnexpectedEOF, "after 2 of 5 bytes"},
		"canceled":    {strings.NewReader("other"), other, context.Canceled, ""},
		"no digest":   {strings.NewReader(""), ocispec.Descriptor{}, errdefs.ErrInvalid, `digest "": it is no sha256`},
		"path":        {strings.NewReader(""), ocispec.Descriptor{Digest: "sha256:../../../../etc/passwd"}, errdefs.ErrInvalid, "it is no sha256"},
		"other hash":  {strings.NewReader(""), ocispec.Descriptor{Digest: digest.Digest("sha512:" + strings.Repeat("0", 128))}, errdefs.ErrInvalid, "it is no sha256"},
	} {
		t.Run(what, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if errors.Is(tt.class, context.Canceled) {
				cancel()
			}
			wants(t, s.Add(ctx, tt.r, tt.want), tt.class, tt.text)
			if s.Has(tt.want.Digest) {
				t.Error("it is there")
			}
			if left := must[[]os.DirEntry](t)(os.ReadDir(s.path(ingestDir))); len(left) > 0 {
				t.Errorf("left is %v", left)
			}
		})
	}
	_, _, err = s.Blob(other.Digest)
	wants(t, err, errdefs.ErrNotFound, "blob "+other.Digest.String()+": not found")
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A blob that the disk has changed is not believed, and is fetched again.
func TestBlobDamaged(t *testing.T) {
	s := opened(t, t.TempDir())
	defer s.Hold()()
	layer := zipped(t, archive(t, reg("a", strings.Repeat("x", 5000))))
	img := pulled(t, s, "x", layer)
	for _, d := range []ocispec.Descriptor{img.Layers[0], img.Config} {
		name := must[string](t)(blobPath(d.Digest))
		raw := must[[]byte](t)(os.ReadFile(s.path(name)))
		raw[len(raw)-3] ^= 1 // within the length that gzip has in the end, or the text
		check(t, os.WriteFile(s.path(name), raw, 0o600))
		_, err := s.Install(t.Context(), "x:latest", "", img, nil, nil)
		wants(t, err, errdefs.ErrUnavailable, "damaged on the disk")
		if s.Has(d.Digest) {
			t.Error("it is not fetched again")
		}
		check(t, s.Add(t.Context(), bytes.NewReader(layer), img.Layers[0]))
	}
	// One whose archive is fine, but another.
	img = pulled(t, s, "x", layer)
	name := must[string](t)(blobPath(img.Layers[0].Digest))
	check(t, os.WriteFile(s.path(name), zipped(t, archive(t, reg("a", "other"))), 0o600))
	_, err := s.Install(t.Context(), "x:latest", "", img, nil, nil)
	wants(t, err, errdefs.ErrUnavailable, "damaged on the disk")
	img = pulled(t, s, "x", layer)
	_ = must[Record](t)(s.Install(t.Context(), "x:latest", "", img, nil, nil))
}
