package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestNetworkBesideNetworkd: a systemd-networkd that is to configure every interface leaves those of the network alone once it has the
// file that packages bring, and the doctor says so before.
func TestNetworkBesideNetworkd(t *testing.T) {
	t.Parallel()
	const networkd = "/lib/systemd/systemd-networkd"
	l := newLab(t, append([]testenv.Need{testenv.Nftables, testenv.Networkd}, engine...)...)
	h := l.Host(t, "h1")
	l.Switch(t).Wire(h)
	h.Write("/etc/remora/password", networkPassword+"\n")
	h.Remora("")
	h.DockerdWithNetworks()
	h.MustCli("network", "launch", "--password-file", "/etc/remora/password")
	if !within(20*time.Second, func() bool { return has(h, "remora") }) {
		t.Fatal("no network")
	}
	h.MustDocker("run", "-d", "--name", "web", "--net=remora", lab.ImageName, "sleep", "1000")
	all := func(address string) {
		h.Write("/run/systemd/network/50-all.network", "[Match]\nName=*\n\n[Network]\nAddress="+address+"/24\n")
		h.Must("chmod", "-R", "a+rX", "/run/systemd")
	}
	all("10.77.0.9")
	h.Must("sh", "-c", "mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp; chown -R systemd-network /run/systemd/netif")
	// With a /sys that it cannot write to it does not wait for udev.
	start := func() *lab.Process {
		return h.Start(nil, "unshare", "--mount", "sh", "-c", "mount -t sysfs -o ro sysfs /sys && exec "+networkd)
	}
	touched := func(address string) string {
		return h.Must("sh", "-c", "ip -o addr | grep -E ' (rm-|rmv)' | grep -F "+address+" || true")
	}
	p := start()
	if !within(10*time.Second, func() bool { return touched("10.77.0.9") != "" }) {
		t.Fatal("it is no such networkd: it configures nothing")
	}
	found, _ := h.Cli("doctor")
	want(t, found, "systemd-networkd runs, and is not told to leave Remora's interfaces alone", "printf '[Match]", "systemd-networkd manages rm-", "by /run/systemd/network/50-all.network")
	noErr(t, p.Stop(10*time.Second))

	file, err := os.ReadFile("../../packaging/network/05-remora.network")
	noErr(t, err)
	h.Write("/run/systemd/network/05-remora.network", string(file))
	all("10.77.0.10")
	p = start()
	if !within(10*time.Second, func() bool { // it is at work
		return strings.Contains(h.Must("ip", "-o", "addr", "show", "dev", "lo"), "10.77.0.10")
	}) {
		t.Fatal("it configures nothing")
	}
	time.Sleep(2 * time.Second)
	is(t, "what it did to ours", touched("10.77.0.10"), "")
	found, _ = h.Cli("doctor")
	want(t, found, "systemd-networkd leaves Remora's interfaces alone")
	if strings.Contains(found, "systemd-networkd manages rm") {
		t.Errorf("it manages some all the same:\n%s", found)
	}
	noErr(t, p.Stop(10*time.Second))
}
