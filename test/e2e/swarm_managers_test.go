package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestSwarmManagers: of three managers the one that leads is lost, then a second, and both come back. Tasks go on talking to each other and
// find each other by name, whoever leads and though nobody does; networks and services change while most managers are there.
func TestSwarmManagers(t *testing.T) {
	t.Parallel()
	wires, hosts := newSwarmOf(t, 3, "boss", "second", "third")
	boss, second, third := hosts[0], hosts[1], hosts[2]
	web := []string{"service", "create", "-d", "--name", "web", "--no-resolve-image", "--network", "blue", "--replicas", "3", "--endpoint-mode", "dnsrr",
		"--stop-grace-period", "0s", lab.ImageName, "sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp"}
	boss.MustDocker("network", "create", "-d", swarmDriver, "--scope", "swarm", "--attachable", "blue")
	boss.MustDocker(web...)
	each := replicas(t, hosts, "web", 3)
	if each[0] == 0 || each[1] == 0 || each[2] == 0 {
		t.Fatalf("the tasks are not spread: %v", each)
	}
	for _, h := range hosts {
		h.MustDocker("run", "-d", "--name", "asker", "--network", "blue", "--dns", "10.0.1.1", "--dns-search", "remora.local", lab.ImageName, "sleep", "1000")
	}
	service := "label=com.docker.swarm.service.name=web"
	at := func(on ...*managedHost) string {
		var lists [][]string
		for _, h := range on {
			lists = append(lists, addresses(h.Host, "blue", service))
		}
		return sorted(lists...)
	}
	// whole: from each of the hosts all tasks on them are found, and answer; no two have one address.
	whole := func(when string, on ...*managedHost) {
		t.Helper()
		tasks, last := "", ""
		if !within(20*time.Second, func() bool {
			tasks = at(on...) // of one that is starting there is none yet
			for _, h := range on {
				if last = h.Name + ": " + sorted(resolve(h.Host, "asker", "web.remora.local")); last != h.Name+": "+tasks {
					return false
				}
			}
			return true
		}) {
			t.Errorf("%s: tasks are %q, and are found at %s", when, tasks, last)
		}
		seen := map[string]bool{}
		for ip := range strings.FieldsSeq(tasks) {
			if seen[ip] {
				t.Errorf("%s: two tasks have %s", when, ip)
			}
			seen[ip] = true
		}
		for _, h := range on {
			for ip := range strings.FieldsSeq(tasks) {
				if !within(10*time.Second, func() bool {
					_, err := h.Docker("exec", "asker", "wget", "-qO-", "http://"+ip+"/")
					return err == nil
				}) {
					t.Errorf("%s: host %s: task %s does not answer:\n%s", when, h.Name, ip, h.status("connections"))
				}
			}
		}
	}
	whole("at first", hosts...)

	wires.Cut(boss.Host)
	rest := []*managedHost{second, third}
	if !within(60*time.Second, func() bool {
		out, err := second.Docker("node", "ls", "--format", "{{.ManagerStatus}} {{.Hostname}} {{.Status}}")
		return err == nil && strings.Contains(out, "Leader") && strings.Contains(out, "boss Down")
	}) {
		t.Fatal("no other manager leads")
	}
	replicas(t, rest, "web", 3)
	whole("without the first manager", rest...)
	second.MustDocker("network", "create", "-d", swarmDriver, "--scope", "swarm", "--attachable", "green")
	second.MustDocker("service", "scale", "-d", "web=4")
	replicas(t, rest, "web", 4)
	whole("after a change by the manager that leads now", rest...)
	third.MustDocker("run", "--rm", "--network", "green", lab.ImageName, "true")

	wires.Cut(second.Host) // nobody leads
	if !within(60*time.Second, func() bool {
		_, err := third.Docker("node", "ls")
		return err != nil
	}) {
		t.Fatal("one manager of three leads")
	}
	whole("without a manager that leads", third)

	wires.Heal(second.Host)
	wires.Heal(boss.Host)
	for _, h := range hosts {
		if !within(60*time.Second, func() bool {
			out, err := h.Docker("node", "ls", "--format", "{{.Status}}")
			return err == nil && strings.Count(out, "Ready") == 3
		}) {
			t.Fatalf("host %s: the managers are not back", h.Name)
		}
	}
	second.MustDocker("service", "scale", "-d", "web=5")
	if !within(60*time.Second, func() bool { // also those that were started twice are gone
		out, err := second.Docker("service", "ls", "--format", "{{.Replicas}}")
		return err == nil && strings.Contains(out, "5/5") && len(strings.Fields(at(hosts...))) == 5
	}) {
		out, _ := second.Docker("service", "ps", "web")
		t.Fatalf("not five tasks: %s\n%s", at(hosts...), out)
	}
	whole("when all are back", hosts...)
}
