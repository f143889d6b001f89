package bounded

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Close closes a driver if it is an [io.Closer]. A driver may wait there for what it has
// begun, and for ever where its storage is gone, so ctx bounds the waiting; one that gets
// its turn only when ctx has ended has a moment still. What goes wrong is logged to log if
// it is a panic.
func Close(ctx context.Context, log *slog.Logger, driver any) error {
	c, ok := driver.(io.Closer)
	if !ok {
		return nil
	}
	done := make(chan error, 1)
	go func() {
		_, err := guard(ctx, &Runner{Log: log}, "close", func(context.Context) (struct{}, error) { return struct{}{}, c.Close() })
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	moment := time.NewTimer(Settle)
	defer moment.Stop()
	select {
	case err := <-done:
		return err
	case <-moment.C:
		return fmt.Errorf("close: driver has not ended: %w", context.Cause(ctx))
	}
}
