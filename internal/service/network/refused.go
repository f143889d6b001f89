package network

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	refusedName    = "refused.json"
	refusedVersion = 1
)

// refused remembers the networks of the cluster that a person removed from this host's engine.
type refused struct {
	root *os.Root
	log  *slog.Logger

	mu  sync.Mutex
	ids map[string]bool
}

type refusedOnDisk struct {
	Networks []string `json:"networks"`
}

func newRefused(root *os.Root, log *slog.Logger) (*refused, error) {
	var on refusedOnDisk
	if err := state.Read(root, refusedName, refusedVersion, &on); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return nil, err
	}
	r := &refused{root: root, log: log, ids: map[string]bool{}}
	for _, id := range on.Networks {
		r.ids[id] = true
	}
	return r, nil
}

func (r *refused) has(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ids[id]
}

func (r *refused) add(id string)  { r.set(id, true) }
func (r *refused) drop(id string) { r.set(id, false) }

func (r *refused) set(id string, is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids[id] == is {
		return
	}
	if is {
		r.ids[id] = true
	} else {
		delete(r.ids, id)
	}
	if err := state.Write(r.root, refusedName, refusedVersion, refusedOnDisk{slices.Sorted(maps.Keys(r.ids))}); err != nil {
		r.log.Error("which networks were removed by hand is not remembered", slog.Any("error", err))
	}
}
