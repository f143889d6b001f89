// Package engine asks engines for what the plugin protocol does not tell, over the API of Docker,
// which Podman answers too: who uses a volume. And it has them run a command in a container that
// reaches nothing but what is mounted in it.
package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The sockets where engines listen unless they are told otherwise.
const (
	DockerSocket = "/run/docker.sock"
	PodmanSocket = "/run/podman/podman.sock"
)

// Engine is one that answers on a socket.
type Engine struct {
	Socket string
}

// There returns the engines at sockets that are there; without any it is Docker and Podman.
func There(sockets []string) []Engine {
	if len(sockets) == 0 {
		sockets = []string{DockerSocket, PodmanSocket}
	}
	var all []Engine
	for _, s := range sockets {
		if _, err := os.Stat(s); err == nil {
			all = append(all, Engine{s})
		}
	}
	return all
}

// maxAnswer bounds an answer, which is taken into memory: thousands of containers are less.
const maxAnswer = 256 << 20

// call makes one request. A body that is not nil is sent as JSON; the answer is read into answer,
// which may be nil.
func (e Engine) call(ctx context.Context, method, path string, body, answer any) error {
	err := e.do(ctx, method, path, body, func(r io.Reader) error {
		if answer == nil {
			return nil
		}
		return json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(answer)
	})
	if err != nil && errdefs.Class(err) == nil {
		err = errdefs.As(errdefs.ErrUnavailable, err)
	}
	if err != nil {
		return fmt.Errorf("engine at %s: %w", e.Socket, err)
	}
	return nil
}

// do makes one request, and has read read what is answered.
func (e Engine) do(ctx context.Context, method, path string, body any, read func(io.Reader) error) error {
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.Socket)
	}}}
	defer c.CloseIdleConnections()
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, sent)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return e.unreached(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 300 || resp.StatusCode == http.StatusNotModified {
		return read(resp.Body)
	}
	return refused(resp)
}

// unreached says of an engine that could not be called why, and what to do.
func (e Engine) unreached(err error) error {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "dial" {
		return err
	}
	unit := "docker"
	if e.Socket == PodmanSocket {
		unit = "podman.socket"
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "it does not run"), `start it, such as by "systemctl start `+unit+`"`)
	case errors.Is(err, fs.ErrPermission):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "its socket may not be opened"), "run it as root")
	}
	return op.Err
}

// refused makes an error of an answer.
func refused(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4000)) // as far as it goes
	var said struct {
		Message string `json:"message"`
		Cause   string `json:"cause"`
	}
	_ = json.Unmarshal(text, &said) // what is no JSON is shown as it is
	what := errdefs.OneLine(cmp.Or(said.Message, strings.TrimSpace(string(text)), resp.Status))
	class := errdefs.ErrUnavailable
	switch resp.StatusCode {
	case http.StatusNotFound:
		class = errdefs.ErrNotFound
	case http.StatusConflict:
		class = errdefs.ErrInUse
	case http.StatusBadRequest:
		class = errdefs.ErrInvalid
	}
	return errdefs.Errorf(class, "%s", what)
}

// Container is one that has volumes.
type Container struct {
	ID      string
	Name    string
	Running bool
	// Paused is of one that would run.
	Paused bool
	// Volumes are the names of those that it has, with the drivers they are of where the engine
	// tells; an empty driver is any.
	Volumes []Volume
}

// Volume names a volume as an engine does.
type Volume struct {
	Driver, Name string
}

// Containers returns all containers that have volumes, those that are stopped too, by name.
func (e Engine) Containers(ctx context.Context) ([]Container, error) {
	var list []struct {
		ID     string `json:"Id"`
		Names  []string
		State  string
		Mounts []struct{ Type, Name, Driver string }
	}
	if err := e.call(ctx, http.MethodGet, "/containers/json?all=1", nil, &list); err != nil {
		return nil, err
	}
	var all []Container
	for _, c := range list {
		one := Container{ID: c.ID, Name: fmt.Sprintf("%.12s", c.ID), Running: c.State == "running", Paused: c.State == "paused"}
		if len(c.Names) > 0 {
			one.Name = strings.TrimPrefix(c.Names[0], "/")
		}
		for _, m := range c.Mounts {
			if m.Type == "volume" {
				one.Volumes = append(one.Volumes, Volume{m.Driver, m.Name})
			}
		}
		if len(one.Volumes) > 0 {
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b Container) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
