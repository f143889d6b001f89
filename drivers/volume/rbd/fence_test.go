package rbd

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/ceph"
)

// device returns the node of an image that a host has attached.
func (p *provider) device(t *testing.T, d block.Disk) string {
	t.Helper()
	a := p.attachment(d.ID)
	if a.Device != "" {
		return "/dev/" + a.Device
	}
	names, err := fuse{p}.loops(a)
	if err != nil || len(names) != 1 {
		t.Fatalf("devices %v, %v", names, err)
	}
	return "/dev/" + names[0]
}

func put(device, text string) error {
	cmd := exec.Command("dd", "of="+device, "bs=4096", "oflag=direct", "conv=notrunc,fsync", "status=none")
	cmd.Stdin = bytes.NewReader(append([]byte(text), make([]byte, 4096-len(text))...))
	return cmd.Run()
}

// TestFence: what a host that hung still has to write when its image was taken from it reaches
// nobody, and it sees that the image is gone.
func TestFence(t *testing.T) {
	c := newCloud(t, ceph.Shared(t))
	one, two := c.provider(t, nil), c.provider(t, func(c *config) { c.Host = "two" })
	d := one.mustCreate(t, spec(uuidA, "data"))
	attach := func(p *provider) string {
		t.Helper()
		if err := p.Attach(t.Context(), d, block.Host{ID: p.host}); err != nil {
			t.Fatal(err)
		}
		return p.device(t, d)
	}
	dev := attach(one)
	if err := put(dev, "one"); err != nil {
		t.Fatal(err)
	}
	if err := two.Attach(t.Context(), d, block.Host{ID: "two"}); !errors.Is(err, errdefs.ErrInUse) {
		t.Fatalf("while another has it: %v", err)
	}
	if err := two.Detach(t.Context(), d, "one", false); !errors.Is(err, errdefs.ErrInUse) {
		t.Fatalf("taken without force: %v", err)
	}
	pid := one.attachment(d.ID).PID
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	late := make(chan error, 1)
	go func() { late <- put(dev, "LOST") }()

	if err := two.Detach(t.Context(), d, "one", true); err != nil {
		t.Fatal(err)
	}
	if err := put(attach(two), "two"); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(pid, syscall.SIGCONT)
	shown := func() bool {
		name := filepath.Base(dev)
		return one.Match(d, block.Device{Name: name}) // which looks, as the core does each second
	}
	for end := time.Now().Add(time.Minute); shown(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the host that lost it does not see that")
		}
	}
	select {
	case err := <-late:
		if err == nil {
			t.Error("the host that lost it wrote")
		}
	case <-time.After(time.Minute):
		t.Error("the host that lost it waits for its write")
	}
	if err := two.Detach(t.Context(), d, "two", false); err != nil {
		t.Fatal(err)
	}
	// Its client is on the blocklist; the host has another one, and gets the image back.
	if err := one.Detach(t.Context(), d, "one", false); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(attach(one))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 4)
	if _, err := f.Read(got); err != nil || string(got) != "two\x00" {
		t.Errorf("the image has %q, %v", got, err)
	}
}
