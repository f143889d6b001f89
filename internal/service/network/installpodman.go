package network

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// PluginDir is the first directory in which Podman looks for plugins of its network program, unless it is told another one.
const PluginDir = "/usr/local/libexec/netavark"

const (
	podmanName    = "podman.json"
	podmanVersion = 1
)

// plugged is what has to be known to take the plugin away again.
type plugged struct {
	File string `json:"file"`
}

// pluginMark is in the second line of a file that is ours.
const pluginMark = `# Written by "remora network podman install"`

// pluginText is a plugin: a program that Podman starts under the name of the driver.
func pluginText(command []string) []byte {
	words := make([]string, 0, len(command))
	for _, w := range command {
		words = append(words, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
	}
	return fmt.Appendf(nil, "#!/bin/sh\n%s, and removed by \"uninstall\" and by \"remora network reset\".\nexec %s \"$@\"\n", pluginMark, strings.Join(words, " "))
}

// InstallPodman implements [control.Networks].
func (s *Service) InstallPodman(_ context.Context, r control.NetworkInstallPodmanRequest) (out control.NetworkInstalledPodman, err error) {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	if r.Undo {
		return s.uninstallPodman()
	}
	dir := cmp.Or(r.Dir, PluginDir)
	if !filepath.IsAbs(dir) {
		return out, errdefs.Errorf(errdefs.ErrInvalid, "directory %q: is not an absolute path", dir)
	}
	p := plugged{File: filepath.Join(dir, s.o.Driver)}
	if err := ours(p.File); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return out, err
	}
	old, err := s.plugged()
	if err != nil {
		return out, err
	}
	if old != nil && old.File != p.File { // it is moved
		if _, err := s.uninstallPodman(); err != nil {
			return out, err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return out, state.Classify(err)
	}
	if err := state.Write(s.root, podmanName, podmanVersion, p); err != nil {
		return out, err
	}
	if err := writeProgram(p.File, pluginText(s.o.Podman)); err != nil {
		return out, state.Classify(err)
	}
	out.File = p.File
	return out, nil
}

// writeProgram writes a program whole or not at all: it may be started at any time.
func writeProgram(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".remora-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(0o755)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// ours fails where a file is not there, which is ErrNotFound, or is another one than a plugin of ours.
func ours(path string) error {
	text, err := os.ReadFile(path)
	switch {
	case err != nil:
		return state.Classify(err)
	case !bytes.Contains(text, []byte("\n"+pluginMark)):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "plugin %q: another program is there, which stays", path), "move it away, or choose another directory with --dir")
	}
	return nil
}

// plugged returns what was installed; nil is nothing.
func (s *Service) plugged() (*plugged, error) {
	var p plugged
	err := state.Read(s.root, podmanName, podmanVersion, &p)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("podman: what was installed: %w", err)
	}
	return &p, nil
}

// uninstallPodman takes the plugin away. verbs is held.
func (s *Service) uninstallPodman() (out control.NetworkInstalledPodman, err error) {
	p, err := s.plugged()
	if err != nil || p == nil {
		return out, err
	}
	switch err := ours(p.File); {
	case err == nil:
		if err := os.Remove(p.File); err != nil && !errors.Is(err, os.ErrNotExist) {
			return out, state.Classify(err)
		}
		out.File = p.File
	case !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrExists): // gone, or somebody put another there
		return out, err
	}
	return out, state.Remove(s.root, podmanName)
}
