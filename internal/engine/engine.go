// Package engine asks engines, dockerd or one that answers Docker's API, for what plugins are
// not told: labels, containers, the volumes of a Compose project. It also runs commands in
// containers. Every answer is waited for a limited time.
package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The sockets of Docker and of Podman, if it is asked to listen (podman-system-service(1)).
const (
	DockerSocket = "/run/docker.sock"
	PodmanSocket = "/run/podman/podman.sock"
)

// answerTime bounds one answer.
const answerTime = 20 * time.Second

// Client asks the engine that listens at a socket.
type Client struct {
	Socket string
}

// Local returns those of Docker and of Podman, as far as they are here.
func Local() (all []Client) {
	for _, socket := range []string{DockerSocket, PodmanSocket} {
		if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
			all = append(all, Client{socket})
		}
	}
	return all
}

// Get asks for a path of the API, and decodes the answer.
func (c Client) Get(ctx context.Context, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.ask(ctx, http.MethodGet, path, nil, func(body io.Reader) error { return json.NewDecoder(body).Decode(answer) })
}

// post sends an object to a path of the API, and decodes the answer.
func (c Client) post(ctx context.Context, path string, request, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.ask(ctx, http.MethodPost, path, request, func(body io.Reader) error { return json.NewDecoder(body).Decode(answer) })
}

// ask sends one request and reads its answer.
func (c Client) ask(ctx context.Context, method, path string, request any, read func(io.Reader) error) error {
	h := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	}}}
	defer h.CloseIdleConnections()
	var body io.Reader
	if request != nil {
		data, err := json.Marshal(request)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		return err
	}
	if request != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := h.Do(req)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode >= http.StatusOK && resp.StatusCode < http.StatusMultipleChoices {
			err = read(resp.Body)
		} else {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // as far as it goes
			err = errdefs.As(classOf(resp.StatusCode), fmt.Errorf("answers %s to %s: %s", resp.Status, path, message(text)))
		}
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	err = fmt.Errorf("engine at %s: %w", c.Socket, err)
	if errdefs.Class(err) == nil {
		err = errdefs.As(errdefs.ErrUnavailable, err)
	}
	return err
}

// message returns what an engine says, which is an object with a message.
func message(body []byte) string {
	var m struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &m) == nil && m.Message != "" {
		return errdefs.OneLine(m.Message)
	}
	return errdefs.OneLine(strings.TrimSpace(string(body)))
}

func classOf(status int) error {
	switch status {
	case http.StatusNotFound:
		return errdefs.ErrNotFound
	case http.StatusConflict:
		return errdefs.ErrInUse
	case http.StatusBadRequest:
		return errdefs.ErrInvalid
	}
	return errdefs.ErrUnavailable
}

// filtered adds filters, such as a label, to a path.
func filtered(path string, filters map[string][]string) string {
	if len(filters) == 0 {
		return path
	}
	text, err := json.Marshal(filters)
	if err != nil {
		panic(err) // a map of texts has JSON
	}
	sign := "?"
	if strings.Contains(path, "?") {
		sign = "&"
	}
	return path + sign + "filters=" + url.QueryEscape(string(text))
}

// Volume is a volume that the engine knows.
type Volume struct {
	Name, Driver string
	Labels       map[string]string
}

// Volumes returns the volumes that the engine knows, and with a label those that have it: KEY or
// KEY=VALUE.
func (c Client) Volumes(ctx context.Context, label string) ([]Volume, error) {
	var list struct{ Volumes []Volume }
	err := c.Get(ctx, filtered("/volumes", byLabel(label)), &list)
	return list.Volumes, err
}

// Container is a container.
type Container struct {
	ID     string `json:"Id"`
	Names  []string
	State  string
	Labels map[string]string
	Mounts []Mount
}

// Mount is one that a container has.
type Mount struct{ Type, Name, Driver string }

// Name is the container's name.
func (c Container) Name() string {
	if len(c.Names) == 0 {
		return c.ID
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

// Running tells whether commands can be run in the container.
func (c Container) Running() bool { return c.State == "running" }

// Has tells whether the container has a volume of a pool.
func (c Container) Has(pool, volume string) bool {
	for _, m := range c.Mounts {
		if m.Type == "volume" && m.Name == volume && (m.Driver == pool || m.Driver == "") {
			return true
		}
	}
	return false
}

// Containers returns the containers, those that are stopped too, and with a label those that
// have it.
func (c Client) Containers(ctx context.Context, label string) (all []Container, err error) {
	err = c.Get(ctx, filtered("/containers/json?all=1", byLabel(label)), &all)
	return all, err
}

func byLabel(label string) map[string][]string {
	if label == "" {
		return nil
	}
	return map[string][]string{"label": {label}}
}

// Container returns a container by its name or ID.
func (c Client) Container(ctx context.Context, name string) (Container, error) {
	var full struct {
		ID     string `json:"Id"`
		Name   string
		State  struct{ Status string }
		Config struct{ Labels map[string]string }
		Mounts []Mount
	}
	err := c.Get(ctx, "/containers/"+url.PathEscape(name)+"/json", &full)
	return Container{full.ID, []string{full.Name}, full.State.Status, full.Config.Labels, full.Mounts}, err
}
