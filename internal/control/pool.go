package control

import (
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// DefaultPool is the pool that is meant where none is named and there are several.
const DefaultPool = "remora"

// ResolvePool returns the pool that name stands for among pools. An empty name is
// [DefaultPool] or, where there is none of that name, the only pool. A name that is
// not among them is ErrNotFound, an empty one that could be several ErrInvalid; both
// list the pools there are.
func ResolvePool(name string, pools []string) (string, error) {
	switch {
	case name == "" && slices.Contains(pools, DefaultPool):
		return DefaultPool, nil
	case name == "" && len(pools) == 1:
		return pools[0], nil
	case name == "" && len(pools) > 1:
		return "", errdefs.Hint(
			errdefs.Errorf(errdefs.ErrInvalid, "no pool named, and there is more than one: %s", list(pools)),
			"name one with --pool")
	case slices.Contains(pools, name):
		return name, nil
	case len(pools) == 0:
		return "", errdefs.Errorf(errdefs.ErrNotFound, "pool %q: not found, there are no pools", name)
	}
	return "", errdefs.Errorf(errdefs.ErrNotFound, "pool %q: not found, there are: %s", name, list(pools))
}

func list(names []string) string {
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}
