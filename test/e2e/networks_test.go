package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestNetworkMany makes networks in every way that there is, and has each reach from every host, and no other.
func TestNetworkMany(t *testing.T) { //nolint:tparallel // one after the other, on the same hosts
	t.Parallel()
	m := newMeshed(t)
	nyc, london, laptop := m.hosts[0], m.hosts[1], m.hosts[2]
	nyc.MustDocker("network", "create", "-d", "remora", "--subnet", "10.60.0.0/16", "red") // the engine gives out the addresses
	nyc.MustDocker("network", "create", "-d", "remora", "--ipam-driver", "remora", "green")
	nyc.MustDocker("network", "create", "-d", "remora", "--ipam-driver", "remora", "--ipam-opt", "net=blue", "blue")
	nyc.MustCli("network", "create", "--subnet", "10.70.0.0/24", "-o", "encrypted=false", "violet")
	nyc.MustCli("network", "create", "gray")
	all := []string{"red", "green", "blue", "violet", "gray"}
	for _, h := range m.hosts {
		if !within(20*time.Second, func() bool { return has(h, all...) }) {
			t.Fatalf("host %s has not all: %s\n%s", h.Name, networks(h), h.MustCli("network", "status"))
		}
	}
	for _, n := range all {
		nyc.MustDocker("run", "-d", "--name", "at-"+n, "--net", n, lab.ImageName, "sleep", "1000")
		for _, h := range m.hosts[1:] {
			args := append([]string{"run", "--rm", "--net", n}, dnsArgs(h)...)
			args = append(args, lab.ImageName, "ping", "-c", "1", "-W", "2", "at-"+n)
			last := ""
			if !within(10*time.Second, func() bool {
				out, err := h.Docker(args...)
				last = fmt.Sprint(out, err)
				return err == nil
			}) {
				t.Errorf("network %s from %s: %s\n%s", n, h.Name, last, h.MustCli("network", "status", "connections"))
			}
		}
	}
	at := nyc.MustDocker("inspect", "-f", "{{.NetworkSettings.Networks.blue.IPAddress}}", "at-blue")
	for _, h := range []*lab.Host{nyc, london} {
		if out, err := h.Docker("run", "--rm", "--net=green", lab.ImageName, "ping", "-c", "1", "-W", "2", at); err == nil {
			t.Errorf("host %s: a container reaches one in another network: %s", h.Name, out)
		}
	}

	t.Run("what an operator sees", func(t *testing.T) {
		want(t, nyc.MustCli("status"), "network: ready, 3 of 3 hosts reachable (", "networks 6, ", "tunnel WireGuard")
		found, _ := nyc.Cli("doctor") // it fails for what is no matter here
		want(t, found, "network: ready, 3 of 3 hosts", ":6783 answers", "remora network dns install")
		nyc.Must("nft", "add", "table", "ip", "strict")
		nyc.Must("nft", "add", "chain", "ip", "strict", "strictly", "{ type filter hook forward priority 0; policy drop; }")
		found, _ = nyc.Cli("doctor")
		want(t, found, `chain "strictly" of the nftables table "strict" drops what it forwards`)
		nyc.Must("nft", "delete", "table", "ip", "strict")
	})
	t.Run("ports are the engine's", func(t *testing.T) {
		nyc.MustDocker("run", "-d", "--name", "web", "-p", "8080:80", "--net=blue", lab.ImageName, "sh", "-c", "echo hello > /tmp/index.html; httpd -f -p 80 -h /tmp")
		if !within(10*time.Second, func() bool {
			out, err := nyc.Run("busybox", "wget", "-qO-", "http://"+m.address+":8080/")
			return err == nil && out == "hello"
		}) {
			t.Error("a published port does not answer")
		}
		nyc.MustDocker("rm", "-f", "web")
	})
	t.Run("wrong use", func(t *testing.T) {
		want(t, nyc.Fails("docker", "network", "create", "-d", "remora", "--ipam-driver", "remora", "-o", "encrypted=perhaps", "bad"), "perhaps")
		want(t, nyc.Fails("docker", "network", "create", "-d", "remora", "--ipam-driver", "remora", "-o", "colour=blue", "bad"), `unknown option "colour"`)
		want(t, nyc.Fails(m.remora, "network", "create", "--subnet", "10.99.0.0/16", "bad"), "this host has a route")
		want(t, london.Fails(m.remora, "network", "create", "blue"), "there is one")
		want(t, london.Fails(m.remora, "network", "rm", "blue"), `network "blue": in use by at-blue on nyc-host`, "disconnect")
		want(t, london.Fails(m.remora, "network", "rm", "pink"), `network "pink": the cluster has none`)
		want(t, london.Fails("docker", "network", "create", "-d", "remora", "--subnet", "10.60.0.0/16", "other"), "has it; add --ipam-driver remora")
		want(t, london.Fails(m.remora, "network", "connect", "nonsense:port"), "not HOST or HOST:PORT")
		want(t, london.Fails(m.remora, "network", "rmpeer", "--yes", "nobody"), "no member of the cluster")
		// An ID may well have the letters: the name is at the beginning.
		for line := range strings.Lines(nyc.MustCli("network", "status", "networks")) {
			if strings.HasPrefix(line, "bad ") {
				t.Errorf("what was refused is there: %s", line)
			}
		}
	})
	t.Run("attach and detach", func(t *testing.T) {
		london.MustDocker("run", "-d", "--name", "apart", "--net", "none", lab.ImageName, "sleep", "1000")
		want(t, london.Fails(m.remora, "network", "attach", "apart"), "none") // the engine's word
		london.MustDocker("rm", "-f", "apart")
		london.MustDocker("run", "-d", "--name", "loose", lab.ImageName, "sleep", "1000")
		got := london.MustCli("network", "attach", "loose", "--network", "blue")
		is(t, "its address", got, london.MustDocker("inspect", "-f", "{{.NetworkSettings.Networks.blue.IPAddress}}", "loose"))
		is(t, "attached twice", london.MustCli("network", "attach", "loose", "--network", "blue"), got)
		london.MustDocker("exec", "loose", "ping", "-c", "1", "-W", "2", at)
		want(t, london.Fails(m.remora, "network", "attach", "loose", at, "--network", "blue"), "on network \"blue\" already, as "+got, "detach it first")
		london.MustCli("network", "detach", "loose", "--network", "blue")
		london.MustCli("network", "detach", "loose", "--network", "blue")
		if out, err := london.Docker("exec", "loose", "ping", "-c", "1", "-W", "1", at); err == nil {
			t.Errorf("it reaches the network still: %s", out)
		}
		is(t, "the address of before", london.MustCli("network", "attach", "loose", got, "--network", "blue"), got)
		want(t, london.Fails(m.remora, "network", "attach", "loose", "--network", "pink"), "has none of that name")
		want(t, london.Fails(m.remora, "network", "attach", "nobody"), `container "nobody"`, "podman network connect")
		want(t, london.Fails(m.remora, "network", "attach", "loose", "192.0.2.1"), "192.0.2.1")
		london.MustDocker("rm", "-f", "loose")
	})
	t.Run("an engine gives up a network", func(t *testing.T) {
		london.MustDocker("network", "rm", "blue")
		time.Sleep(3 * time.Second)
		if has(london, "blue") {
			t.Fatal("what a person removed is there again")
		}
		again := []string{"network", "create", "-d", "remora", "--ipam-driver", "remora", "--ipam-opt", "net=blue"}
		want(t, london.Fails("docker", append(again, "blue")...), "this host has routes to it", "add --subnet")
		subnet := nyc.MustDocker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "blue")
		london.MustDocker(append(again, "--subnet", subnet, "blue")...)
		london.MustDocker("run", "--rm", "--net=blue", lab.ImageName, "ping", "-c", "1", "-W", "2", at)
	})
	t.Run("all do", func(t *testing.T) {
		want(t, laptop.Fails(m.remora, "network", "rm", "green"), "in use by at-green on nyc-host")
		nyc.MustDocker("rm", "-f", "at-green")
		laptop.MustCli("network", "rm", "green") // which did not make it
		if !within(10*time.Second, func() bool { return !has(nyc, "green") && !has(london, "green") && !has(laptop, "green") }) {
			t.Errorf("%s; %s; %s", networks(nyc), networks(london), networks(laptop))
		}
		if !within(10*time.Second, func() bool { return !strings.Contains(london.MustCli("network", "status", "networks"), "green") }) {
			t.Errorf("it is not forgotten:\n%s", london.MustCli("network", "status", "networks"))
		}
	})
	t.Run("a host is gone for good", func(t *testing.T) {
		laptop.MustCli("network", "create", "amber")
		if !within(10*time.Second, func() bool { return has(nyc, "amber") && has(london, "amber") && has(laptop, "amber") }) {
			t.Fatal("a network does not come")
		}
		m.daemons[2].Kill()
		if !within(15*time.Second, func() bool { return strings.Contains(nyc.MustCli("network", "status"), "1 unreachable") }) {
			t.Fatal("its end is not noticed")
		}
		want(t, nyc.MustCli("network", "rmpeer", "--yes", "laptop"), "addresses taken over")
		if !within(10*time.Second, func() bool { return !strings.Contains(london.MustCli("network", "status", "peers"), "laptop") }) {
			t.Error("the others still have it")
		}
		london.MustCli("network", "rm", "amber") // made by the host that is gone
		if !within(20*time.Second, func() bool {
			return !has(nyc, "amber") && !has(london, "amber") && !strings.Contains(nyc.MustCli("network", "status", "networks"), "amber")
		}) {
			t.Errorf("a network outlives its removal:\n%s", nyc.MustCli("network", "status", "networks"))
		}
		// It comes back, is told, loses nothing by a wrong step, and joins as a new one.
		m.daemons[2] = laptop.Remora("")
		if !within(15*time.Second, func() bool {
			return strings.Contains(laptop.MustCli("network", "status"), "this host was removed from the cluster")
		}) {
			t.Errorf("it is not told:\n%s", laptop.MustCli("network", "status"))
		}
		want(t, laptop.Fails(m.remora, "network", "reset", "--yes"), "no peer is reachable", "--force")
		if !has(laptop, "remora", "blue") {
			t.Error("a reset that was refused has removed networks")
		}
		laptop.MustCli("network", "reset", "--yes", "--force")
		laptop.MustCli("network", "launch", "--password-file", "/etc/remora/password", m.address)
		m.whole(t)
		if !within(15*time.Second, func() bool {
			_, err := laptop.Docker("run", "--rm", "--net=blue", lab.ImageName, "ping", "-c", "1", "-W", "2", at)
			return err == nil
		}) {
			t.Errorf("it is not back:\n%s", laptop.MustCli("network", "status"))
		}
		is(t, "networks amber on the host that made it", has(laptop, "amber"), false)
	})
}

// networks are the names of a host's networks in its engine.
func networks(h *lab.Host) string {
	out, err := h.Docker("network", "ls", "--format", "{{.Name}}")
	return fmt.Sprint(out, err)
}

// has tells whether a host's engine has networks.
func has(h *lab.Host, names ...string) bool {
	there := strings.Fields(strings.TrimSuffix(networks(h), "<nil>"))
	return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(there, n) })
}
