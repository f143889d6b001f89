package cli

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/remora-plugins/remora/internal/control"
	engineapi "github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// podmanSocket is where podman answers Docker's API, if it is asked to.
const podmanSocket = engineapi.PodmanSocket

// engine is one that answers Docker's API on a socket.
type engine struct {
	socket string
}

// get asks for a path of the API.
func (e engine) get(ctx context.Context, path string, answer any) error {
	return engineapi.Engine{Socket: e.socket}.Get(ctx, path, answer)
}

// used returns the names of the volumes that containers have, those that are stopped too.
func (e engine) used(ctx context.Context) (map[string]bool, error) {
	return e.volumesOf(ctx, "/containers/json?all=1")
}

// running returns the names of the volumes that containers have which run.
func (e engine) running(ctx context.Context) (map[string]bool, error) {
	return e.volumesOf(ctx, "/containers/json")
}

func (e engine) volumesOf(ctx context.Context, path string) (map[string]bool, error) {
	var containers []struct {
		Mounts []struct{ Type, Name string }
	}
	if err := e.get(ctx, path, &containers); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, c := range containers {
		for _, m := range c.Mounts {
			if m.Type == "volume" {
				names[m.Name] = true
			}
		}
	}
	return names, nil
}

// volumes returns the volumes that the engine knows.
func (e engine) volumes(ctx context.Context) ([]engineapi.Labelled, error) {
	return engineapi.Engine{Socket: e.socket}.Volumes(ctx, "")
}

// engines returns those that may have containers with volumes of the pools: the ones that are
// named, or in the configuration, or Docker and Podman as far as they are here. Where it is not sure that all can be
// asked it fails.
func (a *app) engines(named []string, pools []control.Pool) ([]engine, error) {
	if len(named) > 0 {
		var all []engine
		for _, socket := range named {
			if socket != "none" {
				all = append(all, engine{strings.TrimPrefix(socket, "unix://")})
			}
		}
		return all, nil
	}
	fail := func(hint, format string, args ...any) ([]engine, error) {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "engine: "+format, args...), hint+", or name the engines: --engine SOCKET, or --engine none")
	}
	conf, err := a.load(nil)
	if err != nil {
		return nil, err
	}
	var all []engine
	for _, socket := range conf.Engine.Sockets {
		if socket != "none" { // the daemon is to ask nobody; this is about what people remove
			all = append(all, engine{socket})
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	host := a.getenv("DOCKER_HOST")
	path, isUnix := strings.CutPrefix(host, "unix://")
	switch {
	case host == "":
		path = dockerSocket
	case !isUnix:
		return fail("unset it", "DOCKER_HOST is %s, which is not on this host's sockets", host)
	}
	there := func(socket string) bool { _, err := os.Stat(socket); return !errors.Is(err, os.ErrNotExist) }
	if there(path) {
		all = append(all, engine{path})
	}
	switch {
	case there(podmanSocket):
		all = append(all, engine{podmanSocket})
	case podmanKnows(pools) != "":
		return fail("systemctl start podman.socket", "podman has the pool %q as a volume driver, and does not listen at %s", podmanKnows(pools), podmanSocket)
	}
	if len(all) == 0 {
		return fail("start it", "none at %s, so nobody can say which volumes its containers have", path)
	}
	return all, nil
}

// podmanKnows returns a pool that podman is configured for.
func podmanKnows(pools []control.Pool) string {
	known := podmanPlugins(func(string, error) {})
	for _, p := range pools {
		if known[p.Name] != "" {
			return p.Name
		}
	}
	return ""
}
