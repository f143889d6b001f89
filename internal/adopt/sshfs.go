package adopt

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// PluginsDir is where Docker keeps its managed plugins, and where vieux/sshfs, if nobody
// chose another place, has its state among them.
const PluginsDir = "/var/lib/docker/plugins"

const (
	sshfsState = "sshfs-state.json"
	sshfsHome  = "/root/.ssh" // of the managed plugin, where "sshkey.source" is mounted
)

// Sshfs is a state of vieux/sshfs.
type Sshfs struct {
	File string
	// Keys is the directory of keys that the plugin was given, empty where nobody knows.
	Keys string
}

// FindSshfs looks for the state of vieux/sshfs as a managed plugin, whose settings are in
// Docker's directory of plugins.
func FindSshfs(dir string) (Sshfs, error) {
	s := Sshfs{File: filepath.Join(dir, sshfsState)}
	configs, err := filepath.Glob(filepath.Join(escape(dir), "*", "config.json"))
	if err != nil {
		return s, err
	}
	for _, config := range configs {
		data, err := readFile(config)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // removed since
		}
		if err != nil {
			return s, err
		}
		state, keys, is := parsePlugin(data)
		if !is {
			continue
		}
		s.Keys = keys
		for _, file := range []string{filepath.Join(state, sshfsState), filepath.Join(filepath.Dir(config), "rootfs/mnt/state", sshfsState)} {
			if _, err := os.Stat(file); err == nil {
				s.File = file
				break
			}
		}
		break
	}
	if _, err := os.Stat(s.File); errors.Is(err, fs.ErrNotExist) {
		return s, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "%s: no such file", s.File),
			"name the file: below what was state.source, it is called "+sshfsState)
	}
	return s, nil
}

// parsePlugin reads what Docker knows of a managed plugin: whether it is vieux/sshfs or a
// fork of it, and which directories it was given.
func parsePlugin(data []byte) (state, keys string, is bool) {
	var p struct {
		PluginObj struct {
			Config struct {
				Interface struct{ Socket string }
			}
			Settings struct {
				Mounts []struct{ Name, Source, Destination string }
			}
		} `json:"plugin"`
	}
	if err := json.Unmarshal(data, &p); err != nil || p.PluginObj.Config.Interface.Socket != "sshfs.sock" {
		return "", "", false
	}
	for _, m := range p.PluginObj.Settings.Mounts {
		switch {
		case !filepath.IsAbs(m.Source):
		case m.Destination == "/mnt/state":
			state = m.Source
		case m.Destination == sshfsHome:
			keys = m.Source
		}
	}
	return state, keys, true
}

// Volumes returns the volumes of the state, sorted by name.
func (s Sshfs) Volumes() ([]Volume, error) {
	data, err := readFile(s.File)
	if err != nil {
		return nil, err
	}
	state, err := parseSshfs(data)
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s: not a state file of vieux/sshfs: %w", s.File, err)
	}
	all := make([]Volume, 0, len(state))
	for _, name := range slices.Sorted(maps.Keys(state)) {
		v := Volume{Name: name, Path: state[name].Sshcmd}
		v.Options, v.Err = s.options(state[name])
		all = append(all, v)
	}
	return all, nil
}

type sshfsVolume struct {
	Password, Sshcmd, Port string
	Options                []string
}

// parseSshfs reads {NAME: {Password, Sshcmd, Port, Options, Mountpoint}}. Its errors show
// nothing of the values, as one of them is a password.
func parseSshfs(data []byte) (map[string]sshfsVolume, error) {
	var state map[string]*sshfsVolume
	if err := json.Unmarshal(data, &state); err != nil {
		if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "a value of another kind at byte %d", te.Offset)
		}
		return nil, err
	}
	if state == nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "it has no object")
	}
	all := make(map[string]sshfsVolume, len(state))
	for name, v := range state {
		if v == nil || v.Sshcmd == "" {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "volume %q: it has no %q", name, "Sshcmd")
		}
		all[name] = *v
	}
	return all, nil
}

// options are those of Remora's driver sshfs for a volume of vieux/sshfs.
func (s Sshfs) options(v sshfsVolume) (map[string]string, error) {
	opts := map[string]string{"sshcmd": v.Sshcmd}
	set := func(key, value string) {
		if value != "" {
			opts[key] = value
		}
	}
	set("password", v.Password)
	set("port", v.Port)
	for _, o := range v.Options {
		key, value, _ := strings.Cut(o, "=")
		switch {
		case strings.EqualFold(key, "IdentityFile"):
			key, value = "identity_file", s.key(value)
		case strings.EqualFold(key, "StrictHostKeyChecking"):
			value = strings.ToLower(value)
		}
		if _, twice := opts[key]; twice {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "option %q is there twice", key)
		}
		opts[key] = value
	}
	if opts["password"] == "" && opts["identity_file"] == "" {
		set("identity_file", s.onlyKey())
	}
	return opts, nil
}

// key is where a key of the plugin is on the host.
func (s Sshfs) key(file string) string {
	if rest, is := strings.CutPrefix(path.Clean(file), sshfsHome+"/"); is && s.Keys != "" {
		return filepath.Join(s.Keys, rest)
	}
	return file
}

// onlyKey is the key that ssh found by itself among those that the plugin was given, if it
// is clear which one that was.
func (s Sshfs) onlyKey() string {
	if s.Keys == "" {
		return ""
	}
	var there []string
	for _, name := range []string{"id_rsa", "id_ecdsa", "id_ed25519", "id_dsa"} {
		if _, err := os.Stat(filepath.Join(s.Keys, name)); err == nil {
			there = append(there, filepath.Join(s.Keys, name))
		}
	}
	if len(there) != 1 {
		return ""
	}
	return there[0]
}

// Servers returns what ssh-keyscan(1) is to be asked for: the hosts of the volumes, each with
// its port, once.
func Servers(all []Volume) [][2]string {
	var servers [][2]string
	for _, v := range all {
		_, host, hasUser := strings.Cut(v.Options["sshcmd"], "@")
		if !hasUser {
			host = v.Options["sshcmd"]
		}
		if rest, is := strings.CutPrefix(host, "["); is {
			host, _, _ = strings.Cut(rest, "]")
		} else {
			host, _, _ = strings.Cut(host, ":")
		}
		if s := [2]string{host, cmp.Or(v.Options["port"], "22")}; v.Err == nil && !slices.Contains(servers, s) {
			servers = append(servers, s)
		}
	}
	return servers
}
