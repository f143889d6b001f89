package sandbox

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// container is a process in a network namespace of its own.
func container(t *testing.T) (path string, inside func(args ...string) string) {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Netns)
	cmd := exec.Command("unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec cat")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	_, err = out.Read(make([]byte, 8))
	must(t, err)
	pid := strconv.Itoa(cmd.Process.Pid)
	return "/proc/" + pid + "/ns/net", func(args ...string) string {
		t.Helper()
		return command(t, "nsenter", append([]string{"--target", pid, "--net", "--"}, args...)...)
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// pair makes a pair of interfaces, which goes with the test.
func pair(t *testing.T, name string) {
	t.Helper()
	command(t, "ip", "link", "add", name, "type", "veth", "peer", "name", name+"c")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
}

func TestAttach(t *testing.T) {
	path, inside := container(t)
	pair(t, "rmtsb1")
	mac := net.HardwareAddr{2, 0x72, 10, 1, 0, 2}
	i := Interface{
		Link: "rmtsb1c", Name: "eth0", MAC: mac,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/16"), netip.MustParsePrefix("fd00:1::2/64")},
		Routes: []network.Route{
			{Destination: netip.MustParsePrefix("224.0.0.0/4")},
			{Destination: netip.MustParsePrefix("fd00:1:0:0:8000::/65"), NextHop: netip.MustParseAddr("fe80::1")},
		},
	}
	must(t, Attach(path, i))
	got := inside("ip", "addr", "show", "eth0") + inside("ip", "route") + inside("ip", "-6", "route")
	for _, want := range []string{mac.String(), "10.1.0.2/16", "fd00:1::2/64", "224.0.0.0/4 dev eth0", "via fe80::1"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	pair(t, "rmtsb2")
	i.Link = "rmtsb2c"
	if err := Attach(path, i); !errors.Is(err, errdefs.ErrExists) || !strings.Contains(err.Error(), `"eth0"`) {
		t.Errorf("a name that is taken: %v", err)
	}
	command(t, "ip", "link", "show", "rmtsb2c") // it is where it was
}

func TestAttachNowhere(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns)
	if err := Attach(filepath.Join(t.TempDir(), "none"), Interface{Link: "lo", Name: "eth0"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no namespace: %v", err)
	}
	if err := Attach(t.TempDir(), Interface{Link: "lo", Name: "eth0"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a directory: %v", err)
	}
	path, _ := container(t)
	if err := Attach(path, Interface{Link: "rmtsb9", Name: "eth0"}); err == nil || !strings.Contains(err.Error(), `"rmtsb9"`) {
		t.Errorf("no interface: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDetach: an interface goes with its other end; where there is none, or no namespace, there is nothing to do.
func TestDetach(t *testing.T) {
	path, inside := container(t)
	pair(t, "rmdt")
	must(t, Attach(path, Interface{Link: "rmdtc", Name: "eth7"}))
	for range 2 {
		must(t, Detach(path, "eth7"))
	}
	if out := inside("ip", "-o", "link"); strings.Contains(out, "eth7") {
		t.Errorf("it is still there:\n%s", out)
	}
	if err := exec.Command("ip", "link", "show", "rmdt").Run(); err == nil {
		t.Error("its other end is still there")
	}
	must(t, Detach(filepath.Join(t.TempDir(), "none"), "eth7"))
	must(t, Detach("/proc/self/status", "eth7"))
}
