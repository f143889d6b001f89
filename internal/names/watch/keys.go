package watch

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/names"
)

// Keys are a [Config.Key] for the engine at each socket: what the socket is called, and where another is called so or what is kept begins
// so, with a part of the path's hash. Two engines under one key would each take the other's names for those of containers that are gone.
func Keys(sockets []string, kept ...string) []string {
	keys := make([]string, 0, len(sockets))
	for _, s := range sockets {
		key := base(s)
		if slices.Contains(keys, key) || slices.Contains(kept, key) {
			hash := sha256.Sum256([]byte(s))
			key += "-" + hex.EncodeToString(hash[:4])
		}
		keys = append(keys, key)
	}
	return keys
}

func base(socket string) string { return strings.TrimSuffix(filepath.Base(socket), ".sock") }

// Forget takes the names back that this host has told of the containers of engines beside those of these keys: an engine that is not watched
// any more never says that one of them is gone.
func Forget(store names.Writer, keys ...string) error {
	var errs []error
	for _, r := range store.Records(record.KindName) {
		key, _, _ := strings.Cut(r.Name, "/")
		if r.Writer == store.Self() && !slices.Contains(keys, key) {
			errs = append(errs, store.Delete(record.KindName, r.Name))
		}
	}
	return errors.Join(errs...)
}
