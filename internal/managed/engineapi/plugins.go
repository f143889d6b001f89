package engineapi

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/internal/managed"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// plugins routes what is below /plugins. A name may be anything, with slashes and colons in it.
func (s *Server) plugins(w http.ResponseWriter, r *http.Request, rest string) error {
	switch r.Method + " " + rest {
	case "GET ":
		return s.listPlugins(w, r)
	case "GET privileges":
		return s.privileges(w, r)
	case "POST pull":
		return s.pull(w, r)
	case "POST create":
		if err := s.Plugins.Create(r.Context(), r.URL.Query().Get("name"), r.Body); err != nil {
			return withStatus(http.StatusInternalServerError, err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if r.Method == http.MethodDelete && rest != "" {
		return done(w, s.Plugins.Remove(r.Context(), rest, flag(r, "force")))
	}
	i := strings.LastIndexByte(rest, '/')
	if i <= 0 {
		return errdefs.Errorf(errdefs.ErrNotFound, "page not found")
	}
	name := rest[:i]
	switch r.Method + rest[i:] {
	case "GET/json":
		p, err := s.Plugins.Inspect(name)
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, p)
	case "POST/enable":
		timeout, err := strconv.Atoi(r.URL.Query().Get("timeout"))
		if err != nil {
			return withStatus(http.StatusInternalServerError, errdefs.Errorf(errdefs.ErrInvalid, "timeout: %q is not a number of seconds", r.URL.Query().Get("timeout")))
		}
		return done(w, s.Plugins.Enable(r.Context(), name, time.Duration(timeout)*time.Second))
	case "POST/disable":
		return done(w, s.Plugins.Disable(r.Context(), name, flag(r, "force")))
	case "POST/set":
		return s.set(w, r, name)
	case "POST/push":
		return s.push(w, r, name)
	case "POST/upgrade":
		return s.upgrade(w, r, name)
	}
	return errdefs.Errorf(errdefs.ErrNotFound, "page not found")
}

// done answers with nothing.
func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusOK)
	}
	return err
}

func (s *Server) listPlugins(w http.ResponseWriter, r *http.Request) error {
	f, err := readFilters(r.URL.Query(), "enabled", "capability")
	if err != nil {
		return err
	}
	enabled, err := f.boolean("enabled")
	if err != nil {
		return err
	}
	list := plugin.ListResponse{}
	for _, p := range s.Plugins.List() {
		if enabled != nil && p.Enabled != *enabled ||
			slices.ContainsFunc(f["capability"], func(c string) bool { return !managed.Provides(p.Config, c) }) {
			continue
		}
		list = append(list, p)
	}
	return answer(w, http.StatusOK, list)
}

func (s *Server) privileges(w http.ResponseWriter, r *http.Request) error {
	p, err := s.Plugins.Privileges(r.Context(), managed.Source{Reference: r.URL.Query().Get("remote"), Auth: r.Header.Get("X-Registry-Auth")})
	if err != nil {
		return withStatus(http.StatusInternalServerError, err)
	}
	if p == nil {
		p = plugin.Privileges{}
	}
	return answer(w, http.StatusOK, p)
}

// granted reads the privileges that a client has had granted.
func granted(w http.ResponseWriter, r *http.Request) (plugin.Privileges, error) {
	var p plugin.Privileges
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	if err := dec.Decode(&p); err != nil {
		return nil, withStatus(http.StatusInternalServerError, errdefs.Errorf(errdefs.ErrInvalid, "failed to parse privileges: %w", err))
	}
	if dec.More() {
		return nil, withStatus(http.StatusInternalServerError, errdefs.Errorf(errdefs.ErrInvalid, "invalid privileges"))
	}
	return p, nil
}

func (s *Server) pull(w http.ResponseWriter, r *http.Request) error {
	p, err := granted(w, r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	source := managed.Source{Reference: q.Get("remote"), Auth: r.Header.Get("X-Registry-Auth")}
	name, err := managed.LocalName(source.Reference, q.Get("name"))
	if err != nil {
		return withStatus(http.StatusInternalServerError, err)
	}
	w.Header().Set("Docker-Plugin-Name", name)
	return s.stream(w, r, func(ctx context.Context, progress managed.ProgressFunc) error {
		_, err := s.Plugins.Install(ctx, managed.InstallOptions{Source: source, Name: q.Get("name"), Granted: p}, progress)
		return err
	})
}

func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, name string) error {
	p, err := granted(w, r)
	if err != nil {
		return err
	}
	known, err := s.Plugins.Inspect(name)
	if err != nil {
		return err
	}
	w.Header().Set("Docker-Plugin-Name", known.Name)
	source := managed.Source{Reference: r.URL.Query().Get("remote"), Auth: r.Header.Get("X-Registry-Auth")}
	return s.stream(w, r, func(ctx context.Context, progress managed.ProgressFunc) error {
		return s.Plugins.Upgrade(ctx, name, managed.InstallOptions{Source: source, Granted: p}, progress)
	})
}

func (s *Server) push(w http.ResponseWriter, r *http.Request, name string) error {
	return s.stream(w, r, func(ctx context.Context, progress managed.ProgressFunc) error {
		return s.Plugins.Push(ctx, name, r.Header.Get("X-Registry-Auth"), progress)
	})
}

func (s *Server) set(w http.ResponseWriter, r *http.Request, name string) error {
	var args []string
	if err := read(w, r, &args); err != nil {
		return err
	}
	if err := s.Plugins.Set(r.Context(), name, args, nil); err != nil {
		if _, lookErr := s.Plugins.Inspect(name); lookErr != nil {
			return err
		}
		return withStatus(http.StatusInternalServerError, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
