package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Event is something that has happened to an object of an engine.
type Event struct {
	Type   string // "container", "network"
	Action string // "start", "die", "connect" …
	Actor  struct {
		ID         string
		Attributes map[string]string
	}
}

// Container returns the ID of the container that it happened to: a network's event tells which one came or went. It is
// empty if it happened to none.
func (ev Event) Container() string {
	switch ev.Type {
	case "container":
		return ev.Actor.ID
	case "network":
		return ev.Actor.Attributes["container"]
	}
	return ""
}

// maxEvent bounds one event, which has all labels of a container.
const maxEvent = 1 << 20

// Events calls each with every event of the types, from when started is called until ctx ends or the engine ends the
// stream; it always returns an error. An engine does not wait for those who are slow, but drops what they
// do not take: each must not block.
func (e Engine) Events(ctx context.Context, types []string, started func(), each func(Event)) error {
	filter, err := json.Marshal(map[string][]string{"type": types})
	if err != nil {
		return err
	}
	err = e.do(ctx, http.MethodGet, "/events?filters="+url.QueryEscape(string(filter)), nil, func(body io.Reader) error {
		started()
		return decodeEvents(body, each)
	})
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if errdefs.Class(err) == nil {
		err = errdefs.As(errdefs.ErrUnavailable, err)
	}
	return fmt.Errorf("engine at %s: events: %w", e.Socket, err)
}

func decodeEvents(body io.Reader, each func(Event)) error {
	limit := &io.LimitedReader{R: body, N: maxEvent}
	in := json.NewDecoder(limit)
	for {
		var ev Event
		if err := in.Decode(&ev); err == io.EOF && limit.N > 0 {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
		limit.N = maxEvent
		each(ev)
	}
}

// Attached is a container with its networks.
type Attached struct {
	ID       string
	Name     string
	Hostname string
	Domain   string
	Running  bool
	Labels   map[string]string
	Networks map[string]Endpoint // by the network's name
}

// Endpoint is a container's place in a network.
type Endpoint struct {
	NetworkID         string
	IPAddress         string
	GlobalIPv6Address string
	Aliases           []string
	DNSNames          []string
}

// Running returns the IDs of the containers that run.
func (e Engine) Running(ctx context.Context) ([]string, error) {
	var list []struct {
		ID string `json:"Id"`
	}
	if err := e.Get(ctx, "/containers/json", &list); err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(list))
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids, nil
}

// Attached returns a container with its networks.
func (e Engine) Attached(ctx context.Context, id string) (Attached, error) {
	var full struct {
		ID     string `json:"Id"`
		Name   string
		State  struct{ Running bool }
		Config struct {
			Hostname, Domainname string
			Labels               map[string]string
		}
		NetworkSettings struct{ Networks map[string]Endpoint }
	}
	if err := e.Get(ctx, "/containers/"+url.PathEscape(id)+"/json", &full); err != nil {
		return Attached{}, err
	}
	return Attached{
		ID: full.ID, Name: trimSlash(full.Name), Hostname: full.Config.Hostname, Domain: full.Config.Domainname, Running: full.State.Running,
		Labels: full.Config.Labels, Networks: full.NetworkSettings.Networks,
	}, nil
}

func trimSlash(name string) string {
	if name != "" && name[0] == '/' {
		return name[1:]
	}
	return name
}
