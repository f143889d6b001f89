package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxSpec bounds a .spec or .json file in bytes.
const maxSpec = 64 << 10

// ReadSpec reads a .spec or .json file, wherever it is. The plugin has the name of the file
// without its extension. A file that an engine could not use is ErrInvalid.
func ReadSpec(file string) (Endpoint, error) {
	name, _ := cutExt(filepath.Base(file))
	return readSpec(name, file)
}

// readSpec reads the .spec or .json file of the plugin called name.
func readSpec(name, file string) (Endpoint, error) {
	failed := Endpoint{Name: name, Source: file}
	f, err := os.Open(file)
	if err != nil {
		return failed, pathError(name, err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err != nil {
		return failed, pathError(name, err)
	}
	var ep Endpoint
	if filepath.Ext(file) == ".spec" {
		ep, err = parseSpec(content)
	} else {
		ep, err = parseJSON(content)
	}
	if err != nil {
		return failed, &specError{name, file, err}
	}
	ep.Name, ep.Source = name, file
	return ep, nil
}

// specError puts plugin and file before what is wrong with the file.
type specError struct {
	name, file string
	err        error
}

func (e *specError) Error() string {
	return fmt.Sprintf("plugin %q: %s: %v", e.name, e.file, e.err)
}

func (e *specError) Unwrap() error { return e.err }

// parseSpec reads a .spec file: nothing but a URL. Over https an engine does not check
// the certificate of such a plugin.
func parseSpec(content []byte) (Endpoint, error) {
	if len(content) > maxSpec {
		return Endpoint{}, tooLarge()
	}
	ep := Endpoint{Addr: string(bytes.TrimSpace(content))}
	u, err := parseAddr(ep.Addr)
	if err != nil {
		return Endpoint{}, err
	}
	if u.Scheme == "https" {
		ep.TLS = &TLSConfig{InsecureSkipVerify: true}
	}
	return ep, nil
}

// parseJSON reads a .json file. Its Name is not read: the file's own name counts.
func parseJSON(content []byte) (Endpoint, error) {
	if len(content) > maxSpec {
		return Endpoint{}, tooLarge()
	}
	var spec struct {
		Addr      string
		TLSConfig *TLSConfig
	}
	if err := json.NewDecoder(bytes.NewReader(content)).Decode(&spec); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("empty file")
		}
		return Endpoint{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "not the JSON of a plugin: %w", err),
			`Write {"Addr": "https://host:port", "TLSConfig": {"CAFile": "…", "CertFile": "…", "KeyFile": "…"}}.`)
	}
	if _, err := parseAddr(spec.Addr); err != nil {
		return Endpoint{}, err
	}
	if t := spec.TLSConfig; t != nil && t.CAFile == "" {
		t.InsecureSkipVerify = true // the engine's rule
	}
	return Endpoint{Addr: spec.Addr, TLS: spec.TLSConfig}, nil
}

func tooLarge() error {
	return errdefs.Errorf(errdefs.ErrInvalid, "larger than %d bytes", maxSpec)
}
