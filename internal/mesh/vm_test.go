package mesh_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/testenv"
)

// TestVMKernelWireGuard: where the kernel has WireGuard the tunnel is the kernel's, with everything that it is as a
// process: one host is one, one the other, and they understand each other.
func TestVMKernelWireGuard(t *testing.T) {
	testenv.Require(t, testenv.VM)
	for _, name := range []string{"wireguard", "vxlan", "bridge", "veth", "tun", "nf_tables", "nft_ct", "nft_masq", "nft_chain_nat"} {
		if out, err := exec.Command("modprobe", name).CombinedOutput(); err != nil {
			t.Fatalf("modprobe %s: %v\n%s", name, err, out)
		}
	}
	l := newLab(t)
	a, b, c := l.lan("a", "10.9.0.1/24"), l.lan("b", "10.9.0.2/24"), l.lan("c", "10.9.0.3/24")
	a.config.NoKernel, b.config.NoKernel = false, false
	l.tell([]record.Network{blue, red})
	l.start()
	a1, b1, c1, rb := a.box(blue), b.box(blue), c.box(blue), b.box(red)
	a1.reach(b1)
	a1.reach(c1)
	c1.reach(b1)
	if !l.secretly(a1, b1) || !l.secretly(a1, c1) {
		t.Error("what is encrypted was read on the way")
	}
	if a1.pings(rb.addrs[0], 2) {
		t.Error("networks reach each other")
	}
	if kind := a.status().Tunnel; kind != "kernel" {
		t.Errorf("the tunnel of a is the %s's", kind)
	}
	if kind := c.status().Tunnel; kind != "process" {
		t.Errorf("the tunnel of c is the %s's", kind)
	}
	if len(a.tunnels()) > 0 {
		t.Error("a has a tunnel of both kinds")
	}

	a.end()
	if !a1.pings(b1.addrs[0], 1) {
		t.Error("without a daemon packets are lost")
	}
	a.start()
	a.status()
	time.Sleep(time.Second)
	if s := a.status(); s.Repairs > 0 || len(s.Problems) > 0 {
		t.Errorf("%+v\n%s", s, a.stderr.Bytes())
	}
	l.in(a.ns, "ip link del rm-wg")
	a1.reach(b1)
	a.must(order{Verb: "reset"})
	if out := l.in(a.ns, "ip -o link"); strings.Contains(out, "rm-") {
		t.Errorf("after reset:\n%s", out)
	}
}
