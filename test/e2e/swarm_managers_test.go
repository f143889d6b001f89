package e2e

import (
	"fmt"
	"slices"
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
	web := []string{
		"service", "create", "-d", "--name", "web", "--no-resolve-image", "--network", "blue", "--replicas", "3", "--endpoint-mode", "dnsrr",
		"--stop-grace-period", "0s", lab.ImageName, "sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp",
	}
	boss.MustDocker("network", "create", "-d", swarmDriver, "--scope", "swarm", "--attachable", "blue")
	boss.MustDocker(web...)
	each := replicas(t, hosts, "web", 3)
	if each[0] == 0 || each[1] == 0 || each[2] == 0 {
		t.Fatalf("the tasks are not spread: %v", each)
	}
	for _, h := range hosts {
		h.MustDocker("run", "-d", "--name", "asker", "--network", "blue", "--dns", "10.0.1.1", "--dns-search", "remora.local", lab.ImageName, "sleep", "1000")
	}
	at := func(on ...*managedHost) string { return addressesOf(on, "web", "blue") }
	// whole: from each of the hosts all tasks that are on them are found, and answer; no two have one address. Which tasks there are
	// is asked again each time: Swarm ends those that it has started elsewhere when it likes.
	whole := func(when string, on ...*managedHost) {
		t.Helper()
		for _, h := range on {
			last := ""
			if !within(20*time.Second, func() bool {
				tasks, names := at(on...), sorted(resolve(h.Host, "asker", "web.remora.local"))
				if all := strings.Fields(tasks); names != tasks || len(slices.Compact(all)) != len(strings.Fields(tasks)) {
					last = fmt.Sprintf("tasks are %q, and are found at %q", tasks, names)
					return false
				}
				for ip := range strings.FieldsSeq(tasks) {
					if err := answers(h, "asker", ip); err != nil {
						last = fmt.Sprintf("of %q task %s does not answer: %v", tasks, ip, err)
						return false
					}
				}
				return tasks != ""
			}) {
				t.Errorf("%s: host %s: %s\n%s", when, h.Name, last, h.status("connections"))
			}
		}
	}
	whole("at first", hosts...)
	anew := func(leader *managedHost) {
		t.Helper()
		var err error
		if !within(30*time.Second, func() bool { // until its own engine has ended the former one
			_, err = leader.Docker("network", "create", "-d", swarmDriver, "--scope", "swarm", "--subnet", "10.77.0.0/24", "green")
			return err == nil
		}) {
			t.Fatal(err)
		}
		leader.MustDocker("service", "create", "-d", "--name", "green", "--no-resolve-image", "--network", "green", "--mode", "global", "--endpoint-mode", "dnsrr",
			"--stop-grace-period", "0s", "--dns", "10.77.0.1", lab.ImageName, "sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
	}
	anew(boss)
	green(t, "at first", hosts)

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
	second.MustDocker("service", "scale", "-d", "web=4")
	replicas(t, rest, "web", 4)
	whole("after a change by the manager that leads now", rest...)
	// A network that is made anew while the host that is lost has the former one still, with the same addresses.
	second.MustDocker("service", "rm", "green")
	if !within(30*time.Second, func() bool {
		_, err := second.Docker("network", "rm", "green")
		return err == nil
	}) {
		t.Fatal("a network is not removed while a host is lost")
	}
	anew(second)
	green(t, "made anew without the first manager", rest)

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
		out, err := second.Docker("service", "ps", "--no-trunc", "-q", "-f", "desired-state=running", "web")
		return err == nil && len(strings.Fields(out)) == 5 && sorted(strings.Fields(out)) == tasksOn(hosts, "web")
	}) {
		out, _ := second.Docker("service", "ps", "web")
		t.Fatalf("not five tasks: %s\n%s", at(hosts...), out)
	}
	whole("when all are back", hosts...)
	green(t, "when all are back", hosts)
}

// green has one task of the service on each of the hosts, which find all of them by name and reach them.
func green(t *testing.T, when string, hosts []*managedHost) {
	t.Helper()
	for _, h := range hosts {
		last := ""
		if !within(40*time.Second, func() bool {
			tasks, id := addressesOf(hosts, "green", "green"), h.MustDocker("ps", "-q", "-f", "label=com.docker.swarm.service.name=green")
			names := sorted(resolve(h.Host, id, "green.remora.local"))
			if last = fmt.Sprintf("tasks are %q, and are found at %q", tasks, names); len(strings.Fields(tasks)) != len(hosts) || names != tasks {
				return false
			}
			for ip := range strings.FieldsSeq(tasks) {
				if err := answers(h, id, ip); err != nil {
					last = fmt.Sprintf("of %q task %s does not answer: %v", tasks, ip, err)
					return false
				}
			}
			return true
		}) {
			out, _ := h.Docker("service", "ps", "--no-trunc", "green")
			t.Fatalf("network green %s: host %s: %s\n%s\n%s", when, h.Name, last, h.status("networks"), out)
		}
	}
}

// answers asks a task; a packet first, for wget waits minutes for one that is lost.
func answers(h *managedHost, container, ip string) error {
	_, err := h.Docker("exec", container, "sh", "-c", "ping -c 1 -W 2 "+ip+" >/dev/null && wget -qO- http://"+ip+"/")
	return err
}

// addressesOf are those of a service's tasks on hosts; one that is coming or going has none.
func addressesOf(hosts []*managedHost, service, network string) string {
	var all []string
	for _, h := range hosts {
		for id := range strings.FieldsSeq(h.MustDocker("ps", "-q", "-f", "label=com.docker.swarm.service.name="+service)) {
			out, _ := h.Docker("inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").IPAddress}}`, id)
			all = append(all, strings.Fields(out)...)
		}
	}
	return sorted(all)
}

// tasksOn are the IDs of the tasks of a service that run on hosts.
func tasksOn(hosts []*managedHost, service string) string {
	var lists [][]string
	for _, h := range hosts {
		out := h.MustDocker("ps", "-f", "label=com.docker.swarm.service.name="+service, "--format", `{{.Label "com.docker.swarm.task.id"}}`)
		lists = append(lists, strings.Fields(out))
	}
	return sorted(lists...)
}
