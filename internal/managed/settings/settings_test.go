package settings

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// everything has each field that a config.json may have, in the lower case in which authors write.
const everything = `{
	"description": "d", "documentation": "https://example.org", "dockerVersion": "17.06", "unknown": {"a": [1]},
	"interface": {"types": ["docker.volumedriver/1.0", "docker.authz/2.0", "plain", "a.b.c/d/e"], "socket": "s.sock", "protocolScheme": "moby.plugins.http/v1"},
	"entrypoint": ["/bin/p", "-v"], "workdir": "/w", "user": {"uid": 7, "gid": 8},
	"network": {"type": "host"},
	"mounts": [
		{"name": "m", "description": "dm", "settable": ["source"], "source": "/src", "destination": "/dst", "type": "bind", "options": ["rbind"]},
		{"name": "null", "settable": ["source"], "source": null, "destination": "/n", "type": "bind"},
		{"name": "fixed", "source": "/f", "destination": "/f", "type": "bind"}],
	"propagatedMount": "/p", "ipchost": true, "pidhost": true,
	"env": [
		{"name": "E", "description": "de", "settable": ["value"], "value": "1"},
		{"name": "UNSET", "settable": ["value"], "value": null},
		{"name": "FIXED", "value": "f"},
		{"name": "ODD", "settable": ["value", "other"], "value": "o"},
		{"name": "WRONG", "settable": ["source"], "value": "w"}],
	"args": {"name": "a", "description": "da", "settable": ["value"], "value": ["x", "y"]},
	"linux": {"capabilities": ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"], "allowAllDevices": true, "devices": [
		{"name": "dev", "description": "dd", "settable": ["path"], "path": "/dev/null"},
		{"name": "nodev", "settable": ["path"], "path": null}]},
	"rootfs": {"type": "layers", "diff_ids": ["sha256:00"]}
}`

func parsed(t testing.TB, raw string) plugin.Config {
	t.Helper()
	c, err := Parse([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseEverything(t *testing.T) {
	want := plugin.Config{
		Description: "d", Documentation: "https://example.org",
		Interface: plugin.Interface{Socket: "s.sock", ProtocolScheme: "moby.plugins.http/v1", Types: []plugin.CapabilityID{
			{Prefix: "docker", Capability: "volumedriver", Version: "1.0"},
			{Prefix: "docker", Capability: "authz", Version: "2.0"},
			{Capability: "plain"},
			{Prefix: "a.b", Capability: "c", Version: "d/e"},
		}},
		Entrypoint: []string{"/bin/p", "-v"}, WorkDir: "/w", User: plugin.User{UID: 7, GID: 8},
		Network: plugin.NetworkConfig{Type: "host"},
		Mounts: []plugin.Mount{
			{Name: "m", Description: "dm", Settable: []string{"source"}, Source: new("/src"), Destination: "/dst", Type: "bind", Options: []string{"rbind"}},
			{Name: "null", Settable: []string{"source"}, Destination: "/n", Type: "bind"},
			{Name: "fixed", Source: new("/f"), Destination: "/f", Type: "bind"},
		},
		PropagatedMount: "/p", IpcHost: true, PidHost: true,
		Env: []plugin.Env{
			{Name: "E", Description: "de", Settable: []string{"value"}, Value: new("1")},
			{Name: "UNSET", Settable: []string{"value"}},
			{Name: "FIXED", Value: new("f")},
			{Name: "ODD", Settable: []string{"value", "other"}, Value: new("o")},
			{Name: "WRONG", Settable: []string{"source"}, Value: new("w")},
		},
		Args: plugin.Args{Name: "a", Description: "da", Settable: []string{"value"}, Value: []string{"x", "y"}},
		Linux: plugin.LinuxConfig{Capabilities: []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}, AllowAllDevices: true, Devices: []plugin.Device{
			{Name: "dev", Description: "dd", Settable: []string{"path"}, Path: new("/dev/null")},
			{Name: "nodev", Settable: []string{"path"}},
		}},
		Rootfs: &plugin.RootFS{Type: "layers", DiffIds: []string{"sha256:00"}},
	}
	if diff := cmp.Diff(want, parsed(t, everything)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, parsed(t, strings.Replace(everything, `"entrypoint"`, `"ENTRYPOINT"`, 1))); diff != "" {
		t.Error(diff)
	}
}

func TestParseTolerates(t *testing.T) {
	for _, raw := range []string{`{}`, `null`, `{"entrypoint":["/x"]}`, `{"interface":null,"env":null}`} {
		parsed(t, raw)
	}
}

func TestParseRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		``:                             "failed to parse config: unexpected end of JSON input",
		`{} {}`:                        "failed to parse config: invalid character '{' after top-level value",
		`[]`:                           "failed to parse config: json: cannot unmarshal array into Go value of type plugin.Config",
		`{"entrypoint":"/x"}`:          "failed to parse config: json: cannot unmarshal string into Go struct field Config.Entrypoint of type []string",
		`{"user":{"uid":-1}}`:          "failed to parse config: json: cannot unmarshal number -1 into Go struct field User.User.UID of type uint32",
		strings.Repeat(" ", MaxSize+1): "failed to parse config: it is larger than 256 KiB",
	} {
		_, err := Parse([]byte(raw))
		if err == nil || err.Error() != want || !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%.30q: %v, want %s", raw, err, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	c := parsed(t, everything)
	s := Defaults(c)
	want := plugin.Settings{
		Mounts: c.Mounts, Devices: c.Linux.Devices, Args: []string{"x", "y"},
		Env: []string{"E=1", "FIXED=f", "ODD=o", "WRONG=w"}, // what has no value is not there
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	*s.Mounts[0].Source, *s.Devices[0].Path, s.Args[0] = "changed", "changed", "changed"
	if diff := cmp.Diff(parsed(t, everything), c); diff != "" {
		t.Error("the config shares memory with its settings", diff)
	}
	raw, err := json.Marshal(Defaults(plugin.Config{}))
	if err != nil || string(raw) != `{"Args":[],"Devices":[],"Env":[],"Mounts":[]}` {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestPrivileges(t *testing.T) {
	want := plugin.Privileges{
		{Name: "network", Description: "permissions to access a network", Value: []string{"host"}},
		{Name: "host ipc namespace", Description: "allow access to host ipc namespace", Value: []string{"true"}},
		{Name: "host pid namespace", Description: "allow access to host pid namespace", Value: []string{"true"}},
		{Name: "mount", Description: "host path to mount", Value: []string{"/src"}},
		{Name: "mount", Description: "host path to mount", Value: []string{"/f"}},
		{Name: "device", Description: "host device to access", Value: []string{"/dev/null"}},
		{Name: "allow-all-devices", Description: "allow 'rwm' access to all devices", Value: []string{"true"}},
		{Name: "capabilities", Description: "list of additional capabilities required", Value: []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}},
	}
	if diff := cmp.Diff(want, Privileges(parsed(t, everything))); diff != "" {
		t.Error(diff)
	}
	for network, asks := range map[string]int{"": 0, "null": 0, "bridge": 0, "none": 1, "host": 1, "other": 1} {
		if got := Privileges(plugin.Config{Network: plugin.NetworkConfig{Type: network}}); len(got) != asks {
			t.Errorf("network %q: %v", network, got)
		}
	}
}

func TestGranted(t *testing.T) {
	// Each is alone, so that no order hides one: the engine did not look at the first.
	required := Privileges(parsed(t, everything))
	reversed := plugin.Privileges{}
	for _, p := range required {
		reversed = append(plugin.Privileges{{Name: p.Name, Value: p.Value}}, reversed...)
	}
	if err := errors.Join(Granted(required, required), Granted(required, reversed), Granted(nil, plugin.Privileges{})); err != nil {
		t.Error(err)
	}
	refused := func(what string, granted plugin.Privileges) {
		t.Helper()
		if err := Granted(required, granted); err == nil || err.Error() != "incorrect privileges" || !errors.Is(err, errdefs.ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("nothing", nil)
	refused("one more", append(append(plugin.Privileges{}, required...), plugin.Privilege{Name: "x"}))
	for i := range required {
		other := append(plugin.Privileges{}, required...)
		other[i].Value = append([]string{"other"}, other[i].Value[1:]...)
		refused("another value of "+required[i].Name, other)
		other = append(plugin.Privileges{}, required...)
		other[i].Name += "x"
		refused("another name than "+required[i].Name, other)
		refused("without "+required[i].Name, append(append(plugin.Privileges{}, required[:i]...), required[i+1:]...))
		other = append(plugin.Privileges{}, required...)
		other[i] = required[(i+1)%len(required)]
		refused("one twice and not "+required[i].Name, other)
	}
	if required[0].Name != "network" {
		t.Error("what was given was sorted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte(`{"interface":{"types":["a/b","",".","/","..a/./"]}}`))
	f.Add([]byte(`{"rootfs":{},"Rootfs":null,"env":[{"value":null}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatalf("it cannot be written: %v", err)
		}
		if len(again) > MaxSize {
			return
		}
		if diff := cmp.Diff(c, parsed(t, string(again))); diff != "" {
			t.Fatal(diff)
		}
		if err := Granted(Privileges(c), Privileges(c)); err != nil {
			t.Fatal(err)
		}
	})
}
