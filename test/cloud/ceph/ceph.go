// Package ceph starts real Ceph clusters of one node for tests: a monitor, a manager and a
// store of objects on 127.x.y.z, with a pool of images and a client that may use nothing else.
//
//	func TestMain(m *testing.M) { os.Exit(ceph.Main(m)) }
//
//	func TestX(t *testing.T) {
//		cluster := ceph.Shared(t) // starts with the first test that wants it: 7 s, 300 MB
//		cluster.Must(t, "rbd", "create", "x", "--size", "64M")
//	}
//
// All of a cluster lies in its directory. Each has an address of loopback of its own, so that
// any number may run on one machine, and a server that listens on all addresses disturbs none.
//
// Few machines of tests have rbd or nbd in their kernel. There the way to the data is rbd-fuse,
// which shows the images of a pool as files, and a loop device on such a file; [Fuse] mounts
// one. What the drivers rely on of all this is in ../README.md, and in this package's tests.
package ceph

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/process"
)

const (
	// Pool is the pool of images that every cluster has.
	Pool = "rbd"
	// User is the client that may use the pool and nothing else, without its "client.".
	User = "remora"
)

// Cluster is a running cluster.
type Cluster struct {
	Dir    string // of all its files
	Config string // ceph.conf; it names the keyrings of User and of admin
	FSID   string
	// Monitors is what "mon host" says.
	Monitors string
	// Keyring is the file with the key of User.
	Keyring string

	store   string
	address *process.Address
	daemons []*process.Process
}

// Start starts a cluster in an empty directory.
func Start(ctx context.Context, dir string) (*Cluster, error) { return start(ctx, dir, "memstore") }

func start(ctx context.Context, dir, store string) (*Cluster, error) {
	address, err := process.NewAddress()
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		Dir: dir, FSID: newUUID(), store: store, address: address,
		Monitors: fmt.Sprintf("[v2:%s:3300,v1:%s:6789]", address.IP, address.IP),
	}
	c.Config = c.path("ceph.conf")
	c.Keyring = c.path("client." + User + ".keyring")
	if err := c.start(ctx); err != nil {
		c.Stop()
		return nil, fmt.Errorf("start ceph: %w", err)
	}
	return c, nil
}

// startLimit is for a busy machine, or a virtual one without KVM.
const startLimit = 5 * time.Minute

func (c *Cluster) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("the cluster is not up after %s", startLimit))
	defer cancel()
	if err := c.prepare(ctx); err != nil {
		return err
	}
	if err := c.daemon("ceph-mon", "a"); err != nil {
		return err
	}
	disk := newUUID()
	made := make(chan error, 1)
	go func() { made <- c.run(ctx, "ceph-osd", "--conf", c.Config, "-i", "0", "--mkfs", "--osd-uuid", disk) }()
	// Each command starts a Python; one that waits for the monitor can do so from the start.
	if err := c.admin(ctx, "osd", "new", disk, "0"); err != nil {
		return errors.Join(err, <-made)
	}
	if err := <-made; err != nil {
		return err
	}
	if os.Getenv(testenv.InVM) == "" { // where it would be half of the work, and images need none
		if err := c.daemon("ceph-mgr", "x"); err != nil {
			return err
		}
	}
	if err := c.daemon("ceph-osd", "0"); err != nil {
		return err
	}
	if err := c.admin(ctx, "osd", "pool", "create", Pool, "8"); err != nil {
		return err
	}
	// It writes an object, and so ends when the store is up.
	return c.run(ctx, "rbd", "--conf", c.Config, "pool", "init", Pool)
}

func (c *Cluster) daemon(program, id string) error {
	cmd := exec.Command(program, "--conf", c.Config, "-f", "-i", id)
	p, err := process.Start(program, c.path(program+".out"), cmd)
	if err == nil {
		c.daemons = append(c.daemons, p)
	}
	return err
}

func (c *Cluster) run(ctx context.Context, name string, args ...string) error {
	_, err := process.Run(ctx, nil, name, args...)
	return err
}

func (c *Cluster) admin(ctx context.Context, args ...string) error {
	_, err := c.Admin(ctx, args...)
	return err
}

// Stop ends the cluster at once. Its directory stays.
func (c *Cluster) Stop() {
	for _, p := range c.daemons {
		p.Kill()
	}
	c.daemons = nil
	c.address.Release()
}

// Run runs rbd or ceph as [User] and returns what it printed.
func (c *Cluster) Run(ctx context.Context, program string, args ...string) (string, error) {
	return process.Run(ctx, c.Env(), program, args...)
}

// Admin runs ceph as the one who may do all.
func (c *Cluster) Admin(ctx context.Context, args ...string) (string, error) {
	return process.Run(ctx, nil, "ceph", append([]string{"--conf", c.Config, "--connect-timeout", "60", "--id", "admin"}, args...)...)
}

// Env is the environment with which programs of Ceph are clients of this cluster.
func (c *Cluster) Env() []string {
	return []string{"CEPH_CONF=" + c.Config, "CEPH_ARGS=--id " + User}
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// makeDir makes a directory for a cluster. The path of a socket in it has 107 bytes at most,
// and that of a test's own directory may be longer.
func makeDir() (string, error) { return os.MkdirTemp("", "ceph-") }
