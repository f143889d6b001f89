package check_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/check"
)

// store is the model of a volume plugin. Each volume is a directory, and its mountpoint is
// there only while somebody has it mounted.
type store struct {
	model
	dir     string
	volumes map[string]*stored
	count   int
}

type stored struct {
	created string
	status  object
	mounts  map[string]int
	old     map[string]bool // IDs of before the last activation
	path    string          // of the mountpoint while it is mounted
	ever    bool
}

func (v *stored) total() (n int) {
	for _, m := range v.mounts {
		n += m
	}
	return n
}

func newStore(t *testing.T, b bug) *model {
	t.Helper()
	if strings.Contains(string(b), "mount(2)") {
		testenv.Require(t, testenv.Root)
	}
	s := &store{dir: t.TempDir(), volumes: map[string]*stored{}}
	s.bug, s.kinds = b, []string{"VolumeDriver"}
	s.call = func(method string, req object) (any, error) {
		if b != "forgets locks" {
			s.mu.Lock()
			defer s.mu.Unlock()
		}
		return s.do(strings.TrimPrefix(method, "VolumeDriver."), req)
	}
	s.activate = func() {
		for _, v := range s.volumes {
			for id := range v.mounts {
				v.old[id] = s.bug != "counts for dead engines"
			}
		}
	}
	t.Cleanup(func() {
		entries, _ := os.ReadDir(filepath.Join(s.dir, "mnt"))
		for _, e := range entries {
			for syscall.Unmount(filepath.Join(s.dir, "mnt", e.Name()), syscall.MNT_DETACH) == nil {
			}
		}
	})
	return &s.model
}

// key is under which name a volume is kept.
func (s *store) key(name string) string {
	switch {
	case s.bug == "ignores case":
		return strings.ToLower(name)
	case s.bug == "names are short" && len(name) > 50:
		return name[:50]
	}
	return name
}

func (s *store) find(name string) (*stored, bool) {
	if v, ok := s.volumes[s.key(name)]; ok {
		return v, true
	}
	if s.bug == "finds by beginning" {
		for other, v := range s.volumes {
			if strings.HasPrefix(other, name) {
				return v, true
			}
		}
	}
	return nil, false
}

func (s *store) do(method string, req object) (any, error) {
	name := text(req, "Name")
	if s.bug == "knows no new fields" && req["Later"] != nil {
		return nil, refuse("unknown field")
	}
	switch method {
	case "List":
		return s.list(), nil
	case "Capabilities":
		if s.bug == "scope is swarm" {
			return object{"Capabilities": object{"Scope": "swarm"}}, nil
		}
		return object{"Capabilities": object{"Scope": "local"}}, nil
	case "Create", "Remove", "Mount", "Unmount", "Path", "Get":
		if name == "" && method == "Remove" && s.bug == "takes no name for all" {
			s.volumes = map[string]*stored{}
			return object{}, nil
		}
		if name == "" {
			return nil, refuse("no name")
		}
	default:
		return nil, nil
	}
	v, ok := s.find(name)
	if method == "Create" {
		return s.create(name, v, req)
	}
	if !ok {
		switch {
		case method == "Unmount", method == "Remove" && s.bug == "":
			return object{}, nil
		case s.bug == "finds everything" && method == "Get":
			return object{"Volume": object{"Name": name}}, nil
		case s.bug == "mounts anything" && method == "Mount":
			return object{"Mountpoint": s.dir}, nil
		case method == "Remove" && s.bug == "remove fails badly":
			return nil, refuse("exit status 1")
		}
		return nil, refuse("no such volume")
	}
	switch method {
	case "Get":
		return s.get(name, v), nil
	case "Path":
		if s.bug == "path is elsewhere" {
			return object{"Mountpoint": "/elsewhere"}, nil
		}
		return object{"Mountpoint": v.path}, nil
	case "Remove":
		return s.remove(name, v)
	case "Mount":
		return s.mount(name, text(req, "ID"), v)
	}
	return s.unmount(text(req, "ID"), v)
}

func (s *store) list() object {
	all := []object{}
	for name, v := range s.volumes {
		all = append(all, object{"Name": name, "Mountpoint": v.path})
		if s.bug == "lists twice" {
			all = append(all, object{"Name": name})
		}
	}
	if s.bug == "lists none" {
		all = nil
	}
	return object{"Volumes": all}
}

func (s *store) data(name string) string { return filepath.Join(s.dir, "data", s.key(name)) }

func (s *store) create(name string, v *stored, req object) (any, error) {
	opts, _ := req["Opts"].(object)
	switch {
	case s.bug == "wants options" && opts == nil:
		return nil, refuse("no options")
	case s.bug == "tells passwords" && opts["password"] != nil:
		return nil, refuse(fmt.Sprint("login with ", opts["password"]))
	case v != nil && s.bug == "creates once":
		return nil, refuse("volume exists")
	case v != nil && s.bug == "creates anew":
		_ = os.RemoveAll(s.data(name))
	case v != nil && s.bug == "forgets locks":
	case v != nil:
		return object{}, nil
	}
	s.count++
	v = &stored{created: time.Now().UTC().Format(time.RFC3339), mounts: map[string]int{}, old: map[string]bool{}, status: object{}}
	if s.bug == "shows passwords" {
		v.status = opts
	}
	if err := os.MkdirAll(s.data(name), 0o700); err != nil {
		return nil, refuse(err.Error())
	}
	if s.bug == "loses some" && s.count%3 == 0 {
		return object{}, nil
	}
	s.volumes[s.key(name)] = v
	return object{}, nil
}

func (s *store) get(name string, v *stored) object {
	o := object{"Name": name, "Mountpoint": v.path, "CreatedAt": v.created, "Status": v.status}
	switch {
	case s.bug == "time is local":
		o["CreatedAt"] = "yesterday"
	case s.bug == "get is elsewhere" && v.path != "":
		o["Mountpoint"] = "/elsewhere"
	}
	return object{"Volume": o}
}

func (s *store) remove(name string, v *stored) (any, error) {
	switch {
	case v.total() > 0 && s.bug != "removes what is mounted":
		return nil, refuse("volume is in use")
	case !v.ever && s.bug == "removes only what was mounted":
		return nil, refuse("not mounted")
	case s.bug == "removes too much":
		s.volumes = map[string]*stored{}
	}
	if s.bug != "keeps data" {
		_ = os.RemoveAll(s.data(name))
	}
	if s.bug != "keeps volumes" {
		delete(s.volumes, s.key(name))
	}
	return object{}, nil
}

func (s *store) mount(name, id string, v *stored) (any, error) {
	data, path := s.data(name), filepath.Join(s.dir, "mnt", s.key(name))
	v.ever = true
	switch {
	case s.bug == "no path":
		return object{"Mountpoint": ""}, nil
	case s.bug == "one directory for all":
		data = filepath.Join(s.dir, "data")
	case s.bug == "one container" && v.total() > 0:
		return nil, refuse("is mounted")
	case s.bug == "empty at each mount" && v.total() == 0:
		_ = os.RemoveAll(data)
		_ = os.Mkdir(data, 0o700)
	case s.bug == "refuses a second of an ID" && v.mounts[id] > 0:
		return nil, refuse("has it already")
	}
	first := v.total() == 0
	// An ID that comes again to a plugin that was activated anew is that of a container which
	// died with its engine.
	if again := v.old[id] && v.mounts[id] > 0; !again && s.bug != "counts IDs once" {
		v.mounts[id]++
	} else if !again {
		v.mounts[id] = 1
	}
	delete(v.old, id)
	if err := os.MkdirAll(filepath.Join(s.dir, "mnt"), 0o700); err != nil {
		return nil, refuse(err.Error())
	}
	real := strings.Contains(string(s.bug), "mount(2)")
	switch {
	case real && (first || s.bug == "mount(2) is stacked" || s.bug == "mount(2) is right" && !mounted(path)):
		_ = os.Mkdir(path, 0o700)
		if err := syscall.Mount(data, path, "", syscall.MS_BIND, ""); err != nil {
			return nil, refuse(err.Error())
		}
	case !real && (first || v.path == ""):
		_ = os.Remove(path)
		if err := os.Symlink(data, path); err != nil {
			return nil, refuse(err.Error())
		}
	}
	if v.path = path; s.bug == "path is not there" {
		v.path = filepath.Join(s.dir, "not", "there")
	}
	return object{"Mountpoint": v.path}, nil
}

func mounted(path string) bool {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	return strings.Contains(string(b), " "+path+" ")
}

func (s *store) unmount(id string, v *stored) (any, error) {
	switch {
	case s.bug == "one unmount for all":
		clear(v.mounts)
	case s.bug == "counts without IDs":
		for other := range v.mounts {
			id = other
		}
		v.mounts[id]--
	case s.bug == "counts below zero":
		v.mounts[id]--
	case s.bug == "never unmounts":
		return object{}, nil
	case v.mounts[id] > 0:
		v.mounts[id]--
	case s.bug == "stray unmounts are counted":
		v.mounts["stray"]--
	default:
		return object{}, nil
	}
	if v.total() <= 0 && v.path != "" {
		path := v.path
		v.path = ""
		if syscall.Unmount(path, syscall.MNT_DETACH) != nil {
			_ = os.Remove(path)
		}
	}
	return object{}, nil
}

func TestVolumes(t *testing.T) {
	t.Parallel()
	all := mutants{
		"lists none":                    {"volume/lifecycle", "volume/list-agrees", "volume/podman"},
		"keeps volumes":                 {"volume/lifecycle", "volume/remove-never-mounted", "volume/engine-run"},
		"no path":                       {"volume/lifecycle", "volume/mount-path"},
		"scope is swarm":                {"volume/capabilities"},
		"finds everything":              {"volume/get-absent", "volume/podman"},
		"finds by beginning":            {"volume/get-exact"},
		"ignores case":                  {"volume/names", "volume/get-exact"},
		"names are short":               {"volume/names"},
		"time is local":                 {"volume/get-fields"},
		"lists twice":                   {"volume/list-agrees", "volume/lifecycle"},
		"wants a body":                  {"volume/list-any-body"},
		"creates once":                  {"volume/create-twice", "volume/create-at-once"},
		"creates anew":                  {"volume/create-keeps-data"},
		"wants options":                 {"volume/create-without-options", "volume/engine-anonymous"},
		"loses some":                    {"volume/create-at-once", "volume/list-agrees"},
		"path is not there":             {"volume/mount-path"},
		"get is elsewhere":              {"volume/mount-agrees", "volume/engine-live-restore"},
		"path is elsewhere":             {"volume/mount-agrees"},
		"empty at each mount":           {"volume/mount-keeps-data", "volume/engine-copy-up", "volume/engine-restart"},
		"one container":                 {"volume/mount-for-two", "volume/mount-at-once", "volume/engine-two"},
		"one unmount for all":           {"volume/mount-for-two", "volume/mount-same-id", "volume/mount-at-once", "volume/engine-cp", "volume/engine-two"},
		"counts IDs once":               {"volume/mount-same-id", "volume/engine-cp"},
		"counts without IDs":            {"volume/unmount-again"},
		"counts below zero":             {"volume/unmount-again"},
		"stray unmounts are counted":    {"volume/unmount-again", "volume/unmount-stray"},
		"refuses a second of an ID":     {"volume/mount-same-id"},
		"counts for dead engines":       {"volume/engine-crash"},
		"mounts anything":               {"volume/mount-absent"},
		"one directory for all":         {"volume/volumes-apart"},
		"errors are 200":                {"volume/errors"},
		"removes only what was mounted": {"volume/remove-never-mounted"},
		"removes what is mounted":       {"volume/remove-mounted"},
		"remove fails badly":            {"volume/remove-twice"},
		"keeps data":                    {"volume/remove-destroys-data"},
		"removes too much":              {"volume/remove-one"},
		"takes no body for success":     {"volume/empty-body"},
		"takes no name for all":         {"volume/empty-body"},
		"reads anything":                {"volume/not-json"},
		"tells passwords":               {"volume/secrets"},
		"shows passwords":               {"volume/secrets"},
		"knows no new fields":           {"volume/unknown-fields"},
		"mount(2) is stacked":           {"volume/mount-not-stacked"},
		"mount(2) gets lost":            {"volume/engine-lost-mount"},
	}
	all.check(t, check.Volume, newStore, check.Options{}, "volume/engine-lost-mount")
}

// TestVolumesOfMount is the one case that only real mounts pass.
func TestVolumesOfMount(t *testing.T) {
	r, err := check.Run(t.Context(), serve(t, newStore(t, "mount(2) is right")), check.Options{Engine: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Left()) > 0 || r.Verdict != check.Conforms || r.Count(check.Skipped) > 0 || !slices.ContainsFunc(r.Results, func(r check.Result) bool { return r.ID == "volume/engine-lost-mount" }) {
		t.Errorf("%s, left %q, failed %+v", r.Summary(), r.Left(), r.Failed())
	}
}
