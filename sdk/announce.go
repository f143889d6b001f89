package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// SpecDir is the first of the directories in which engines look for .spec and .json
// files (moby pkg/plugins/discovery_unix.go).
const SpecDir = "/etc/docker/plugins"

// Announcement is what the engines of a host are told of a plugin whose socket is not
// in PluginDir. Name and Addr are required.
type Announcement struct {
	// Name is the plugin's name, and the file's.
	Name string
	// Addr is a URL: unix:///path, tcp://host:port, http://host:port or
	// https://host:port. Engines speak TLS only to https.
	Addr string
	// TLS is what an engine needs to be let in; nil writes a .spec file instead of a
	// .json one.
	TLS *ClientTLS
	// Dir is where the file is written; empty is SpecDir.
	Dir string
}

// ClientTLS is the TLSConfig of a .json file. An engine that finds it without CAFile
// verifies nothing (moby pkg/plugins/client.go).
type ClientTLS struct {
	InsecureSkipVerify bool   `json:",omitempty"`
	CAFile             string `json:",omitempty"`
	CertFile           string `json:",omitempty"`
	KeyFile            string `json:",omitempty"`
}

// Announce writes the file in which engines find the plugin, whole or not at all, and
// returns what removes it again. It takes the place of what announced a plugin of that name
// in Dir before, in either form: of the two, engines look for the .spec first, and one that
// a killed plugin left would send them, without TLS, to where it was.
func Announce(a Announcement) (remove func() error, err error) {
	if err := checkName(a.Name); err != nil {
		return nil, err
	}
	if err := checkAddr(a.Addr); err != nil {
		return nil, fmt.Errorf("announce %q: %w", a.Name, err)
	}
	dir := a.Dir
	if dir == "" {
		dir = SpecDir
	}
	name, other, content := a.Name+".spec", a.Name+".json", []byte(a.Addr+"\n")
	if a.TLS != nil {
		name, other = other, name
		content, err = json.MarshalIndent(struct {
			Name, Addr string
			TLSConfig  *ClientTLS
		}{a.Name, a.Addr, a.TLS}, "", "  ")
		if err != nil {
			return nil, err
		}
		content = append(content, '\n')
	}
	path, stale := filepath.Join(dir, name), filepath.Join(dir, other)
	if err := replaceBoth(path, content, stale); err != nil {
		return nil, fmt.Errorf("announce %q: %w", a.Name, err)
	}
	return func() error { return removeOwn(path, content) }, nil
}

// replaceBoth writes content to path and then removes stale. What is no file of ours is
// found before anything is written, and left.
func replaceBoth(path string, content []byte, stale string) error {
	if fi, err := os.Lstat(stale); err == nil && fi.IsDir() {
		return errdefs.Errorf(errdefs.ErrExists, "%q is a directory, and an engine would find it first or next", stale)
	}
	if err := replaceFile(path, content); err != nil {
		return err
	}
	if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, removeOwn(path, content))
	}
	return nil
}

// checkName refuses names that would leave the directory they are joined to.
func checkName(name string) error {
	if name == "" || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
		return errdefs.Errorf(errdefs.ErrInvalid, "plugin name %q: want a file name without a slash or a leading dot", name)
	}
	return nil
}

func checkAddr(addr string) error {
	u, err := url.Parse(addr)
	if err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "address %q: %w", addr, err)
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" {
			return errdefs.Errorf(errdefs.ErrInvalid, "address %q: want three slashes and an absolute path", addr)
		}
	case "tcp", "http", "https":
		if u.Port() == "" {
			return errdefs.Errorf(errdefs.ErrInvalid, "address %q: want host:port", addr)
		}
	default:
		return errdefs.Errorf(errdefs.ErrInvalid, "address %q: want unix, tcp, http or https", addr)
	}
	return nil
}

// replaceFile writes content beside path and renames it over.
func replaceFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as the engine's packages make it
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".remora-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close()) // the file names paths and holds no key
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// removeOwn removes the file if it still says what was written.
func removeOwn(path string, content []byte) error {
	now, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Equal(now, content) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}
