package adopt

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	convoyConfig = "config" // below vfs.path
	convoyPrefix = "vfs_volume_"
	convoySuffix = ".json"
)

// ConvoyVFS returns the volumes of Convoy's driver vfs whose vfs.path is dir, sorted by name.
// The facts of one that cannot be read are the error of that volume.
func ConvoyVFS(dir string) ([]Volume, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, convoyConfig)
	entries, err := os.ReadDir(config)
	if err != nil {
		return nil, errdefs.Hint(classify(config, err), "want the directory that was vfs.path, which has the directory config")
	}
	var all []Volume
	for _, e := range entries {
		key, is := strings.CutPrefix(e.Name(), convoyPrefix)
		key, isJSON := strings.CutSuffix(key, convoySuffix)
		if !is || !isJSON || key == "" {
			continue
		}
		file := filepath.Join(config, e.Name())
		data, err := readFile(file)
		if err != nil {
			all = append(all, Volume{Name: key, Err: err})
			continue
		}
		name, folder, err := parseConvoy(key, data)
		if err != nil {
			all = append(all, Volume{Name: key, Err: errdefs.Errorf(errdefs.ErrInvalid, "%s: %w", file, err)})
			continue
		}
		all = append(all, found(name, filepath.Join(dir, folder)))
	}
	slices.SortFunc(all, func(a, b Volume) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// parseConvoy reads the facts of the volume whose file is called after key: its name in the
// versions that have names, and a UUID before. The folder is the last part of Path, because
// vfs.path may be mounted elsewhere now.
func parseConvoy(key string, data []byte) (name, folder string, err error) {
	var v struct {
		Name, UUID, Path string
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return "", "", err
	}
	name, folder = v.Name, filepath.Base(v.Path)
	if v.Path == "" {
		folder = v.Name
	}
	if name == "" && v.UUID == key {
		name = folder
	}
	switch {
	case name == "":
		return "", "", errdefs.Errorf(errdefs.ErrInvalid, "it names no volume")
	case v.Name != "" && v.Name != key:
		return "", "", errdefs.Errorf(errdefs.ErrInvalid, "it is of another volume, %q", v.Name)
	case folder == "." || folder == ".." || folder == "/" || folder == convoyConfig || strings.ContainsAny(folder, "/\x00"):
		return "", "", errdefs.Errorf(errdefs.ErrInvalid, "its path %q is not that of a volume", v.Path)
	}
	return name, folder, nil
}
