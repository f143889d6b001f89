package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

const netavarkConf = `[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
no_pivot_root = true
[network]
netavark_plugin_dirs = ["/run/netavark"]
[containers]
pids_limit = 0
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
`

// pods is a host whose engine is a Podman that has plugins of netavark: that of a later Debian, in a tree of its own.
type pods struct {
	*lab.Host
	t    *testing.T
	tree string
}

func newPods(t *testing.T, l *lab.Lab, h *lab.Host) *pods {
	t.Helper()
	tree, err := testenv.NetavarkTree()
	noErr(t, err)
	p := &pods{h, t, tree}
	h.Write("/etc/containers/containers.conf", netavarkConf)
	h.Write("/etc/containers/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	tmp, err := filepath.EvalSymlinks(filepath.Dir(l.Image)) // and the binary
	noErr(t, err)
	h.Must("sh", "-c", `mount --bind "$1" "$1"; for d in /proc /sys /dev /run /etc/containers /var/lib/docker "$2"; do mkdir -p "$1$d"; mount --rbind "$d" "$1$d"; done; mkdir -p "$1/var/tmp"`, "sh", tree, tmp)
	p.must("import", "-q", l.Image, lab.ImageName)
	return p
}

func (p *pods) args(args []string) []string {
	return append([]string{
		"-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "PODMAN_IGNORE_CGROUPSV1_WARNING=1", "chroot", p.tree,
		"podman", "--root=/var/lib/docker/podman", "--runroot=/run/podman", "--storage-driver=vfs",
	}, args...)
}

func (p *pods) run(args ...string) (string, error) { return p.Run("env", p.args(args)...) }

func (p *pods) must(args ...string) string {
	p.t.Helper()
	return p.Must("env", p.args(args)...)
}

func (p *pods) fails(args ...string) string {
	p.t.Helper()
	return p.Fails("env", p.args(args)...)
}

// TestNetavark has containers of Docker and Podman talk to each other across hosts, by name.
func TestNetavark(t *testing.T) {
	l := newLab(t, append([]testenv.Need{testenv.Dockerd, testenv.DockerCLI, testenv.Nftables, testenv.Netavark}, engine...)...)
	wires := l.Switch(t)
	nyc, london := l.Host(t, "nyc-host"), l.Host(t, "london")
	address := wires.Wire(nyc)
	wires.Wire(london)
	for _, h := range []*lab.Host{nyc, london} {
		h.Write("/etc/remora/password", networkPassword+"\n")
	}
	nyc.Remora("")
	nyc.DockerdWithNetworks()
	london.Remora("")
	nyc.MustCli("network", "launch", "--password-file", "/etc/remora/password")
	london.MustCli("network", "launch", "--password-file", "/etc/remora/password", address)
	pod := newPods(t, l, london)

	want(t, pod.fails("network", "create", "-d", "remora", "early"), "remora")
	is(t, "the plugin", london.MustCli("network", "podman", "install", "--dir", "/run/netavark"), "/run/netavark/remora")
	want(t, london.Must("/run/netavark/remora", "info"), `"api_version":"1.0.0"`)
	if !within(20*time.Second, func() bool {
		out, _ := london.Cli("network", "status")
		return strings.Contains(out, "2 (1 self, 1 reachable)") && has(nyc, "remora")
	}) {
		t.Fatalf("the network is not whole:\n%s", london.MustCli("network", "status"))
	}

	// A network that there is gets its subnet from the cluster; one that is new is made in all of it.
	pod.must("network", "create", "-d", "remora", "remora")
	pod.must("network", "create", "-d", "remora", "--subnet", "10.60.0.0/16", "blue")
	want(t, pod.must("network", "inspect", "remora"), `"subnet": "10.32.0.0/16"`, `"driver": "remora"`)
	if !within(10*time.Second, func() bool { return has(nyc, "blue") }) {
		t.Errorf("docker does not know what podman made: %s", networks(nyc))
	}

	nyc.MustDocker("run", "-d", "--name", "nyc", "--net=remora", lab.ImageName, "nc", "-ll", "-p", "4242", "-e", "echo", "Hello from NYC")
	pod.must("run", "-d", "--name", "city", "--network", "remora", "--network-alias", "capital", lab.ImageName, "nc", "-ll", "-p", "4242", "-e", "echo", "Hello from London")
	t.Run("podman reaches docker", func(t *testing.T) {
		for _, name := range []string{"nyc", "nyc.remora.local"} {
			out, last := "", error(nil)
			if !within(15*time.Second, func() bool {
				out, last = pod.run("run", "--rm", "--network=remora", lab.ImageName, "nc", "-w", "5", name, "4242")
				return last == nil && strings.Contains(out, "Hello from NYC")
			}) {
				t.Errorf("%s answers %q: %v\n%s", name, out, last, london.MustCli("network", "status"))
			}
		}
	})
	t.Run("docker reaches podman", func(t *testing.T) {
		for _, name := range []string{"city", "capital", "capital.remora.local"} {
			out, last := "", error(nil)
			if !within(15*time.Second, func() bool {
				args := append([]string{"run", "--rm", "--net=remora"}, dnsArgs(nyc)...)
				out, last = nyc.Docker(append(args, lab.ImageName, "sh", "-c", "nc -w 5 "+name+" 4242 </dev/null")...)
				return last == nil && strings.Contains(out, "Hello from London")
			}) {
				t.Errorf("%s answers %q: %v", name, out, last)
			}
		}
	})
	t.Run("what a person chooses", func(t *testing.T) {
		subnet := "10.60."
		at := pod.must("run", "--rm", "--network", "blue", lab.ImageName, "ip", "-4", "addr", "show", "eth0")
		want(t, at, subnet)
		out := pod.must("run", "--rm", "--network", "blue:ip=10.60.77.7,mac=02:11:22:33:44:55,interface_name=net9", lab.ImageName, "ip", "addr", "show", "net9")
		want(t, out, "10.60.77.7/16", "02:11:22:33:44:55")
		want(t, pod.fails("run", "--rm", "--network", "blue", "--ip", "10.99.1.1", lab.ImageName, "true"), `address 10.99.1.1: not in a subnet of network "blue"`)
		pod.must("run", "-d", "--name", "holds", "--network", "blue:ip=10.60.77.7", lab.ImageName, "sleep", "1000")
		want(t, pod.fails("run", "--rm", "--network", "blue:ip=10.60.77.7", lab.ImageName, "true"), "10.60.77.7")
		// Two networks: each has its own interface.
		pod.must("network", "connect", "blue", "city")
		inside := func() string {
			return london.Must("nsenter", "--target", pod.must("inspect", "-f", "{{.State.Pid}}", "city"), "--net", "ip", "-4", "addr")
		}
		want(t, inside(), "10.32.", "10.60.")
		pod.must("network", "disconnect", "blue", "city")
		if out := inside(); strings.Contains(out, "10.60.") {
			t.Errorf("it is still connected: %s", out)
		}
	})
	t.Run("wrong use", func(t *testing.T) {
		want(t, pod.fails("network", "create", "-d", "remora", "-o", "colour=blue", "bad"), `unknown option "colour"`)
		want(t, pod.fails("network", "create", "-d", "remora", "--subnet", "10.61.0.0/16", "--gateway", "10.61.0.9", "bad"), "leave out --gateway")
		want(t, pod.fails("network", "create", "-d", "remora", "--subnet", "10.99.0.0/24", "bad"), "this host has a route")
		is(t, "networks called bad", strings.Count(london.MustCli("network", "status", "networks"), "bad"), 0)
		pod.must("rm", "-f", "-t", "0", "city")
		pod.must("network", "rm", "remora")
		want(t, pod.fails("network", "create", "-d", "remora", "--subnet", "10.62.0.0/16", "remora"), "its subnet is 10.32.0.0/16")
	})
}
