package launch

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	noErr(t, os.WriteFile(dir+"/file", nil, 0o600))
	image := "registry.example/vendor/driver:v1"
	for name, c := range map[string]struct {
		keys  Keys
		kind  Kind
		wants []string // parts of the error; none where it is right
	}{
		"external":        {Keys{Endpoint: "unix://" + dir + "/csi.sock"}, External, nil},
		"a command":       {Keys{Command: []string{"/bin/driver", "--endpoint=${CSI_ENDPOINT}"}, Env: []string{"A=b"}}, Command, nil},
		"an image":        {Keys{Image: image, Args: []string{"$${HOME}", "${NODE}", "$x", "{}"}, Caps: []string{"sys_admin", "CAP_MKNOD", "ALL"}}, Image, nil},
		"other program":   {Keys{Image: image, Command: []string{"driver"}}, Image, nil},
		"nothing":         {Keys{}, External, []string{"none of the keys endpoint, command and image"}},
		"both":            {Keys{Endpoint: "/x", Image: image}, Image, []string{`key "endpoint"`, "leave the key out"}},
		"args of nothing": {Keys{Endpoint: "/x", Args: []string{"x"}}, External, []string{`key "args"`, "does not start a driver that has an endpoint"}},
		"a file":          {Keys{Endpoint: dir + "/file"}, External, []string{`key "endpoint"`, "is not a socket"}},
		"relative":        {Keys{Endpoint: "csi.sock"}, External, []string{`key "endpoint"`, "not an absolute path"}},
		"tcp":             {Keys{Endpoint: "tcp://127.0.0.1:10000"}, External, []string{"over unix sockets alone"}},
		"no path":         {Keys{Command: []string{"driver"}}, Command, []string{`key "command": "driver" is not the absolute path`}},
		"caps of command": {Keys{Command: []string{"/d"}, Caps: []string{"SYS_ADMIN"}}, Command, []string{`key "caps"`, "only an image has them"}},
		"no image":        {Keys{Image: "Registry/UPPER"}, Image, []string{`key "image"`}},
		"placeholder":     {Keys{Image: image, Args: []string{"${NODEID}"}}, Image, []string{`key "args"`, `unknown placeholder "NODEID"`, "NODE_ID"}},
		"no variable":     {Keys{Image: image, Env: []string{"A secret"}}, Image, []string{`key "env"`, "is not NAME=VALUE"}},
		"cap":             {Keys{Image: image, Caps: []string{"SYS_ADMINN"}}, Image, []string{`key "caps": unknown capability "SYS_ADMINN"`, "SYS_ADMIN,"}},
		"bind":            {Keys{Image: image, Binds: []string{"/a:b"}}, Image, []string{`key "binds": "/a:b" is not /PATH`}},
		"binds":           {Keys{Image: image, Binds: []string{"/a", "/a:/b", "/a:ro", "/a:/b:ro", "/a:/b:rw"}}, Image, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if kind := c.keys.Kind(); kind != c.kind {
				t.Errorf("its kind is %s", kind)
			}
			err := c.keys.Check()
			if c.wants == nil {
				noErr(t, err)
				return
			}
			wants(t, err, c.wants...)
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("its class is %v", errdefs.Class(err))
			}
		})
	}
}

func TestSubstitute(t *testing.T) {
	values := map[string]string{"CSI_ENDPOINT": "unix:///csi/csi.sock", "NODE_ID": "n"}
	for in, want := range map[string]string{
		"--endpoint=${CSI_ENDPOINT}": "--endpoint=unix:///csi/csi.sock", "${NODE_ID}${NODE_ID}": "nn", "$${NODE_ID}": "${NODE_ID}", "$NODE_ID": "$NODE_ID", "${": "${",
	} {
		if got, err := substitute(in, values); err != nil || got != want {
			t.Errorf("%q is %q, %v", in, got, err)
		}
	}
}

func TestSecretRef(t *testing.T) {
	for value, want := range map[string]string{"file:/a/b": "/a/b", "env:TOKEN": "env:TOKEN", "file:///a": "", "file:a": "", "env:": "", "x": "", "": "", "environment:x": ""} {
		if got, ok := secretRef(value); got != want || ok != (want != "") {
			t.Errorf("%q is read from %q, %t", value, got, ok)
		}
	}
}

func TestLastOf(t *testing.T) {
	got := lastOf([]string{"A=1", "B=1", "AB=1", "A=2", "C=", "A=3"})
	if diff := cmp.Diff([]string{"B=1", "AB=1", "C=", "A=3"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestCapabilities: what is usual a daemon gives as far as it has it; what is asked for by name is never left out.
func TestCapabilities(t *testing.T) {
	admin := uint64(1) << slices.Index(known, "SYS_ADMIN")
	for _, c := range []struct {
		asked []string
		have  uint64
		want  []string
	}{
		{nil, admin, []string{"CAP_SYS_ADMIN"}},
		{nil, 0, nil},
		{[]string{"sys_admin", "CAP_SYS_RESOURCE"}, admin, []string{"CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"}},
		{[]string{"all"}, admin | 1, []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}},
	} {
		got, err := capabilities(c.asked, c.have)
		noErr(t, err)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v of %b: %s", c.asked, c.have, diff)
		}
	}
	if have := permitted("Name:\tx\nCapPrm:\t0000000000200001\nCapEff:\t0\n"); have != admin|1 {
		t.Errorf("it has %b", have)
	}
}

// TestExternal: a driver that others start may come after the pool.
func TestExternal(t *testing.T) {
	l := newLab(t)
	socket := l.dir + "/csi.sock"
	p := l.startExternal(t, Keys{Endpoint: "unix://" + socket})
	if p.Endpoint() != socket || p.Controller() != socket {
		t.Errorf("it is at %s and %s", p.Endpoint(), p.Controller())
	}
	if s := p.State(); s.Status != Elsewhere || !strings.Contains(s.Error, socket+": there is no socket") {
		t.Errorf("state is %+v", s)
	}
	ln, err := net.Listen("unix", socket)
	noErr(t, err)
	defer ln.Close()
	l.ready(t, p)
	if s := p.State(); s.Error != "" {
		t.Errorf("state is %+v", s)
	}
	_, err = p.Logs(t.Context(), 1)
	wants(t, err, "is not started by the daemon")
	noErr(t, p.Stop(t.Context()))
}

func (l *lab) startExternal(t *testing.T, keys Keys) *Process {
	t.Helper()
	p, err := Start(t.Context(), l.config(keys))
	noErr(t, err)
	t.Cleanup(func() { noErr(t, p.Close()) })
	return p
}
