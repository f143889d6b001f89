package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/registry"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// image is what is unpacked.
type image struct {
	Reference string              `json:"reference"` // as the pool has it
	Digest    digest.Digest       `json:"digest"`
	Rootfs    string              `json:"rootfs"` // its directory
	Config    ocispec.ImageConfig `json:"config"`
}

const (
	imageFile    = "image.json"
	imageVersion = 1
	rootfsPrefix = "rootfs-"
	stageDir     = "unpacking"
	storeDir     = "store"
)

// fetch returns the image of a pool with its root, from the disk where it was unpacked once. A tag that has moved since is not
// noticed: what runs is changed by a change of the pool's key, and not by who pushes to a registry.
func (p *Process) fetch(ctx context.Context) (image, error) {
	root, err := os.OpenRoot(p.c.Dir)
	if err != nil {
		return image{}, state.Classify(err)
	}
	defer root.Close()
	var img image
	switch err := state.Read(root, imageFile, imageVersion, &img); {
	case err == nil && img.Reference == p.c.Image && filepath.IsLocal(img.Rootfs):
		if fi, err := root.Stat(img.Rootfs); err == nil && fi.IsDir() {
			return img, nil
		}
	case err != nil && !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, state.ErrCorrupt):
		return image{}, err
	}
	was := img.Rootfs
	if img, err = p.unpack(ctx, root); err != nil {
		return image{}, err
	}
	if err := state.Write(root, imageFile, imageVersion, img); err != nil {
		return image{}, err
	}
	p.log.InfoContext(ctx, "image of a CSI driver is unpacked", slog.String("image", img.Reference), slog.String("digest", img.Digest.String()))
	p.tidy(ctx, img.Rootfs, was)
	return img, nil
}

// unpack fetches the image. It gets its place when it is whole.
func (p *Process) unpack(ctx context.Context, root *os.Root) (img image, err error) {
	ref, err := reference.Parse(p.c.Image)
	if err != nil {
		return image{}, err
	}
	client := p.c.Registry
	if client == nil {
		if client, err = registry.New(registry.Options{}); err != nil {
			return image{}, err
		}
	}
	who, err := registry.FindAuth(ctx, "", ref)
	if err != nil {
		return image{}, err
	}
	st, err := store.Open(filepath.Join(p.c.Dir, storeDir), p.log)
	if err != nil {
		return image{}, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	release := st.Hold()
	defer release()
	pulled, err := client.PullImage(ctx, ref, st, registry.Pull{Auth: who})
	if err != nil {
		return image{}, err
	}
	img = image{Reference: p.c.Image, Digest: pulled.Digest, Rootfs: rootfsPrefix + pulled.Digest.Encoded()[:12], Config: pulled.Config}
	for _, dir := range []string{stageDir, img.Rootfs} {
		// What is there was left by a crash, or is not known to be whole.
		if err := p.removeRoot(dir); err != nil {
			return image{}, err
		}
	}
	if err := root.Mkdir(stageDir, 0o755); err != nil {
		return image{}, state.Classify(err)
	}
	if err := st.Unpack(ctx, pulled.Layers, filepath.Join(p.c.Dir, stageDir), nil); err != nil {
		return image{}, errors.Join(fmt.Errorf("image %s: %w", ref, err), p.removeRoot(stageDir))
	}
	if err := root.Rename(stageDir, img.Rootfs); err != nil {
		return image{}, state.Classify(err)
	}
	return img, state.SyncDir(root, ".")
}

// removeRoot removes a root in which nothing is mounted.
func (p *Process) removeRoot(name string) error {
	dir := filepath.Join(p.c.Dir, name)
	mounts, err := mount.List(dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "%s: something is mounted below it", mounts[0].Mountpoint), "umount --recursive "+mounts[0].Mountpoint)
	}
	return state.Classify(os.RemoveAll(dir))
}

// tidy removes roots of earlier images. The one before may be that of the driver which still runs, or of processes that serve
// what it mounted: it stays until the next change, or the next start.
func (p *Process) tidy(ctx context.Context, keep ...string) {
	entries, err := os.ReadDir(p.c.Dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, rootfsPrefix) || slices.Contains(keep, name) {
			continue
		}
		if err := p.removeRoot(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.log.WarnContext(ctx, "the root of an earlier image is left", slog.String("path", filepath.Join(p.c.Dir, name)), slog.String("error", err.Error()))
		}
	}
}
