package engineapi

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/volume"

	"github.com/remora-plugins/remora/internal/managed/volumes"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// volumes routes what is below /volumes.
func (s *Server) volumes(w http.ResponseWriter, r *http.Request, rest string) error {
	switch {
	case r.Method == http.MethodGet && rest == "":
		return s.listVolumes(w, r)
	case r.Method == http.MethodPost && rest == "create":
		return s.createVolume(w, r)
	case r.Method == http.MethodPost && rest == "prune":
		return s.pruneVolumes(w, r)
	case r.Method == http.MethodGet:
		v, err := s.Volumes.Get(r.Context(), rest)
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, toWire(v))
	case r.Method == http.MethodDelete && rest != "":
		v, lookErr := s.Volumes.Get(r.Context(), rest)
		if err := s.Volumes.Remove(r.Context(), rest, flag(r, "force")); err != nil {
			return err
		}
		if lookErr == nil {
			s.Plugins.Events().Add("volume", "destroy", rest, map[string]string{"driver": v.Driver})
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return errdefs.Errorf(errdefs.ErrNotFound, "page not found")
}

func (s *Server) listVolumes(w http.ResponseWriter, r *http.Request) error {
	f, err := readFilters(r.URL.Query(), "dangling", "name", "driver", "label")
	if err != nil {
		return err
	}
	dangling, err := f.boolean("dangling")
	if err != nil {
		return err
	}
	all, warnings := s.Volumes.List(r.Context())
	resp := volume.ListResponse{Warnings: warnings, Volumes: []volume.Volume{}}
	for _, v := range all {
		// Nothing here has containers, so that each volume is one that none uses.
		if dangling != nil && !*dangling || !named(f["name"], v.Name) || !f.labels("label", v.Labels) ||
			len(f["driver"]) > 0 && !slices.Contains(f["driver"], v.Driver) {
			continue
		}
		resp.Volumes = append(resp.Volumes, toWire(v))
	}
	return answer(w, http.StatusOK, resp)
}

// named tells whether a name fits one of the patterns, a part of it or a regular expression.
func named(patterns []string, name string) bool {
	for _, p := range patterns {
		if strings.Contains(name, p) {
			return true
		}
		if re, err := regexp.Compile(p); err == nil && re.MatchString(name) {
			return true
		}
	}
	return len(patterns) == 0
}

func (s *Server) createVolume(w http.ResponseWriter, r *http.Request) error {
	var req volume.CreateRequest
	if err := read(w, r, &req); err != nil {
		return err
	}
	v, made, err := s.Volumes.Create(r.Context(), req.Name, req.Driver, req.DriverOpts, req.Labels)
	if err != nil {
		return err
	}
	if made {
		s.Plugins.Events().Add("volume", "create", v.Name, map[string]string{"driver": v.Driver})
	}
	return answer(w, http.StatusCreated, toWire(v))
}

// pruneVolumes removes nothing: an engine prunes those of its own driver that no container has, and nobody here
// knows which containers there are.
func (s *Server) pruneVolumes(w http.ResponseWriter, r *http.Request) error {
	if _, err := readFilters(r.URL.Query(), "label", "label!", "all"); err != nil {
		return err
	}
	s.Plugins.Events().Add("volume", "prune", "", map[string]string{"reclaimed": "0"})
	return answer(w, http.StatusOK, volume.PruneReport{})
}

func toWire(v volumes.Volume) volume.Volume {
	out := volume.Volume{
		Name: v.Name, Driver: v.Driver, Mountpoint: v.Mountpoint, Labels: v.Labels, Options: v.Options, Scope: v.Scope, Status: v.Status,
		CreatedAt: v.CreatedAt.Format(time.RFC3339),
	}
	return out
}
