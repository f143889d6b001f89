package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Check is a command that is run in a container without a network.
type Check struct {
	// Name is the container's, and Label one by which it is found after a crash.
	Name  string
	Label Label
	Image string
	// Command is what /bin/sh runs; empty is what the image does.
	Command string
	// Dir is a directory of the host, which is at Mountpoint in the container.
	Dir, Mountpoint string
	// Memory bounds what it may use, in bytes, Timeout how long it may take.
	Memory  int64
	Timeout time.Duration
}

// Label is that of a container.
type Label struct {
	Key, Value string
}

// The limits of what is asked of an engine beside the command itself. To make a container may
// take long on a disk that is busy.
const (
	startTime  = 2 * time.Minute
	removeTime = 30 * time.Second
)

// most is how many processes a check may have.
const most = 1000

// Run runs a check to its end, and removes its container. The error is nil when the command ended
// with 0; otherwise it says what the command said last.
func (e Engine) Run(ctx context.Context, c Check) (err error) {
	id, err := e.start(ctx, c)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
		defer cancel()
		if rerr := e.remove(ctx, id); rerr != nil && err == nil {
			err = rerr
		}
	}()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, errdefs.Errorf(context.DeadlineExceeded, "has not ended within %s", c.Timeout))
	defer cancel()
	var ended struct {
		StatusCode int
		Error      *struct{ Message string }
	}
	if err := e.call(ctx, http.MethodPost, "/containers/"+id+"/wait", nil, &ended); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("check %q: %w", c.Image, context.Cause(ctx))
		}
		return err
	}
	if ended.StatusCode == 0 && ended.Error == nil {
		return nil
	}
	return e.failed(ctx, c, id, ended.StatusCode)
}

// start makes the container, and starts it. The ID is empty where there is none.
func (e Engine) start(ctx context.Context, c Check) (id string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, errdefs.Errorf(context.DeadlineExceeded, "gave up after %s", startTime))
	defer cancel()
	type bind struct{ Type, Source, Target string }
	type hostConfig struct {
		Mounts             []bind
		NetworkMode        string
		Memory, MemorySwap int64
		PidsLimit          int64
		SecurityOpt        []string
	}
	asked := struct {
		Image           string
		Entrypoint, Cmd []string `json:",omitempty"`
		Labels          map[string]string
		NetworkDisabled bool
		HostConfig      hostConfig
	}{
		Image: c.Image, Labels: map[string]string{c.Label.Key: c.Label.Value}, NetworkDisabled: true,
		HostConfig: hostConfig{
			Mounts: []bind{{"bind", c.Dir, c.Mountpoint}}, NetworkMode: "none", Memory: c.Memory, MemorySwap: c.Memory, PidsLimit: most,
			SecurityOpt: []string{"no-new-privileges"},
		},
	}
	if c.Command != "" {
		asked.Entrypoint, asked.Cmd = []string{"/bin/sh", "-c"}, []string{c.Command}
	}
	var made struct {
		ID string `json:"Id"`
	}
	err = e.call(ctx, http.MethodPost, "/containers/create?name="+url.QueryEscape(c.Name), asked, &made)
	if errors.Is(err, errdefs.ErrNotFound) {
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "image %q: is not on this host", c.Image), "docker pull "+c.Image)
	}
	if errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		return c.Name, err // it may have been made all the same
	}
	if err != nil {
		return "", err
	}
	return made.ID, e.call(ctx, http.MethodPost, "/containers/"+made.ID+"/start", nil, nil)
}

// failed says why a check failed, with what it said last.
func (e Engine) failed(ctx context.Context, c Check, id string, status int) error {
	var is struct {
		State struct{ OOMKilled bool }
	}
	why := fmt.Sprintf("ended with %d", status)
	if err := e.call(ctx, http.MethodGet, "/containers/"+id+"/json", nil, &is); err == nil && is.State.OOMKilled {
		why = fmt.Sprintf("used more memory than %d MiB", c.Memory>>20)
	}
	var said strings.Builder
	_ = e.do(ctx, http.MethodGet, "/containers/"+id+"/logs?stdout=1&stderr=1&tail=5", nil, func(r io.Reader) error {
		return copyStreams(&said, io.LimitReader(r, 64<<10))
	}) // what it said is worth telling, and no more than that
	if last := errdefs.OneLine(strings.TrimSpace(said.String())); last != "" {
		why += ": " + fmt.Sprintf("%.300s", last)
	}
	return fmt.Errorf("check %q: %s", c.Image, why)
}

// remove removes a container, whatever it does. One that is not there is no error.
func (e Engine) remove(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	err := e.call(ctx, http.MethodDelete, "/containers/"+url.PathEscape(id)+"?force=1&v=1", nil, nil)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// RemoveChecks removes the containers with a label: those of checks that a crash has cut off.
func (e Engine) RemoveChecks(ctx context.Context, l Label) error {
	var list []struct {
		ID string `json:"Id"`
	}
	filter := fmt.Sprintf(`{"label":[%q]}`, l.Key+"="+l.Value)
	if err := e.call(ctx, http.MethodGet, "/containers/json?all=1&filters="+url.QueryEscape(filter), nil, &list); err != nil {
		return err
	}
	var errs []error
	for _, c := range list {
		errs = append(errs, e.remove(ctx, c.ID))
	}
	return errors.Join(errs...)
}
