// Package reference has the names of plugins: what a user writes, what is shown, and where in which
// registry it stands. The rules are those of the engine, by the library that it uses.
package reference

import (
	"fmt"

	ref "github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Reference names a plugin in a registry, by a tag, a digest, or both. The zero value names none.
type Reference struct{ named ref.Named }

// Parse reads a reference as a user writes it. Without a registry it is one of docker.io, and of
// library without a slash; without tag and digest it is of the tag latest.
func Parse(text string) (Reference, error) {
	named, err := ref.ParseNormalizedNamed(text)
	if err != nil {
		return Reference{}, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("failed to parse reference %q: %w", text, err))
	}
	return Reference{ref.TagNameOnly(named)}, nil
}

// ParseName is Parse for the name of a plugin here, which has no digest.
func ParseName(text string) (Reference, error) {
	r, err := Parse(text)
	if err == nil && r.Digest() != "" {
		return Reference{}, errdefs.Errorf(errdefs.ErrInvalid, "canonical references are not permitted")
	}
	return r, err
}

// String is the whole reference, such as docker.io/vieux/sshfs:latest.
func (r Reference) String() string {
	if r.named == nil {
		return ""
	}
	return r.named.String()
}

// Name is what the plugin is called here when nobody says otherwise, such as vieux/sshfs:latest: the
// familiar form with the tag, and without the digest.
func (r Reference) Name() string { return ref.FamiliarName(r.named) + ":" + r.Tag() }

// Repository is the familiar form without tag and digest, such as vieux/sshfs.
func (r Reference) Repository() string { return ref.FamiliarName(r.named) }

// Registry is the registry, such as docker.io or 127.0.0.1:5000.
func (r Reference) Registry() string { return ref.Domain(r.named) }

// Path is the repository in its registry, such as vieux/sshfs.
func (r Reference) Path() string { return ref.Path(r.named) }

// Tag is the tag, latest where none was given.
func (r Reference) Tag() string {
	if t, ok := r.named.(ref.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}

// Digest is the digest, or empty.
func (r Reference) Digest() digest.Digest {
	if d, ok := r.named.(ref.Digested); ok {
		return d.Digest()
	}
	return ""
}
