package control

import (
	"context"
	"encoding/json"
	"io"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

var _ Storage = clientStorage{}

// Storage returns the methods for what drivers can do beyond the plugin protocol.
func (c *Client) Storage() Storage { return clientStorage{c} }

type clientStorage struct{ c *Client }

// Clone implements [Storage].
func (s clientStorage) Clone(ctx context.Context, req VolumeCloneRequest) (Volume, error) {
	return call[Volume](ctx, s.c, MethodVolumeClone, req)
}

// Resize implements [Storage].
func (s clientStorage) Resize(ctx context.Context, req VolumeResizeRequest) (Usage, error) {
	return call[Usage](ctx, s.c, MethodVolumeResize, req)
}

// Rollback implements [Storage].
func (s clientStorage) Rollback(ctx context.Context, req VolumeRollbackRequest) error {
	_, err := call[struct{}](ctx, s.c, MethodVolumeRollback, req)
	return err
}

// Usage implements [Storage].
func (s clientStorage) Usage(ctx context.Context, req VolumeRequest, progress func(Progress)) (Usage, error) {
	return follow[Usage](ctx, s.c, MethodVolumeUsage, req, progressOf(progress))
}

// Protect implements [Storage].
func (s clientStorage) Protect(ctx context.Context, req VolumeProtectRequest) error {
	_, err := call[struct{}](ctx, s.c, MethodVolumeProtect, req)
	return err
}

// CreateSnapshot implements [Storage].
func (s clientStorage) CreateSnapshot(ctx context.Context, req SnapshotCreateRequest) (Snapshot, error) {
	return call[Snapshot](ctx, s.c, MethodSnapshotCreate, req)
}

// ListSnapshots implements [Storage].
func (s clientStorage) ListSnapshots(ctx context.Context, req SnapshotListRequest) (SnapshotList, error) {
	return call[SnapshotList](ctx, s.c, MethodSnapshotList, req)
}

// RemoveSnapshot implements [Storage].
func (s clientStorage) RemoveSnapshot(ctx context.Context, req SnapshotRequest) error {
	_, err := call[struct{}](ctx, s.c, MethodSnapshotRemove, req)
	return err
}

// DiffSnapshot implements [Storage].
func (s clientStorage) DiffSnapshot(ctx context.Context, req SnapshotDiffRequest, each func(Change)) (Diff, error) {
	return follow[Diff](ctx, s.c, MethodSnapshotDiff, req, func(l line) {
		if l.Change != nil {
			each(*l.Change)
		}
	})
}

// Trash implements [Storage].
func (s clientStorage) Trash(ctx context.Context, req TrashListRequest) (TrashList, error) {
	return call[TrashList](ctx, s.c, MethodTrashList, req)
}

// Restore implements [Storage].
func (s clientStorage) Restore(ctx context.Context, req TrashRestoreRequest) (Volume, error) {
	return call[Volume](ctx, s.c, MethodTrashRestore, req)
}

// Purge implements [Storage].
func (s clientStorage) Purge(ctx context.Context, req TrashRequest) error {
	_, err := call[struct{}](ctx, s.c, MethodTrashPurge, req)
	return err
}

// Schedules implements [Storage].
func (s clientStorage) Schedules(ctx context.Context) (ScheduleList, error) {
	return call[ScheduleList](ctx, s.c, MethodScheduleList, struct{}{})
}

func progressOf(progress func(Progress)) func(line) {
	return func(l line) {
		if l.Progress != nil {
			progress(*l.Progress)
		}
	}
}

// follow sends one request and reads the lines of its answer: each gets those before the last.
func follow[Resp any](ctx context.Context, c *Client, method string, req any, each func(line)) (Resp, error) {
	resp, err := c.post(ctx, method, req)
	if err != nil {
		var out Resp
		return out, err
	}
	defer resp.Body.Close()
	return lines[Resp](ctx, resp.Body, each)
}

// lines reads the lines of an answer.
func lines[Resp any](ctx context.Context, body io.Reader, each func(line)) (Resp, error) {
	var out Resp
	dec := json.NewDecoder(body)
	for {
		var l line
		err := dec.Decode(&l)
		switch {
		case err == nil && l.Error != nil:
			return out, l.Error.toError()
		case err == nil && l.Result != nil:
			err = json.Unmarshal(l.Result, &out)
			if err == nil {
				return out, nil
			}
		case err == nil:
			each(l)
			continue
		case ctx.Err() != nil:
			return out, context.Cause(ctx)
		}
		return out, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "daemon: answer breaks off: %w", err),
			"the daemon has ended; when it runs again, repeat the command")
	}
}
