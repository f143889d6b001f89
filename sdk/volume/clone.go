package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Clone makes the volume name with the data of the volume from, or of its snapshot if that is
// not empty. A volume that has the name already is ErrExists.
func (h *Handler) Clone(ctx context.Context, name, from, snapshot string, opts map[string]string) error {
	d, err := can[Cloner](h, "clone volumes")
	if err == nil {
		err = h.checkSource(name, from, snapshot)
	}
	if err != nil {
		return named(name, err)
	}
	if opts == nil {
		opts = map[string]string{}
	}
	return h.change(ctx, "clone", name, func(ctx context.Context) error {
		return redact(h.withOwn(ctx, name, opts, func(opts map[string]string) error {
			return h.clone(ctx, d, name, from, snapshot, opts)
		}), opts)
	})
}

func (h *Handler) clone(ctx context.Context, d Cloner, name, from, snapshot string, opts map[string]string) error {
	if err := h.mayUse(ctx, from); err != nil {
		return fmt.Errorf("clone of %q: %w", from, err)
	}
	if err := d.Clone(ctx, name, from, snapshot, opts); err != nil {
		return fmt.Errorf("clone of %q: %w", from, err)
	}
	return h.made(ctx, name)
}

// checkSource refuses what cannot be cloned to name.
func (h *Handler) checkSource(name, from, snapshot string) error {
	err := h.options.CheckName(from)
	if err == nil && snapshot != "" {
		err = checkSnapshot(snapshot)
	}
	if err == nil && from == name {
		err = errdefs.Errorf(errdefs.ErrInvalid, "cannot be a clone of itself")
	}
	return err
}

// cloneOf returns of what the options want a clone, if they do.
func (h *Handler) cloneOf(opts map[string]string) (from string, ok bool) {
	if h.options.CloneOption == "" || !Can[Cloner](h) {
		return "", false
	}
	from, ok = opts[h.options.CloneOption]
	return from, ok && !filepath.IsAbs(from)
}

// createFrom is Create with [Options.CloneOption]. A volume that is there already is adopted,
// as ever: the engine may not have heard that it was made.
func (h *Handler) createFrom(ctx context.Context, name, from string, opts map[string]string) error {
	wrong := func(err error) error { return fmt.Errorf("option %q: %w", h.options.CloneOption, err) }
	source, snapshot, ofSnapshot := strings.Cut(from, "@")
	if ofSnapshot && snapshot == "" {
		return wrong(errdefs.Errorf(errdefs.ErrInvalid, "%q: want VOLUME or VOLUME@SNAPSHOT", from))
	}
	if err := h.checkSource(name, source, snapshot); err != nil {
		return wrong(err)
	}
	opts = maps.Clone(opts)
	delete(opts, h.options.CloneOption)
	err := h.clone(ctx, h.driver.(Cloner), name, source, snapshot, opts) // cloneOf has seen that it is one
	if !errors.Is(err, errdefs.ErrExists) {
		return err
	}
	if err := h.driver.Create(ctx, name, opts); err != nil {
		return err
	}
	return h.made(ctx, name)
}
