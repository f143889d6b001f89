package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// swarmPlugin is the name under which engines have the plugin of networks.
const swarmPlugin = "remora-network"

// swarmDriver is it as Swarm wants it, which has no tag implied.
const swarmDriver = swarmPlugin + ":latest"

// newSwarm is a Swarm of hosts whose engines run the managed plugin of networks. The first is the manager.
func newSwarm(t *testing.T, names ...string) []*managedHost {
	t.Helper()
	_, hosts := newSwarmOf(t, 1, names...)
	return hosts
}

// newSwarmOf is one of which the first hosts are managers.
func newSwarmOf(t *testing.T, managers int, names ...string) (*lab.Switch, []*managedHost) {
	t.Helper()
	l := newLab(t, append([]testenv.Need{testenv.Apt, testenv.Nftables}, engine...)...)
	dir := bundle(t, l) + "-network"
	wires := l.Switch(t)
	var hosts []*managedHost
	first := ""
	for i, name := range names {
		h := &managedHost{Host: l.Host(t, name)}
		at := wires.Wire(h.Host)
		h.engine = h.DockerdWithNetworks()
		h.MustDocker("plugin", "create", swarmPlugin, dir)
		h.MustDocker("plugin", "enable", swarmPlugin)
		h.Write(filepath.Join("/var/lib/docker/plugins", h.id(swarmPlugin), "propagated-mount/password"), networkPassword+"\n")
		launch := []string{"remora", "network", "launch", "--password-file", "/var/lib/remora/password"}
		if first == "" {
			first = at
			h.MustDocker("swarm", "init", "--advertise-addr", at)
		} else {
			launch = append(launch, first)
			role := "worker"
			if i < managers {
				role = "manager"
			}
			token := hosts[0].MustDocker("swarm", "join-token", "-q", role)
			h.MustDocker("swarm", "join", "--token", token, "--advertise-addr", at, first+":2377")
		}
		out, err := h.inside(swarmPlugin, launch...)
		if err != nil {
			t.Fatalf("host %s: %s%v", name, out, err)
		}
		hosts = append(hosts, h)
	}
	return wires, hosts
}

// replicas waits until a service has n tasks that run, and returns how many each host has.
func replicas(t *testing.T, hosts []*managedHost, service string, n int) []int {
	t.Helper()
	var each []int
	if !within(40*time.Second, func() bool {
		each = nil
		all := 0
		for _, h := range hosts {
			ids := strings.Fields(h.MustDocker("ps", "-q", "-f", "label=com.docker.swarm.service.name="+service))
			each, all = append(each, len(ids)), all+len(ids)
		}
		return all == n
	}) {
		out, err := hosts[0].Docker("service", "ps", "--no-trunc", service)
		t.Fatalf("service %s: %v tasks, want %d: %s, %v", service, each, n, out, err)
	}
	return each
}

// status is what the plugin says of the network.
func (h *managedHost) status(args ...string) string {
	out, err := h.inside(swarmPlugin, append([]string{"remora", "network", "status"}, args...)...)
	if err != nil {
		return err.Error()
	}
	return out
}

// TestSwarm has a Swarm of two hosts run a service on a network of ours: its tasks reach each other by address and by the
// service's name, of which one that is gone is no part any more.
func TestSwarm(t *testing.T) {
	hosts := newSwarm(t, "boss", "worker")
	boss, worker := hosts[0], hosts[1]
	boss.MustDocker("network", "create", "-d", swarmDriver, "--scope", "swarm", "--attachable", "blue")
	boss.MustDocker("service", "create", "-d", "--name", "web", "--no-resolve-image", "--network", "blue", "--replicas", "3", "--endpoint-mode", "dnsrr",
		"--stop-grace-period", "0s", lab.ImageName, "sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
	each := replicas(t, hosts, "web", 3)
	if each[0] == 0 || each[1] == 0 {
		t.Fatalf("the tasks are not spread: %v", each)
	}
	for _, h := range hosts {
		h.MustDocker("run", "-d", "--name", "asker", "--network", "blue", "--dns", "10.0.1.1", "--dns-search", "remora.local", lab.ImageName, "sleep", "1000")
	}
	service := "label=com.docker.swarm.service.name=web"
	all := func() string {
		return sorted(addresses(boss.Host, "blue", service), addresses(worker.Host, "blue", service))
	}
	for _, h := range hosts {
		for _, name := range []string{"web", "tasks.web", "web.remora.local"} {
			found(t, h.Host, "asker", name, all())
		}
		for at := range strings.FieldsSeq(all()) {
			last := ""
			if !within(10*time.Second, func() bool {
				out, err := h.Docker("exec", "asker", "sh", "-c", "ping -c 1 -W 2 "+at+" >/dev/null && wget -qO- http://"+at+"/")
				if err != nil {
					last = err.Error()
				}
				return err == nil && out != ""
			}) {
				t.Errorf("host %s: task %s does not answer: %s\n%s", h.Name, at, last, h.status())
			}
		}
	}
	seen := map[string]bool{}
	for range 30 {
		seen[worker.MustDocker("exec", "asker", "wget", "-qO-", "http://web.remora.local/")] = true
	}
	if len(seen) != 3 {
		t.Errorf("tasks that answered: %v", seen)
	}
	want(t, worker.status("connections"), "encrypted")
	want(t, boss.status("networks"), "blue", "10.0.1.0/24")

	// Other containers of the engine's reach none of it, and ports are Swarm's and the engine's own.
	boss.MustDocker("service", "scale", "-d", "web=1")
	replicas(t, hosts, "web", 1)
	for _, h := range hosts {
		found(t, h.Host, "asker", "web.remora.local", all())
		found(t, h.Host, "asker", "web", all())
	}

	t.Run("a service with an address of its own", func(t *testing.T) {
		boss.MustDocker("service", "create", "-d", "--name", "api", "--no-resolve-image", "--network", "blue", "--replicas", "2", "--stop-grace-period", "0s",
			"--publish", "mode=host,target=80,published=8081", lab.ImageName, "sh", "-c", "echo api > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
		replicas(t, hosts, "api", 2)
		service := "label=com.docker.swarm.service.name=api"
		tasks := sorted(addresses(boss.Host, "blue", service), addresses(worker.Host, "blue", service))
		for _, h := range hosts {
			found(t, h.Host, "asker", "tasks.api", tasks)
			found(t, h.Host, "asker", "api.remora.local", tasks)
		}
		// Behind its own address the engine puts a balancer for its own driver alone, as the guide says.
		for _, h := range hosts {
			h.MustDocker("run", "-d", "--name", "plain", "--network", "blue", lab.ImageName, "sleep", "1000")
			found(t, h.Host, "plain", "tasks.api", tasks)
			vip := resolve(h.Host, "plain", "api")
			if len(vip) != 1 || strings.Contains(tasks, vip[0]) {
				t.Errorf("host %s: api is %v, its tasks are %s", h.Name, vip, tasks)
			} else if out, err := h.Docker("exec", "plain", "ping", "-c", "1", "-W", "2", vip[0]); err == nil {
				t.Errorf("host %s: somebody answers at %s: %s", h.Name, vip[0], out)
			}
			h.MustDocker("rm", "-f", "plain")
		}
		if !within(10*time.Second, func() bool {
			out, err := boss.Run("busybox", "wget", "-qO-", "http://10.99.0.12:8081/") // of the worker
			return err == nil && out == "api"
		}) {
			t.Error("a port that the worker publishes does not answer")
		}
		boss.MustDocker("service", "rm", "api")
	})
	t.Run("the plugin starts anew", func(t *testing.T) {
		for _, h := range hosts {
			h.Must("runc", "--root", "/run/docker/runtime-runc/plugins.moby", "kill", h.id(swarmPlugin), "KILL")
		}
		boss.MustDocker("service", "scale", "-d", "web=4")
		replicas(t, hosts, "web", 4)
		for _, h := range hosts {
			found(t, h.Host, "asker", "web.remora.local", all())
			for at := range strings.FieldsSeq(all()) {
				if !within(20*time.Second, func() bool {
					_, err := h.Docker("exec", "asker", "sh", "-c", "ping -c 1 -W 2 "+at+" >/dev/null && wget -qO- http://"+at+"/")
					return err == nil
				}) {
					t.Errorf("host %s: task %s does not answer:\n%s", h.Name, at, h.status("connections"))
				}
			}
		}
	})
	t.Run("wrong use", func(t *testing.T) {
		out, err := boss.inside(swarmPlugin, "remora", "network", "reset", "--yes")
		if err == nil || !strings.Contains(err.Error(), "drain") {
			t.Errorf("a reset with tasks: %s, %v", out, err)
		}
		// Swarm tells nobody what the driver said but its log.
		boss.MustDocker("network", "create", "-d", swarmDriver, "--scope", "swarm", "-o", "colour=blue", "bad")
		if !within(10*time.Second, func() bool { return strings.Contains(boss.engine.Log(), `unknown option \"colour\"`) }) {
			t.Error("an option that is wrong is told nowhere")
		}
		boss.MustDocker("network", "rm", "bad")
		want(t, worker.Fails("docker", "network", "create", "-d", swarmDriver, "red"), "manager")
	})
	t.Run("to the end", func(t *testing.T) {
		boss.MustDocker("service", "rm", "web")
		for _, h := range hosts {
			h.MustDocker("rm", "-f", "asker")
		}
		boss.MustDocker("network", "rm", "blue")
		for _, h := range hosts {
			if !within(20*time.Second, func() bool { return !strings.Contains(h.status("networks"), "10.0.1.0/24") }) {
				t.Errorf("host %s: the network is left:\n%s", h.Name, h.status("networks"))
			}
			if !within(10*time.Second, func() bool { return !strings.Contains(h.Must("ip", "route"), "10.0.1.") }) { // soon after the records
				t.Errorf("host %s: routes are left:\n%s", h.Name, h.Must("ip", "route"))
			}
		}
	})
}
