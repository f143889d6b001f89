package wire_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/internal/enginetest"
)

// ownNetwork moves the test, and every process it starts, into a network namespace of
// its own, and returns a function that runs a command there from any goroutine.
func ownNetwork(t *testing.T) func(name string, args ...string) error {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	ns := fmt.Sprintf("--net=/proc/%d/task/%d/ns/net", os.Getpid(), syscall.Gettid())
	in := func(name string, args ...string) error {
		out, err := exec.Command("nsenter", append([]string{ns, "--", name}, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := in("ip", "link", "set", "lo", "up"); err != nil {
		t.Fatal(err)
	}
	return in
}

// engine starts a dockerd whose paths are the usual ones, as captures show them.
func engine(t *testing.T, h *enginetest.Host, args ...string) *enginetest.Engine {
	t.Helper()
	return h.Start(t, append([]string{"--exec-root=/var/run/docker", "--data-root=/run/docker-data"}, args...)...)
}

// docker runs commands one after the other; one that begins with "!" is to fail.
func docker(t *testing.T, e *enginetest.Engine, r *recording, commands ...string) {
	t.Helper()
	for _, command := range commands {
		command, fails := strings.CutPrefix(command, "!")
		r.note("docker " + command)
		out, err := e.Docker(t.Context(), strings.Fields(command)...)
		if (err != nil) != fails {
			t.Fatalf("docker %s: %v: %s", command, err, out)
		}
	}
}

// api sends a request to the engine's own API, which is to make something.
func api(t *testing.T, e *enginetest.Engine, r *recording, target string, body io.Reader) {
	t.Helper()
	r.note("POST " + target)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://docker"+target, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("POST %s: status %d: %s, %v", target, resp.StatusCode, answer, err)
	}
}

func busybox(t *testing.T) string {
	t.Helper()
	path, err := testenv.BusyboxPath()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// version returns the name of the directory in which an engine's captures lie.
func version(t *testing.T, name, full string) string {
	t.Helper()
	parts := strings.SplitN(strings.TrimSpace(full), ".", 3)
	if len(parts) < 3 {
		t.Fatalf("version %q of %s", full, name)
	}
	return name + "-" + parts[0] + "." + parts[1]
}

func dockerdDir(t *testing.T, e *enginetest.Engine) (dir, full string) {
	t.Helper()
	full, err := e.Docker(t.Context(), "version", "--format={{.Server.Version}}")
	if err != nil {
		t.Fatal(full, err)
	}
	return version(t, "dockerd", full), full
}

func TestEngineVolume(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns, testenv.Busybox, testenv.Dockerd, testenv.DockerCLI)
	h := enginetest.NewHost(t)
	ownNetwork(t)
	r := &recording{answer: volumes(filepath.Join(h.Run, "capture"), "/run/capture")}
	r.listen(t, filepath.Join(h.Run, "docker/plugins/capture.sock"))
	e := engine(t, h)
	e.ImportBusybox(t, busybox(t))
	run := "run --network=none -v v1:/data "
	docker(t, e, r,
		"volume create -d capture -o size=10 -o path=/a&b --label l1=x v1",
		"volume create -d capture v2",
		"!volume create -d capture refused",
		"volume ls",
		"volume inspect v1",
		run+"-d --name c1 "+enginetest.Image+" sleep 1000",
		"exec c1 sh -c echo>/data/file",
		"cp c1:/data/file -",
		"restart -t 0 c1",
		"stop -t 0 c1",
		"start c1",
		"rm -f c1",
		run+"--rm "+enginetest.Image+" cat /data/file",
		"run --rm --network=none -v /data --volume-driver=capture "+enginetest.Image+" ls /data",
		"volume rm v1",
		"volume rm v2",
		"!volume inspect v1",
	)
	dir, full := dockerdDir(t, e)
	r.check(t, filepath.Join(dir, "volume.txtar"), "A volume plugin under dockerd "+full+".")
}

// veth returns what makes the interface of an endpoint.
func veth(t *testing.T, in func(name string, args ...string) error) func(endpoint string) string {
	return func(endpoint string) string {
		name := "cap" + endpoint[:7]
		if err := in("ip", "link", "add", name, "type", "veth", "peer", "name", "peer"+endpoint[:7]); err != nil {
			t.Error(err)
		}
		return name
	}
}

func TestEngineNetwork(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns, testenv.Busybox, testenv.Dockerd, testenv.DockerCLI)
	h := enginetest.NewHost(t)
	in := ownNetwork(t)
	r := &recording{answer: networks(veth(t, in), false)}
	r.listen(t, filepath.Join(h.Run, "docker/plugins/capture.sock"))
	e := engine(t, h)
	e.ImportBusybox(t, busybox(t))
	docker(t, e, r,
		"network create -d capture --ipam-driver capture -o opt1=val1 --ipam-opt io1=iv1 --label lab=el n0",
		"run --rm --network n0 "+enginetest.Image+" ls /",
		"network create -d capture --ipam-driver capture --subnet 10.99.0.0/24 n1",
		"network create -d capture --ipam-driver capture --subnet 10.98.0.0/24 --gateway 10.98.0.254 --ip-range 10.98.0.128/25 --aux-address h1=10.98.0.5 --internal n2",
		"network create -d capture --ipv6 --subnet 10.97.0.0/24 --subnet fd00:97::/64 n3",
	)
	// Docker's own command refuses a MAC address with an engine of this age.
	api(t, e, r, "/v1.41/containers/create?name=c1", strings.NewReader(`{"Image":"`+enginetest.Image+`","Cmd":["sleep","1000"],"MacAddress":"02:42:11:22:33:44",`+
		`"ExposedPorts":{"80/tcp":{},"53/udp":{}},"HostConfig":{"NetworkMode":"n1","PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8081"}]}},`+
		`"NetworkingConfig":{"EndpointsConfig":{"n1":{"IPAMConfig":{"IPv4Address":"10.99.0.77"}}}}}`))
	docker(t, e, r,
		"start c1",
		"network connect --ip 10.98.0.200 --driver-opt dk=dv n2 c1",
		"network disconnect n2 c1",
		"network connect n3 c1",
		"restart -t 0 c1",
		"rm -f c1",
		"network rm n0", "network rm n1", "network rm n2", "network rm n3",
	)
	dir, full := dockerdDir(t, e)
	r.check(t, filepath.Join(dir, "network.txtar"), "A network and IPAM plugin under dockerd "+full+".")
}

func TestEngineReplay(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns, testenv.Busybox, testenv.Dockerd, testenv.DockerCLI)
	h := enginetest.NewHost(t)
	in := ownNetwork(t)
	r := &recording{answer: networks(veth(t, in), true)}
	r.listen(t, filepath.Join(h.Run, "docker/plugins/capture.sock"))
	e := engine(t, h)
	e.ImportBusybox(t, busybox(t))
	docker(t, e, r,
		"network create -d capture --ipam-driver capture --subnet 10.94.0.0/24 --aux-address h1=10.94.0.9 n1",
		"run --rm --network n1 --ip 10.94.0.20 "+enginetest.Image+" ls /",
	)
	r.note("restart of dockerd")
	e.Restart(t)
	docker(t, e, r, "network rm n1")
	dir, full := dockerdDir(t, e)
	r.check(t, filepath.Join(dir, "replay.txtar"), "A network and IPAM plugin that wants MAC addresses and replay under dockerd "+full+".")
}

func TestEngineAuthZ(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns, testenv.Busybox, testenv.Dockerd, testenv.DockerCLI)
	h := enginetest.NewHost(t)
	ownNetwork(t)
	r := &recording{answer: authorizer}
	r.listen(t, filepath.Join(h.Run, "docker/plugins/capture.sock"))
	e := engine(t, h, "--authorization-plugin=capture")
	docker(t, e, r, "volume create av1", "!volume create forbidden")
	api(t, e, r, "/v1.41/volumes/create", io.MultiReader(strings.NewReader(`{"Name":"chunky"}`))) // of no known length: chunked
	docker(t, e, r, "volume rm av1 chunky")
	dir, full := dockerdDir(t, e)
	r.check(t, filepath.Join(dir, "authz.txtar"), "An authorization plugin under dockerd "+full+".")
}

func TestEnginePodman(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns, testenv.Busybox, testenv.Podman)
	h := enginetest.NewHost(t)
	ownNetwork(t)
	r := &recording{answer: volumes(filepath.Join(h.Run, "capture"), "/run/capture")}
	r.listen(t, filepath.Join(h.Run, "docker/plugins/capture.sock"))
	const conf = `[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "runc"
[engine.volume_plugins]
capture = "/run/docker/plugins/capture.sock"
[containers]
pids_limit = 0
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
`
	if err := os.WriteFile(filepath.Join(h.Run, "containers.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	podman := func(stdin io.Reader, args ...string) (string, error) {
		c := h.Command(t.Context(), "podman", append([]string{"--root=/run/podman-root", "--runroot=/run/podman-run"}, args...)...)
		c.Env = append(os.Environ(), "CONTAINERS_CONF=/run/containers.conf", "PODMAN_IGNORE_CGROUPSV1_WARNING=1")
		c.Stdin = stdin
		out, err := c.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	t.Cleanup(func() { // its image store may be a mount
		c := h.Command(context.WithoutCancel(t.Context()), "podman", "--root=/run/podman-root", "--runroot=/run/podman-run", "system", "reset", "--force")
		c.Env = append(os.Environ(), "CONTAINERS_CONF=/run/containers.conf")
		if out, err := c.CombinedOutput(); err != nil {
			t.Logf("podman system reset: %v: %s", err, out)
		}
	})
	if out, err := podman(enginetest.BusyboxTar(t, busybox(t)), "import", "-", enginetest.Image); err != nil {
		t.Fatal(out, err)
	}
	for _, command := range []string{
		"volume create --driver capture --opt size=10 v1",
		"volume create --driver capture v2",
		"!volume create --driver capture refused",
		"volume ls",
		"volume inspect v1",
		"run --rm --network=none -v v1:/data " + enginetest.Image + " ls /data",
		"volume reload",
		"volume rm v1",
		"volume rm v2",
	} {
		command, fails := strings.CutPrefix(command, "!")
		r.note("podman " + command)
		if out, err := podman(nil, strings.Fields(command)...); (err != nil) != fails {
			t.Fatalf("podman %s: %v: %s", command, err, out)
		}
	}
	full, err := podman(nil, "version", "--format={{.Client.Version}}")
	if err != nil {
		t.Fatal(full, err)
	}
	r.check(t, filepath.Join(version(t, "podman", full), "volume.txtar"), "A volume plugin under podman "+full+".")
}
