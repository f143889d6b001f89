package server

import (
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
)

// inNamespace tells this program, when the test starts it again, that it is in a network of its own.
const inNamespace = "REMORA_TEST_NAMES_NETNS"

// TestBridges makes two bridges in a network namespace: one with veths alone, one that leads out.
func TestBridges(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns)
	if os.Getenv(inNamespace) == "" {
		cmd := exec.Command("unshare", "--net", os.Args[0], "-test.run=^TestBridges$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	ip := func(script string) {
		t.Helper()
		if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
	}
	ip(`ip link add inner type bridge; ip addr add 172.18.0.1/16 dev inner; ip -6 addr add fd00:18::1/64 dev inner nodad; ip link set inner up
	    ip link add v0 type veth peer name v1; ip link set v0 master inner
	    ip link add outer type bridge; ip addr add 192.168.7.1/24 dev outer; ip link set outer up
	    ip link add lower type veth peer name upper; ip link add link lower name card type macvlan; ip link set card master outer`)
	var b Bridges
	check := func(addr string, want bool) {
		t.Helper()
		if got := b.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is behind a bridge of ours: %t", addr, got)
		}
	}
	check("172.18.3.4", true)
	check("fd00:18::7", true)
	check("192.168.7.9", false)
	check("8.8.8.8", false)
	check("172.19.0.2", false)
	ip("ip link add later type bridge; ip addr add 172.19.0.1/16 dev later")
	time.Sleep(readAgain)
	check("172.19.0.2", true)
	ip("ip link del inner")
	b.read.Store(time.Now().Add(-readOld).UnixNano())
	check("172.18.3.4", false)
	check("172.19.0.2", true)
}
