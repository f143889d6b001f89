package engine

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// answerTime bounds one answer.
const answerTime = 20 * time.Second

// Get asks for a path of the API, and decodes the answer.
func (e Engine) Get(ctx context.Context, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return e.call(ctx, http.MethodGet, path, nil, answer)
}

// Labelled is a volume that an engine knows, with its labels.
type Labelled struct {
	Volume
	Labels map[string]string
}

// Volumes returns the volumes that the engine knows, and with a label those that have it: KEY or
// KEY=VALUE.
func (e Engine) Volumes(ctx context.Context, label string) ([]Labelled, error) {
	var list struct{ Volumes []Labelled }
	err := e.Get(ctx, withLabel("/volumes", label), &list)
	return list.Volumes, err
}

// Having returns the containers that have volumes and a label, those that are stopped too.
func (e Engine) Having(ctx context.Context, label string) ([]Container, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var list []struct {
		ID string `json:"Id"`
	}
	if err := e.call(ctx, http.MethodGet, withLabel("/containers/json?all=1", label), nil, &list); err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for _, c := range list {
		has[c.ID] = true
	}
	all, err := e.Containers(ctx)
	return slices.DeleteFunc(all, func(c Container) bool { return !has[c.ID] }), err
}

// withLabel adds a label to look for to a path.
func withLabel(path, label string) string {
	if label == "" {
		return path
	}
	text, err := json.Marshal(map[string][]string{"label": {label}})
	if err != nil {
		panic(err) // a map of texts has JSON
	}
	sign := "?"
	if strings.Contains(path, "?") {
		sign = "&"
	}
	return path + sign + "filters=" + url.QueryEscape(string(text))
}

// Container returns a container by its name or ID. Of its volumes nothing is told.
func (e Engine) Container(ctx context.Context, name string) (Container, error) {
	var full struct {
		ID    string `json:"Id"`
		Name  string
		State struct{ Running bool }
	}
	err := e.Get(ctx, "/containers/"+url.PathEscape(name)+"/json", &full)
	// Engines take the first letters of an ID for it, too, where no container has that name: "db" may be any.
	if is := strings.TrimPrefix(full.Name, "/") == strings.TrimPrefix(name, "/") || len(name) >= shortID && strings.HasPrefix(full.ID, name); err == nil && !is {
		return Container{}, errdefs.Errorf(errdefs.ErrNotFound, "container %q: no such container", name)
	}
	return Container{ID: full.ID, Name: strings.TrimPrefix(full.Name, "/"), Running: full.State.Running}, err
}

// shortID is how many letters of an ID engines show.
const shortID = 12

// Has tells whether the container has a volume of a pool.
func (c Container) Has(pool, volume string) bool {
	return slices.ContainsFunc(c.Volumes, func(v Volume) bool {
		return v.Name == volume && (v.Driver == "" || v.Pool() == pool)
	})
}

// ours begins the names of managed plugins of Remora's.
const ours = "remora/"

// Pool is the name of the pool whose volume it is. An engine calls a managed plugin by its tag too,
// such as remora:latest or remora/ebs:1.2.
func (v Volume) Pool() string {
	name, _, _ := strings.Cut(v.Driver, "@")
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") { // else it is a registry's port
		name = name[:i]
	}
	return strings.TrimPrefix(name, ours)
}
