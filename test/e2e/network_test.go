package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

const networkPassword = "correct-horse-battery-staple"

// meshed is hosts with engines: some on a switch, and some that can only dial out.
type meshed struct {
	wires   *lab.Switch
	hosts   []*lab.Host
	daemons []*lab.Process
	engines []*lab.Process
	address string // of the first
	remora  string // the binary
}

// newMeshed starts the hosts and launches the network on each.
func newMeshed(t *testing.T) *meshed {
	t.Helper()
	return newMeshedOf(t, "nyc-host", "london", "laptop")
}

// newMeshedOf does so with hosts of these names; one that is called laptop can only dial out.
func newMeshedOf(t *testing.T, names ...string) *meshed {
	t.Helper()
	l := newLab(t, append([]testenv.Need{testenv.Dockerd, testenv.DockerCLI, testenv.Nftables}, engine...)...)
	m := &meshed{wires: l.Switch(t), remora: l.Remora}
	for _, name := range names {
		h := l.Host(t, name)
		if strings.HasPrefix(name, "laptop") {
			m.wires.WireBehindNAT(h)
		} else {
			at := m.wires.Wire(h)
			if m.address == "" {
				m.address = at
			}
		}
		m.daemons = append(m.daemons, h.Remora(""))
		m.engines = append(m.engines, h.DockerdWithNetworks())
		h.Write("/etc/remora/password", networkPassword+"\n")
		m.hosts = append(m.hosts, h)
	}
	m.hosts[0].MustCli("network", "launch", "--password-file", "/etc/remora/password")
	for _, h := range m.hosts[1:] {
		h.MustCli("network", "launch", "--password-file", "/etc/remora/password", m.address)
	}
	m.whole(t)
	return m
}

// whole waits until every host sees every other, and its engine has the network.
func (m *meshed) whole(t *testing.T) {
	t.Helper()
	peers := fmt.Sprintf("%d (1 self, %d reachable)", len(m.hosts), len(m.hosts)-1)
	for _, h := range m.hosts {
		last := ""
		if !within(20*time.Second, func() bool {
			out, err := h.Cli("network", "status")
			list, lerr := h.Docker("network", "ls", "--format", "{{.Name}} {{.Driver}}")
			last = out + "\n" + list
			return err == nil && lerr == nil && strings.Contains(out, peers) && strings.Contains(list, "remora remora")
		}) {
			t.Fatalf("host %s: the network is not whole:\n%s", h.Name, last)
		}
	}
}

// within waits until ok, for d or [lab.Patience], and tells whether it came to that.
func within(d time.Duration, ok func() bool) bool {
	d = max(d, lab.Patience)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// dnsArgs is what docker run needs to find names.
func dnsArgs(h *lab.Host) []string { return strings.Fields(h.MustCli("network", "dns-args")) }

// run runs a container on the network and returns what it printed.
func (m *meshed) run(h *lab.Host, script string) (string, error) {
	args := append([]string{"run", "--rm", "--net=remora"}, dnsArgs(h)...)
	return h.Docker(append(args, lab.ImageName, "sh", "-c", script)...)
}

// TestNetworkClassic is the walk-through that everybody knows: a container in New York answers one in London, and one on a
// laptop behind NAT, by its name.
func TestNetworkClassic(t *testing.T) {
	t.Parallel()
	m := newMeshed(t)
	nyc := m.hosts[0]
	nyc.MustDocker("run", "-d", "--name", "nyc", "--net=remora", lab.ImageName, "nc", "-ll", "-p", "4242", "-e", "echo", "Hello from NYC")
	for _, h := range m.hosts[1:] {
		for _, name := range []string{"nyc", "nyc.remora.local"} {
			out, last := "", error(nil)
			if !within(15*time.Second, func() bool {
				out, last = m.run(h, "ping -c 1 -W 2 "+name+" >/dev/null && nc -w 5 "+name+" 4242 </dev/null")
				return last == nil && strings.Contains(out, "Hello from NYC")
			}) {
				t.Fatalf("from %s, %s answers %q: %v\n%s", h.Name, name, out, last, h.MustCli("network", "status"))
			}
		}
	}
	// Peers have learnt of each other: two connections at each of three hosts.
	if !within(15*time.Second, func() bool {
		return strings.Contains(nyc.MustCli("network", "status"), "6 connections (6 established)")
	}) {
		want(t, nyc.MustCli("network", "status"), "6 connections (6 established)")
	}
	want(t, m.hosts[1].MustCli("network", "status", "connections"), "encrypted")

	// With the servers in the engine's file no container needs an option.
	london := m.hosts[1]
	want(t, london.Fails(m.remora, "network", "dns", "install"), "add --yes")
	want(t, london.MustCli("network", "dns", "install", "--yes"), "+", "remora.local")
	noErr(t, m.engines[1].Stop(30*time.Second))
	m.engines[1] = london.DockerdWithNetworks()
	if out, err := london.Docker("run", "--rm", "--net=remora", lab.ImageName, "ping", "-c", "1", "-W", "2", "nyc"); err != nil {
		t.Errorf("with no option: %s, %v", out, err)
	}
	london.MustCli("network", "dns", "uninstall", "--yes")
	is(t, "the file is as it was", london.Must("sh", "-c", "cat /etc/docker/daemon.json 2>/dev/null || true"), "")

	// A container that is gone is not found any more.
	nyc.MustDocker("rm", "-f", "nyc")
	if !within(10*time.Second, func() bool {
		_, err := m.hosts[1].Cli("network", "dns-lookup", "nyc")
		return err != nil
	}) {
		t.Error("a name is found after its container is gone")
	}
}

// TestNetworkFaults kills, cuts, stops and removes, with a container that asks another all the time.
func TestNetworkFaults(t *testing.T) {
	m := newMeshed(t)
	nyc, london, laptop := m.hosts[0], m.hosts[1], m.hosts[2]
	nyc.MustDocker("run", "-d", "--name", "nyc", "--net=remora", lab.ImageName, "sleep", "1000")
	london.MustDocker(append(append([]string{"run", "-d", "--name", "london", "--net=remora"}, dnsArgs(london)...), lab.ImageName, "sleep", "1000")...)
	if !within(15*time.Second, func() bool {
		_, err := london.Docker("exec", "london", "ping", "-c", "1", "-W", "1", "nyc")
		return err == nil
	}) {
		t.Fatalf("nyc does not answer:\n%s", london.MustCli("network", "status", "connections"))
	}

	t.Run("the daemon is killed", func(t *testing.T) {
		ping := london.Start(nil, "docker", "exec", "london", "ping", "-i", "0.2", "-c", "60", "-W", "2", "nyc")
		for i, h := range []*lab.Host{nyc, london} {
			m.daemons[i].Kill()
			time.Sleep(time.Second)
			m.daemons[i] = h.Remora("")
		}
		<-ping.Exited()
		want(t, ping.Log(), "60 packets transmitted, 60 packets received, 0% packet loss")
		m.whole(t)
	})
	t.Run("it is stopped and launched again", func(t *testing.T) {
		london.MustCli("network", "stop")
		want(t, london.MustCli("network", "status"), "stopped")
		london.MustDocker("exec", "london", "ping", "-c", "2", "-W", "2", m.addressOf(t, nyc, "nyc"))
		want(t, london.Fails("docker", "run", "--rm", "--net=remora", lab.ImageName, "true"), "remora network launch")
		london.MustCli("network", "launch")
		m.whole(t)
	})
	t.Run("a host has an address in the network", func(t *testing.T) {
		at := london.MustCli("network", "expose", "--name", "london-host")
		is(t, "the address again", london.MustCli("network", "expose"), at)
		london.Start(nil, "busybox", "nc", "-ll", "-p", "9999", "-e", "echo", "the host")
		reach := func() string {
			out, _ := nyc.Docker("exec", "nyc", "sh", "-c", "nc -w 2 "+at+" 9999 </dev/null") // silence says no
			return out
		}
		if !within(5*time.Second, func() bool { return reach() == "the host" }) {
			t.Errorf("a container does not reach it at %s", at)
		}
		want(t, nyc.MustCli("network", "dns-lookup", "london-host"), at)
		london.MustCli("network", "hide")
		if out := reach(); out != "" {
			t.Errorf("it answers after it is hidden: %s", out)
		}
		want(t, nyc.Fails(m.remora, "network", "dns-lookup", "london-host"), "nobody has it")
	})
	t.Run("a host gets another address", func(t *testing.T) {
		was := m.wires.Address(london)
		m.wires.Move(london)
		end := time.Now().Add(4 * time.Second) // a link that is silent is closed after five
		if !within(time.Until(end), func() bool {
			_, err := nyc.Docker("exec", "nyc", "ping", "-c", "1", "-W", "1", m.addressOf(t, london, "london"))
			return err == nil
		}) {
			t.Errorf("it is not reached:\n%s", nyc.MustCli("network", "status", "connections"))
		}
		if !within(time.Until(end), func() bool {
			out := nyc.MustCli("network", "status", "peers")
			return strings.Contains(out, m.wires.Address(london).String()+":") && !strings.Contains(out, was.String()+":")
		}) {
			t.Errorf("it is not known where it is:\n%s", nyc.MustCli("network", "status", "peers"))
		}
		m.whole(t)
	})
	t.Run("a host is cut off", func(t *testing.T) {
		m.wires.Cut(laptop)
		if !within(15*time.Second, func() bool {
			return strings.Contains(nyc.MustCli("network", "status"), "1 unreachable")
		}) {
			t.Errorf("it is not noticed:\n%s", nyc.MustCli("network", "status"))
		}
		// Both sides go on.
		laptop.MustDocker("run", "-d", "--name", "alone", "--net=remora", lab.ImageName, "sleep", "1000")
		nyc.MustDocker("run", "-d", "--name", "other", "--net=remora", lab.ImageName, "sleep", "1000")
		m.wires.Heal(laptop)
		m.whole(t)
		if !within(10*time.Second, func() bool {
			_, err := london.Docker("exec", "london", "ping", "-c", "1", "-W", "1", "alone")
			return err == nil
		}) {
			t.Errorf("what was begun while it was cut off is not found:\n%s", london.MustCli("network", "status", "dns"))
		}
	})
	t.Run("somebody flushes the rules", func(t *testing.T) {
		london.Must("nft", "flush", "ruleset")
		if !within(10*time.Second, func() bool {
			out, err := london.Run("nft", "list", "tables")
			return err == nil && strings.Contains(out, "inet remora")
		}) {
			t.Error("the rules are not put back")
		}
	})
	t.Run("a host leaves for good", func(t *testing.T) {
		_, err := laptop.Cli("network", "reset", "--yes")
		if err == nil || !strings.Contains(err.Error(), "remove or disconnect the containers") {
			t.Errorf("with a container on the network: %v", err)
		}
		laptop.MustDocker("rm", "-f", "alone")
		laptop.MustCli("network", "reset", "--yes")
		want(t, laptop.MustCli("network", "status"), "off")
		for _, command := range [][]string{{"ip", "-o", "link"}, {"ip", "route"}, {"nft", "list", "ruleset"}} {
			if out := laptop.Must(command[0], command[1:]...); strings.Contains(out, "rm-") || strings.Contains(out, "10.32.") || strings.Contains(out, "inet remora") {
				t.Errorf("a trace is left:\n%s", out)
			}
		}
		if !within(10*time.Second, func() bool {
			return strings.Contains(nyc.MustCli("network", "status"), "2 (1 self, 1 reachable)")
		}) {
			t.Errorf("the others still count it:\n%s", nyc.MustCli("network", "status", "peers"))
		}
		laptop.Write("/etc/remora/password", "something else\n")
		_, err = laptop.Run("sh", "-c", "exec \"$0\" network launch --password-file /etc/remora/password "+m.address+" 2>&1", m.remora)
		noErr(t, err)
		if !within(10*time.Second, func() bool { // between two guesses it says how long to wait
			return strings.Contains(laptop.MustCli("network", "status", "targets"), "do not have the same password")
		}) {
			t.Errorf("a wrong password is not told:\n%s", laptop.MustCli("network", "status", "targets"))
		}
		want(t, laptop.Fails("docker", "network", "create", "-d", "remora", "--ipam-driver", "remora", "blue"), "in no cluster yet")
	})
}

// addressOf is the address of a container on the network.
func (m *meshed) addressOf(t *testing.T, h *lab.Host, container string) string {
	t.Helper()
	return h.MustDocker("inspect", "-f", "{{.NetworkSettings.Networks.remora.IPAddress}}", container)
}
