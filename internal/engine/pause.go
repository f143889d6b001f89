package engine

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Pause stops all that runs in a container where it is. It tells whether it did: one that is paused
// already, has ended or is gone is left as it is.
func (e Engine) Pause(ctx context.Context, container string) (paused bool, err error) {
	err = e.post(ctx, container, "pause")
	if err == nil {
		return true, nil
	}
	now, inspectErr := e.stateOf(ctx, container)
	if inspectErr == nil && (now.Paused || !now.Running && !now.Restarting) || errors.Is(inspectErr, errdefs.ErrNotFound) {
		return false, nil
	}
	return false, err
}

// Unpause has a container run on that is paused. Any other, and one that is gone, is left as it is.
func (e Engine) Unpause(ctx context.Context, container string) error {
	now, err := e.stateOf(ctx, container)
	if errors.Is(err, errdefs.ErrNotFound) || err == nil && !now.Paused {
		return nil
	}
	if err == nil {
		err = e.post(ctx, container, "unpause")
	}
	if err == nil {
		return nil
	}
	if now, inspectErr := e.stateOf(ctx, container); errors.Is(inspectErr, errdefs.ErrNotFound) || inspectErr == nil && !now.Paused {
		return nil // somebody was faster
	}
	return err
}

func (e Engine) post(ctx context.Context, container, verb string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return e.call(ctx, http.MethodPost, "/containers/"+url.PathEscape(container)+"/"+verb, nil, nil)
}

// containerState is what an engine tells of how a container is.
type containerState struct{ Running, Paused, Restarting bool }

func (e Engine) stateOf(ctx context.Context, container string) (containerState, error) {
	var full struct{ State containerState }
	err := e.Get(ctx, "/containers/"+url.PathEscape(container)+"/json", &full)
	return full.State, err
}
