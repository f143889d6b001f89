package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/authz"
	"github.com/remora-plugins/remora/sdk/authz/authztest"
	"github.com/remora-plugins/remora/sdk/internal/enginetest"
	"github.com/remora-plugins/remora/sdk/internal/suitetest"
)

// TestMain lets the test run as the plugin.
func TestMain(m *testing.M) { enginetest.Main(m, main) }

func TestConformance(t *testing.T) {
	defer goleak.VerifyNone(t)
	authztest.Run(t, authztest.Config{
		New: func(*testing.T) authz.Authorizer { return readOnly([]string{"alice"}) },
		Allowed: []authztest.Example{
			{Method: "GET", Target: "/containers/json?all=1"}, {Method: "GET", Target: "/images/reg/x/json"}, {Method: "HEAD", Target: "/_ping"},
		},
		Denied: []authztest.Example{
			{Method: "POST", Target: "/containers/create", Body: `{"Image":"x","HostConfig":{"Privileged":true}}`},
			{User: "mallory", Method: "DELETE", Target: "/containers/x"},
			{Method: "GET", Target: "/containers/x/archive?path=/etc/shadow"},
			{Method: "GET", Target: "/containers/x/attach/ws"},
			{Method: "POST", Target: "/containers/x/exec", Body: `{"Cmd":["sh"]}`},
		},
	})
}

func TestOperators(t *testing.T) {
	for _, tt := range []struct {
		user, operators string
		want            bool
	}{
		{"alice", "alice", true}, {"alice", "bob,alice", true}, {"", "", false}, {"bob", "alice", false}, {"bob,alice", "bob,alice", false},
	} {
		r, err := authz.NewRequest("DELETE", "/containers/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.User = tt.user
		d, err := readOnly(strings.Split(tt.operators, ","))(t.Context(), r)
		if err != nil || d.Allowed() != tt.want {
			t.Errorf("%q with operators %q: %v, %v", tt.user, tt.operators, d.Allowed(), err)
		}
	}
}

func TestEngine(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Dockerd, testenv.DockerCLI)
	h := enginetest.NewHost(t)
	p := h.RunPlugin(t, "start", "-operators=alice")
	p.Says(t, "listening")
	e := h.Start(t, "--authorization-plugin=readonly")
	for _, args := range [][]string{{"ps"}, {"info"}, {"volume", "ls"}, {"network", "ls"}, {"image", "ls"}, {"version"}} {
		if out, err := e.Docker(t.Context(), args...); err != nil {
			t.Errorf("docker %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, args := range [][]string{{"volume", "create"}, {"network", "create", "x"}, {"run", "x"}, {"rm", "x"}, {"pull", "x"}, {"swarm", "init"}} {
		out, err := e.Docker(t.Context(), args...)
		if err == nil || !strings.Contains(out, "authorization denied by plugin readonly: only operators may ") {
			t.Errorf("docker %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}

	// It stops when told, and takes its socket away.
	socket := filepath.Join(h.Run, "docker/plugins/readonly.sock")
	if _, err := os.Stat(socket); err != nil {
		t.Error(err)
	}
	if err := p.Stop(t, syscall.SIGTERM); err != nil {
		t.Errorf("ended: %v", err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("socket is left behind: %v", err)
	}
}

// TestCheck holds the whole plugin to what any plugin is held to.
func TestCheck(t *testing.T) {
	socket := suitetest.Socket(t)
	enginetest.RunPlugin(t, "start", "-socket", socket)
	enginetest.Conforms(t, socket)
}
