package client

import (
	"context"
	"time"
)

// patience is how long an engine goes on trying, and the longest it waits between two
// tries (moby pkg/plugins/client.go, defaultTimeOut).
const patience = 30 * time.Second

// backOff runs try until it succeeds or again says no to its error, waiting 1, 2, 4, 8 …
// seconds in between. It gives up, with the last error, where the next try would come 30
// seconds or more after the first, or when ctx ends. again is told of each wait.
func backOff(ctx context.Context, try func() error, again func(err error, wait time.Duration) bool) error {
	start := time.Now()
	for wait := time.Second; ; wait = min(2*wait, patience) {
		err := try()
		if err == nil || time.Since(start)+wait >= patience || !again(err, wait) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
