package adopt

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// LocalPersistFile is where local-persist keeps its state.
const LocalPersistFile = "/var/lib/docker/plugin-data/local-persist.json"

// LocalPersist returns the volumes of local-persist whose state is in file, sorted by name.
func LocalPersist(file string) ([]Volume, error) {
	data, err := readFile(file)
	if errors.Is(err, errdefs.ErrNotFound) {
		err = errdefs.Hint(err, "name the file: where local-persist ran in a container, it is in the directory that was bound to /var/lib/docker/plugin-data")
	}
	if err != nil {
		return nil, err
	}
	state, err := parseLocalPersist(data)
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s: not a state file of local-persist: %w", file, err)
	}
	var all []Volume
	for _, name := range slices.Sorted(maps.Keys(state)) {
		all = append(all, found(name, state[name]))
	}
	return all, nil
}

// parseLocalPersist reads {"state": {NAME: PATH}}.
func parseLocalPersist(data []byte) (map[string]string, error) {
	var file struct {
		State *map[string]string `json:"state"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.State == nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "it has no object %q", "state")
	}
	return *file.State, nil
}
