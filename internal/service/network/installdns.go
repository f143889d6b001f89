package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/names/daemonjson"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	installedName    = "dns.json"
	installedVersion = 1
)

// installed is what has to be known to take the change of an engine's file back.
type installed struct {
	File  string           `json:"file"`
	Saved daemonjson.Saved `json:"saved"`
}

// installed returns what was installed; nil is nothing.
func (s *Service) installed() (*installed, error) {
	var i installed
	err := state.Read(s.root, installedName, installedVersion, &i)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("DNS: what was installed: %w", err)
	}
	return &i, nil
}

// InstallDNS implements [control.Networks].
func (s *Service) InstallDNS(ctx context.Context, r control.NetworkInstallDNSRequest) (control.NetworkInstalledDNS, error) {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	if r.Undo {
		return s.uninstallDNS(r.Apply)
	}
	var out control.NetworkInstalledDNS
	dns, err := s.DNS(ctx)
	if err != nil {
		return out, err
	}
	before, err := s.installed()
	if err != nil {
		return out, err
	}
	engine := daemonjson.Running(daemonjson.PIDFile)
	i, saved, err := fileFor(r.File, before, engine)
	if err != nil {
		return out, err
	}
	if flags := daemonjson.Flags(engine); len(flags) > 0 {
		return out, errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "DNS: the engine was started with %s, and does not start with the same in its file", strings.Join(flags, ", ")),
			"take the flags away, or add to them what \"remora network dns-args\" prints")
	}
	change, err := daemonjson.Install(i.File, daemonjson.Wanted{Servers: texts(dns.Servers), Search: []string{dns.Domain}}, saved)
	if err != nil {
		return out, err
	}
	out.Diff = change.Diff()
	if !r.Apply || !change.Changes() {
		return out, nil
	}
	i.Saved = change.Saved
	if err := state.Write(s.root, installedName, installedVersion, i); err != nil {
		return out, err
	}
	if err := change.Apply(); err != nil {
		return out, err
	}
	out.Done = true
	return out, nil
}

// fileFor says which file is to be changed, and what is known of an earlier change of it. The file is the one that was asked for, that
// of the earlier change, or the one that the engine reads.
func fileFor(asked string, before *installed, engine []string) (installed, *daemonjson.Saved, error) {
	if before == nil {
		return installed{File: cmp.Or(asked, daemonjson.File(engine), daemonjson.Path)}, nil, nil
	}
	if asked != "" && asked != before.File {
		return installed{}, nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "DNS: is installed in %q already, not in %q", before.File, asked),
			"\"remora network dns uninstall\" first")
	}
	return installed{File: before.File}, &before.Saved, nil
}

// uninstallDNS takes back what was installed. verbs is held.
func (s *Service) uninstallDNS(apply bool) (control.NetworkInstalledDNS, error) {
	var out control.NetworkInstalledDNS
	i, err := s.installed()
	if err != nil || i == nil {
		return out, err
	}
	change, err := daemonjson.Reset(i.File, i.Saved)
	if err != nil {
		return out, err
	}
	out.Diff = change.Diff()
	if !apply {
		return out, nil
	}
	if err := change.Apply(); err != nil {
		return out, err
	}
	out.Done = change.Changes()
	return out, state.Remove(s.root, installedName)
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}
