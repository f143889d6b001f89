package rbd

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/ceph"
)

// The tests of this file run in a virtual machine, whose kernel has rbd and nbd, and in which the
// cluster is as well.

// inKernel returns the cluster, once all of the kernel is there that a usual machine loads by itself.
func inKernel(t *testing.T) *ceph.Cluster {
	t.Helper()
	testenv.Require(t, testenv.VM)
	if out, err := exec.CommandContext(t.Context(), "modprobe", "-a", "xfs", "btrfs", "fuse").CombinedOutput(); err != nil {
		t.Fatalf("modprobe: %v: %s", err, out)
	}
	return ceph.Shared(t)
}

// kernelWays are the ways to a device that a test goes.
var kernelWays = []string{"krbd", "nbd"}

func (p *provider) mustAttach(t *testing.T, d block.Disk) string {
	t.Helper()
	if err := p.Attach(t.Context(), d, block.Host{ID: p.host}); err != nil {
		t.Fatal(err)
	}
	return p.device(t, d)
}

// gone waits until a host does not show an image any more, looking as the core does each second.
func (p *provider) gone(t *testing.T, d block.Disk, device string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); p.Match(d, block.Device{Name: strings.TrimPrefix(device, "/dev/")}); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is shown as the image that was taken away", device)
		}
	}
}

// TestVMOneOfTwo: of two images that the kernel of a host has, one is taken from it. What it writes to that one
// reaches nobody, and to the other it writes on.
func TestVMOneOfTwo(t *testing.T) {
	c := newCloud(t, inKernel(t))
	one, two := c.mapping(t, "krbd", "one"), c.mapping(t, "nbd", "two")
	taken, kept := one.mustCreate(t, spec(uuidA, "taken")), one.mustCreate(t, spec(uuidB, "kept"))
	devTaken, devKept := one.mustAttach(t, taken), one.mustAttach(t, kept)
	if err := two.Attach(t.Context(), taken, block.Host{ID: "two"}); !errors.Is(err, errdefs.ErrInUse) {
		t.Fatalf("while another has it: %v", err)
	}
	if err := put(devTaken, "one"); err != nil {
		t.Fatal(err)
	}
	if err := two.Detach(t.Context(), taken, "one", true); err != nil {
		t.Fatal(err)
	}
	dev := two.mustAttach(t, taken)
	if err := put(dev, "two"); err != nil {
		t.Fatal(err)
	}
	if err := put(devTaken, "LOST"); err == nil {
		t.Error("the host that lost it wrote")
	}
	one.gone(t, taken, devTaken)
	if err := put(devKept, "mine"); err != nil {
		t.Errorf("to the image that nobody took: %v", err)
	}
	if got := begin(t, dev); got != "two" {
		t.Errorf("the image has %q", got)
	}
	for p, d := range map[*provider]block.Disk{one: kept, two: taken} {
		if err := p.Detach(t.Context(), d, p.host, false); err != nil {
			t.Error(err)
		}
	}
	if err := one.Detach(t.Context(), taken, "one", false); err != nil {
		t.Error(err)
	}
	dev = one.mustAttach(t, taken) // by a client that is not on the blocklist
	if got := begin(t, dev); got != "two" {
		t.Errorf("the image has %q", got)
	}
}

// begin is the line at the beginning of a device.
func begin(t *testing.T, device string) string {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 64)
	if _, err := f.Read(b); err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(b), "\x00")
	return text
}

// TestVMAnotherWay: a daemon that is started again with another way to a device has what it had, and
// takes the new way for what it attaches from then on.
func TestVMAnotherWay(t *testing.T) {
	c := newCloud(t, inKernel(t))
	p := c.mapping(t, "fuse", "one")
	d := p.mustCreate(t, spec(uuidA, "data"))
	dev := p.mustAttach(t, d)
	if err := put(dev, "by fuse"); err != nil {
		t.Fatal(err)
	}
	again := p.reopened(t, "krbd")
	if !again.Match(d, block.Device{Name: strings.TrimPrefix(dev, "/dev/")}) {
		t.Fatal("what is attached is not known any more")
	}
	if err := again.Attach(t.Context(), d, block.Host{ID: "one"}); err != nil {
		t.Fatal(err)
	}
	if err := again.Detach(t.Context(), d, "one", false); err != nil {
		t.Fatal(err)
	}
	if dev = again.mustAttach(t, d); !strings.HasPrefix(dev, "/dev/rbd") {
		t.Errorf("attached as %s", dev)
	}
	if got := begin(t, dev); got != "by fuse" {
		t.Errorf("the image has %q", got)
	}
}

// reopened is a daemon started again.
func (p *provider) reopened(t *testing.T, way string) *provider {
	t.Helper()
	p.end()
	conf := *p.c
	conf.Map = way
	return start(t, conf, filepath.Dir(filepath.Dir(p.dir)))
}

// TestVMCutOff: a daemon that was killed while it mapped an image begins again, and leaves one device.
func TestVMCutOff(t *testing.T) {
	cluster := inKernel(t)
	for _, way := range kernelWays {
		t.Run(way, func(t *testing.T) {
			c := newCloud(t, cluster)
			p := c.mapping(t, way, "one")
			d := p.mustCreate(t, spec(uuidA, "data"))
			dev := p.mustAttach(t, d)
			a := p.attachment(d.ID)
			a.Device, a.Server, a.Locked = "", "", false // as it was written down before
			if err := p.save(a); err != nil {
				t.Fatal(err)
			}
			p = p.reopened(t, way)
			if err := put(p.mustAttach(t, d), "x"); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(c.Must(t, "rbd", "device", "list", "--device-type", way), d.Facts["image"]); n != 1 {
				t.Errorf("mapped %d times; it was %s", n, dev)
			}
		})
	}
}

// TestVMByHand: an image that a person has mapped is refused with the command that ends that, and
// stays mapped; and the name of a device that was unmapped by hand is not believed any more.
func TestVMByHand(t *testing.T) {
	cluster := inKernel(t)
	for _, way := range kernelWays {
		t.Run(way, func(t *testing.T) {
			c := newCloud(t, cluster)
			p := c.mapping(t, way, "one")
			d, other := p.mustCreate(t, spec(uuidA, "data")), p.mustCreate(t, spec(uuidB, "other"))
			options := []string{"--device-type", way}
			if way == "krbd" {
				options = append(options, "--options", "noudev")
			}
			rbd := func(verb, what string) string {
				t.Helper()
				return strings.TrimSpace(c.Must(t, "rbd", append([]string{"device", verb, what}, options...)...))
			}
			dev := rbd("map", p.spec(d.Facts["image"]))
			for range 2 {
				err := p.Attach(t.Context(), d, block.Host{ID: "one"})
				if !errors.Is(err, errdefs.ErrInUse) || !strings.Contains(err.Error(), dev) || !strings.Contains(strings.Join(errdefs.Hints(err), " "), "rbd device unmap") {
					t.Fatalf("mapped by hand: %v, %q", err, errdefs.Hints(err))
				}
			}
			if err := put(dev, "by hand"); err != nil {
				t.Fatal(err)
			}
			rbd("unmap", dev)
			dev = p.mustAttach(t, d)
			rbd("unmap", dev)
			if p.Match(d, block.Device{Name: strings.TrimPrefix(dev, "/dev/")}) {
				t.Error("unmapped by hand, and believed")
			}
			if again := rbd("map", p.spec(other.Facts["image"])); again != dev {
				t.Skipf("deviates: the name %s is not used again: %s", dev, again)
			}
			if p.Match(d, block.Device{Name: strings.TrimPrefix(dev, "/dev/")}) {
				t.Error("another image has the name, and is believed")
			}
			if err := p.Detach(t.Context(), d, "one", false); err != nil {
				t.Fatal(err)
			}
			if err := put(dev, "other"); err != nil {
				t.Errorf("the detach unmapped another image: %v", err)
			}
			rbd("unmap", dev)
		})
	}
}
