package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestNetavarkFaults: what Podman's containers have of a network when the daemon is killed under them, when the host leaves, and what else
// people do with networks.
func TestNetavarkFaults(t *testing.T) {
	l := newLab(t, append([]testenv.Need{testenv.Dockerd, testenv.DockerCLI, testenv.Nftables, testenv.Netavark}, engine...)...)
	wires := l.Switch(t)
	nyc, london := l.Host(t, "nyc-host"), l.Host(t, "london")
	address := wires.Wire(nyc)
	at := wires.Wire(london)
	for _, h := range []*lab.Host{nyc, london} {
		h.Write("/etc/remora/password", networkPassword+"\n")
	}
	nyc.Remora("")
	nyc.DockerdWithNetworks()
	daemon := london.Remora("")
	nyc.MustCli("network", "launch", "--password-file", "/etc/remora/password")
	london.MustCli("network", "launch", "--password-file", "/etc/remora/password", address)
	pod := newPods(t, l, london)
	london.MustCli("network", "podman", "install", "--dir", "/run/netavark")
	if !within(20*time.Second, func() bool {
		out, _ := london.Cli("network", "status")
		return strings.Contains(out, "2 (1 self, 1 reachable)") && has(nyc, "remora")
	}) {
		t.Fatalf("the network is not whole:\n%s", london.MustCli("network", "status"))
	}
	pod.must("network", "create", "-d", "remora", "remora")
	nyc.MustDocker(append(append([]string{"run", "-d", "--name", "nyc", "--net=remora"}, dnsArgs(nyc)...), lab.ImageName, "nc", "-ll", "-p", "4242", "-e", "echo", "Hello from NYC")...)
	reaches := func(name string) bool {
		_, err := nyc.Docker("exec", "nyc", "ping", "-c", "1", "-W", "1", name)
		return err == nil
	}
	// used are the addresses that are out on the second host; one is its bridge's.
	used := func() string {
		return london.Must("sh", "-c", `exec "$0" network status ipam`, l.Remora)
	}

	t.Run("the daemon is killed between setup and teardown", func(t *testing.T) {
		before := used()
		pod.must("run", "-d", "--name", "city", "--network", "remora", lab.ImageName, "sleep", "1000")
		if !within(10*time.Second, func() bool { return reaches("city") }) {
			t.Fatal("it is not reached")
		}
		ip := strings.Fields(pod.must("exec", "city", "ip", "-4", "-o", "addr", "show", "eth0"))[3]
		ip, _, _ = strings.Cut(ip, "/")
		daemon.Kill()
		if !reaches(ip) {
			t.Error("it is not reached while the daemon is dead")
		}
		text := pod.fails("run", "--rm", "--network", "remora", lab.ImageName, "true")
		want(t, text, "remora")
		pod.must("run", "-d", "--name", "both", "--network", "podman", lab.ImageName, "sleep", "1000")
		pod.must("rm", "-f", "-t", "0", "city") // not even this needs the daemon
		pod.must("rm", "-f", "-t", "0", "both")
		daemon = london.Remora("")
		if !within(10*time.Second, func() bool { return used() == before }) {
			t.Errorf("its address is not taken back: %s\nbefore:\n%s", used(), before)
		}
		if !within(10*time.Second, func() bool { _, err := nyc.Cli("network", "dns-lookup", "city"); return err != nil }) {
			t.Error("its name is still there")
		}
		is(t, "interfaces of containers that are gone", london.Must("sh", "-c", "ip -o link | grep -c ' rmv' || true"), "0")
		pod.must("run", "-d", "--name", "city", "--network", "remora", "--network", "podman", lab.ImageName, "sleep", "1000")
		daemon.Kill()
		pod.must("network", "disconnect", "remora", "city")
		if reaches(ip) {
			t.Error("it is still in the network")
		}
		daemon = london.Remora("")
		if !within(10*time.Second, func() bool { return used() == before }) {
			t.Errorf("its address is not taken back: %s", used())
		}
		pod.must("network", "connect", "remora", "city")
		daemon.Kill()
		daemon = london.Remora("")
		if !within(10*time.Second, func() bool { return reaches("city") }) {
			t.Error("it is not found after the daemon was started again")
		}
		pod.must("rm", "-f", "-t", "0", "city")
		if !within(10*time.Second, func() bool { return used() == before }) {
			t.Errorf("its address is not taken back: %s", used())
		}
		for round := range 6 {
			run := london.Start(nil, "env", pod.args([]string{"run", "--rm", "--network", "remora", lab.ImageName, "true"})...)
			time.Sleep(time.Duration(200+150*round) * time.Millisecond)
			daemon.Kill()
			<-run.Exited()
			daemon = london.Remora("")
		}
		if !within(10*time.Second, func() bool { return used() == before }) {
			t.Errorf("addresses of containers that were cut off are not taken back: %s", used())
		}
		pod.must("run", "--rm", "--network", "remora", lab.ImageName, "true")
	})
	t.Run("the network is stopped between setup and teardown", func(t *testing.T) {
		before := used()
		pod.must("run", "-d", "--name", "city", "--network", "remora", "--network", "podman", lab.ImageName, "sleep", "1000")
		london.MustCli("network", "stop")
		pod.must("network", "disconnect", "remora", "city")
		is(t, "interfaces of containers that were disconnected", london.Must("sh", "-c", "ip -o link | grep -c ' rmv' || true"), "0")
		london.MustCli("network", "launch")
		if !within(10*time.Second, func() bool { return used() == before }) {
			t.Errorf("its address is not taken back: %s", used())
		}
		pod.must("network", "connect", "remora", "city")
		pod.must("rm", "-f", "-t", "0", "city")
	})
	t.Run("a network that only Podman has here is removed", func(t *testing.T) {
		pod.must("network", "create", "-d", "remora", "brief")
		pod.must("run", "--rm", "--network", "brief", lab.ImageName, "true")
		london.Must("ip", "route", "add", "blackhole", "10.0.0.0/8") // as a VPN has one
		pod.must("run", "--rm", "--network", "brief", lab.ImageName, "true")
		london.Must("ip", "route", "del", "blackhole", "10.0.0.0/8")
		pod.must("network", "rm", "brief")
		if !within(20*time.Second, func() bool { return has(nyc, "brief") }) {
			t.Fatalf("docker has it not: %s", networks(nyc))
		}
		nyc.MustCli("network", "rm", "brief")
		if !within(20*time.Second, func() bool {
			return !has(nyc, "brief") && !strings.Contains(london.MustCli("network", "status"), "brief")
		}) {
			t.Errorf("it is still there:\n%s", london.MustCli("network", "status"))
		}
	})
	t.Run("ports", func(t *testing.T) {
		serve := []string{lab.ImageName, "sh", "-c", "echo hello > /tmp/index.html; httpd -f -p 80 -h /tmp"}
		pod.must(append([]string{"run", "-d", "--name", "web", "-p", "8080:80", "--network", "remora", "--network", "podman"}, serve...)...)
		if !within(10*time.Second, func() bool {
			out, err := nyc.Run("busybox", "wget", "-qO-", "http://"+at+":8080/")
			return err == nil && out == "hello"
		}) {
			t.Error("a published port does not answer")
		}
		if !within(10*time.Second, func() bool { return reaches("web") }) {
			t.Error("it is not in the network")
		}
		pod.must("rm", "-f", "-t", "0", "web")
		// Of this network alone nothing is published, as the guide says.
		pod.must(append([]string{"run", "-d", "--name", "web", "-p", "8080:80", "--network", "remora"}, serve...)...)
		if out, err := nyc.Run("busybox", "wget", "-qO-", "http://"+at+":8080/"); err == nil {
			t.Errorf("a port of a container that is in no network of Podman's answers: %s", out)
		}
		pod.must("rm", "-f", "-t", "0", "web")
	})
	t.Run("IPv6", func(t *testing.T) {
		pod.must("network", "create", "-d", "remora", "--ipv6", "six")
		want(t, pod.must("network", "inspect", "six"), `"ipv6_enabled": true`, "/64")
		if !within(10*time.Second, func() bool { return has(nyc, "six") }) {
			t.Fatalf("docker has it not: %s", networks(nyc))
		}
		pod.must("run", "-d", "--name", "seven", "--network", "six", lab.ImageName, "sleep", "1000")
		last := ""
		if !within(10*time.Second, func() bool {
			args := append([]string{"run", "--rm", "--net=six"}, dnsArgs(nyc)...)
			out, err := nyc.Docker(append(args, lab.ImageName, "ping", "-6", "-c", "1", "-W", "2", "seven.remora.local")...)
			last = fmt.Sprint(out, err)
			return err == nil
		}) {
			t.Errorf("docker does not reach it by IPv6: %s", last)
		}
		pod.must("rm", "-f", "-t", "0", "seven")
	})
	t.Run("internal", func(t *testing.T) {
		pod.must("network", "create", "-d", "remora", "--internal", "inner")
		want(t, pod.must("network", "inspect", "inner"), `"internal": true`)
		pod.must("run", "-d", "--name", "shut", "--network", "inner", lab.ImageName, "sleep", "1000")
		if !within(10*time.Second, func() bool {
			_, err := nyc.Docker("network", "inspect", "inner")
			return err == nil
		}) {
			t.Fatal("docker has it not")
		}
		last := ""
		is(t, "it is internal in Docker", nyc.MustDocker("network", "inspect", "-f", "{{.Internal}}", "inner"), "true")
		if !within(10*time.Second, func() bool {
			// It is not let out to the network remora, whose server dns-args names.
			subnet := netip.MustParsePrefix(nyc.MustDocker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "inner"))
			_, servers, _ := strings.Cut(nyc.MustCli("network", "status"), "DNS: ")
			servers, _, _ = strings.Cut(servers, ",")
			for server := range strings.FieldsSeq(servers) {
				if !subnet.Contains(netip.MustParseAddr(server)) {
					continue
				}
				out, err := nyc.Docker("run", "--rm", "--net=inner", "--dns", server, lab.ImageName, "ping", "-c", "1", "-W", "2", "shut.remora.local")
				last = fmt.Sprint(server, out, err)
				return err == nil
			}
			last = servers
			return false
		}) {
			t.Errorf("docker does not reach it: %s", last)
		}
		pod.must("rm", "-f", "-t", "0", "shut")
	})
	t.Run("rootless", func(t *testing.T) {
		// As rootless Podman starts it: as root of a user namespace of somebody else.
		london.Must("install", "-m", "0755", l.Remora, "/run/rootless")
		for _, call := range []string{"create", "setup /proc/self/ns/net", "teardown /proc/self/ns/net"} {
			network := `{"name":"remora","id":"1","driver":"remora","dns_enabled":true,"internal":false,"ipv6_enabled":false}`
			input := network
			if call != "create" {
				input = `{"container_id":"c1","container_name":"c","network":` + network + `,"network_options":{"interface_name":"eth0"}}`
			}
			out, err := london.Run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user", "--map-root-user", "sh", "-c", `echo "$0" | /run/rootless netavark `+call, input)
			if err == nil {
				t.Errorf("%s: rootless Podman is let in", call)
			}
			want(t, out, "rootless Podman", "run podman as root")
		}
	})
	t.Run("reset", func(t *testing.T) {
		pod.must("run", "-d", "--name", "city", "--network", "remora", lab.ImageName, "sleep", "1000")
		london.Start(nil, "busybox", "nc", "-ll", "-p", "9999", "-e", "echo", "the host")
		host := func(name string) string {
			out, _ := nyc.Docker("exec", "nyc", "sh", "-c", "timeout 5 nc -w 2 "+name+" 9999 </dev/null")
			return out
		}
		london.Fails(l.Remora, "network", "expose", "--name", "no name")
		is(t, "a command that failed lets in", host(pod.must("network", "inspect", "-f", "{{(index .Subnets 0).Gateway}}", "remora")), "")
		london.MustCli("network", "expose", "--name", "london-host")
		text := london.Fails(l.Remora, "network", "reset", "--yes")
		want(t, text, "containers of Podman are on it", "remove or disconnect")
		if !within(10*time.Second, func() bool { return reaches("city") }) {
			t.Error("a reset that was refused took something away")
		}
		if !within(5*time.Second, func() bool { return host("london-host") == "the host" }) {
			t.Error("a reset that was refused took away what is exposed")
		}
		pod.must("rm", "-f", "-t", "0", "city")
		london.MustCli("network", "dns", "install", "--yes")
		london.Must("cp", "/etc/docker/daemon.json", "/run/daemon.json")
		london.Write("/etc/docker/daemon.json", "{broken")
		want(t, london.Fails(l.Remora, "network", "reset", "--yes"), "/etc/docker/daemon.json", "is not JSON")
		london.Must("cp", "/run/daemon.json", "/etc/docker/daemon.json")
		london.MustCli("network", "reset", "--yes")
		is(t, "the engine's file", london.Must("sh", "-c", "ls /etc/docker"), "")
		want(t, london.MustCli("network", "status"), "State: off")
		is(t, "interfaces of ours", london.Must("sh", "-c", "ip -o link | grep -c ' rm' || true"), "0")
		is(t, "the plugin", london.Must("sh", "-c", "ls /run/netavark"), "")
		text = pod.fails("run", "--rm", "--network", "remora", lab.ImageName, "true")
		want(t, text, `unknown network driver "remora"`)
		// It may come back.
		london.MustCli("network", "launch", "--password-file", "/etc/remora/password", address)
		london.MustCli("network", "podman", "install", "--dir", "/run/netavark")
		last := ""
		if !within(20*time.Second, func() bool {
			out, err := pod.run("run", "--rm", "--network", "remora", lab.ImageName, "nc", "-w", "5", "nyc", "4242")
			last = fmt.Sprint(out, err)
			return err == nil && out == "Hello from NYC"
		}) {
			t.Errorf("after it has joined again: %s", last)
		}
	})
}
