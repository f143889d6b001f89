package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/internal/enginetest"
	"github.com/remora-plugins/remora/sdk/internal/suitetest"
)

// TestMain lets the test run as the plugin.
func TestMain(m *testing.M) { enginetest.Main(m, main) }

// start runs nullnet on a host until the test ends, and waits for its socket.
func start(t *testing.T, h *enginetest.Host, state string) *enginetest.Plugin {
	t.Helper()
	p := h.RunPlugin(t, "-state", state)
	socket := filepath.Join(h.Run, "docker/plugins/nullnet.sock")
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) { // another process has no clock of ours
		if fi, err := os.Stat(socket); err == nil && fi.Mode().Type() == os.ModeSocket {
			return p
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("nullnet does not listen")
		}
	}
}

// TestEngine has a real engine create networks and run containers on them, and go on
// after the plugin, and then the engine, was restarted.
func TestEngine(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Dockerd, testenv.DockerCLI, testenv.Busybox)
	busybox, err := testenv.BusyboxPath()
	if err != nil {
		t.Fatal(err)
	}
	h := enginetest.NewHost(t)
	state := t.TempDir()
	p := start(t, h, state)
	e := h.Start(t)
	e.ImportBusybox(t, busybox)
	docker := func(args ...string) string {
		t.Helper()
		out, err := e.Docker(t.Context(), args...)
		if err != nil {
			t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return out
	}
	says := func(want string, args ...string) {
		t.Helper()
		if out := docker(args...); !strings.Contains(out, want) {
			t.Errorf("docker %s: %q, want %q", strings.Join(args, " "), out, want)
		}
	}
	refuses := func(want string, args ...string) {
		t.Helper()
		if out, err := e.Docker(t.Context(), args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("docker %s: %v: %q, want an error with %q", strings.Join(args, " "), err, out, want)
		}
	}
	create := func(args ...string) {
		t.Helper()
		docker(append([]string{"network", "create", "-d", "nullnet", "--ipam-driver", "nullnet"}, args...)...)
	}
	const address = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"

	create("quiet")
	create("--subnet", "10.77.0.0/24", "--ip-range", "10.77.0.128/25", "--gateway", "10.77.0.254", "--aux-address", "router=10.77.0.5", "--internal", "named")
	create("--ipv6", "--subnet", "10.78.0.0/24", "--subnet", "fd00:78::/64", "both")
	says("10.201.0.0/24 10.201.0.1", "network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}", "quiet")
	refuses("nullnet takes none", "network", "create", "-d", "nullnet", "--ipam-driver", "nullnet", "-o", "mtu=1400", "wrong")
	refuses("overlaps pool 10.77.0.0/24", "network", "create", "-d", "nullnet", "--ipam-driver", "nullnet", "--subnet", "10.77.0.0/16", "wrong")

	// A container on it has its loopback, and nothing else.
	if out := docker("run", "--rm", "--network", "quiet", enginetest.Image, "ls", "/sys/class/net"); out != "lo" {
		t.Errorf("interfaces %q, want lo alone", out)
	}
	docker("run", "-d", "--name", "one", "--network", "quiet", enginetest.Image, "sleep", "1000")
	docker("run", "-d", "--name", "two", "--network", "named", "--ip", "10.77.0.9", "-p", "8081:80", enginetest.Image, "sleep", "1000")
	says("10.201.0.2", "inspect", "-f", address, "one")
	says("10.77.0.9", "inspect", "-f", address, "two")
	refuses("address 10.77.0.9: in use", "run", "--rm", "--network", "named", "--ip", "10.77.0.9", enginetest.Image, "ls")
	docker("network", "connect", "named", "one")
	says("10.77.0.128", "inspect", "-f", address, "one")
	docker("network", "connect", "--ip", "10.78.0.9", "--ip6", "fd00:78::9", "both", "one")
	says("fd00:78::9", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}} {{end}}", "one")
	docker("network", "disconnect", "named", "one")

	// The plugin is killed below containers that run, and knows everything afterwards.
	_ = p.Stop(t, syscall.SIGKILL) // killed
	p = start(t, h, state)
	docker("network", "connect", "named", "one")
	says("10.77.0.128", "inspect", "-f", address, "one")
	docker("restart", "-t", "0", "two")
	says("10.77.0.9", "inspect", "-f", address, "two")
	docker("rm", "-f", "two")
	docker("run", "--rm", "--network", "named", "--ip", "10.77.0.9", enginetest.Image, "ls")

	// So does it when it is the engine that starts.
	e.Restart(t)
	docker("start", "one")
	says("10.77.0.128", "inspect", "-f", address, "one")
	docker("rm", "-f", "one")
	for _, n := range []string{"quiet", "named", "both"} {
		docker("network", "rm", n)
	}
	if err := p.Stop(t, syscall.SIGTERM); err != nil {
		t.Errorf("ended: %v", err)
	}
	for _, dir := range []string{"networks", "pools"} {
		left, err := filepath.Glob(filepath.Join(state, dir, "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s are left: %q, %v", dir, left, err)
		}
	}
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{{"-x"}, {"-socket", "here.sock", "-state", t.TempDir()}, {"-state", "relative"}} {
		enginetest.RefusesArguments(t, args...)
	}
}

// TestCheck holds the whole plugin to what any plugin is held to.
func TestCheck(t *testing.T) {
	socket := suitetest.Socket(t)
	enginetest.RunPlugin(t, "-state", t.TempDir(), "-socket", socket)
	enginetest.Conforms(t, socket)
}
