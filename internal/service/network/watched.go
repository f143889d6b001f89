package network

import (
	"log/slog"
	"strings"

	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/names"
	"github.com/remora-plugins/remora/internal/names/watch"
)

// engineKeys returns what the records of each engine's names begin with, and takes those back of engines that are watched no more.
func (in *inside) engineKeys(all []engine.Engine) []string {
	sockets := make([]string, 0, len(all))
	for _, e := range all {
		sockets = append(sockets, e.Socket)
	}
	kept := []string{names.HandKey, strings.TrimSuffix(namePrefix, "/")}
	keys := watch.Keys(sockets, kept...)
	if err := watch.Forget(in.records, append(kept, keys...)...); err != nil {
		in.log.Warn("names of an engine that is watched no more are still told", slog.Any("error", err))
	}
	return keys
}
