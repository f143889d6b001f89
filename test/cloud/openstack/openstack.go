// Package openstack starts a real Keystone and a real Cinder for tests, with what they need: a
// RabbitMQ, databases in files, and a back end or two whose volumes have data.
//
//	func TestMain(m *testing.M) { os.Exit(openstack.Main(m)) }
//
//	func TestX(t *testing.T) {
//		cloud := openstack.Shared(t)
//		yaml := cloud.CloudsYAML(openstack.Region) // of a user who is a plain member of a project
//	}
//
// The volume type "files" has the volumes of Cinder's NFS driver, on a directory that is mounted
// where the driver expects its share: each volume is the raw file [Cloud.File]. The type "ceph"
// is there where the cloud was started with a cluster. There is no Nova (for a fake see package nova): a volume is attached by
// Cinder's own API of attachments.
//
// The services are reached in two regions: in [Region] by HTTP, and in [RegionTLS] by HTTPS with
// a certificate of [Cloud.CA]. All of a cloud lies in its directory, and listens on an address of
// loopback of its own, but for the port mapper of Erlang, which has a free port of 127.0.0.1.
package openstack

import (
	"context"
	"crypto/md5" //nolint:gosec // names a directory, as Cinder does
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/remora-plugins/remora/test/cloud/ceph"
	"github.com/remora-plugins/remora/test/cloud/process"
)

const (
	// Region and RegionTLS are the two regions of the catalogue.
	Region, RegionTLS = "RegionOne", "RegionTLS"
	// Project is the project of User.
	Project, User = "remora", "remora"
	// Domain is that of all projects and users.
	Domain = "Default"
	// Zone is the availability zone of all volumes.
	Zone = "zone-1"

	admin = "admin" // the user, and the project
)

// Options say how a cloud is started.
type Options struct {
	// Ceph is the cluster of the volume type "ceph"; nil for none.
	Ceph *ceph.Cluster
}

// Cloud is a running cloud.
type Cloud struct {
	Dir string // of all its files
	// AuthURL is Keystone's, and AuthURLTLS the same by HTTPS.
	AuthURL, AuthURLTLS string
	// CA is the file with the certificate to trust.
	CA string
	// Password is that of User, and of the administrator.
	Password string

	opts    Options
	address *process.Address
	servers []*process.Process
	front   *front
	mu      sync.Mutex // of servers and kept
	kept    *session
}

// Start starts a cloud in an empty directory.
func Start(ctx context.Context, dir string, opts Options) (*Cloud, error) {
	address, err := process.NewAddress()
	if err != nil {
		return nil, err
	}
	c := &Cloud{
		Dir: dir, opts: opts, address: address, Password: `s3cr"et`, CA: filepath.Join(dir, "ca.pem"),
		AuthURL: "http://" + address.At(5000) + "/v3", AuthURLTLS: "https://" + address.At(5443) + "/v3",
	}
	if err := c.start(ctx); err != nil {
		c.Stop()
		return nil, fmt.Errorf("start openstack: %w", err)
	}
	return c, nil
}

func (c *Cloud) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("the cloud is not up after 5 minutes"))
	defer cancel()
	for _, dir := range []string{"rabbit", "keys/f", "keys/c", "lock", "files", "mnt/" + shareHash()} {
		if err := os.MkdirAll(c.path(dir), 0o700); err != nil {
			return err
		}
	}
	if err := c.write("keystone.conf", c.keystoneConf()); err != nil {
		return err
	}
	if err := c.write("cinder.conf", c.cinderConf()); err != nil {
		return err
	}
	front, err := startFront(c)
	if err != nil {
		return err
	}
	c.front = front
	if err := together(
		func() error { return c.startKeystone(ctx) },
		func() error {
			if err := together(
				func() error { return c.startRabbit(ctx) },
				func() error { return c.makeCinderDB(ctx) },
			); err != nil {
				return err
			}
			return c.startCinder()
		},
	); err != nil {
		return err
	}
	return c.finishCinder(ctx)
}

// together runs all and returns what failed.
func together(all ...func() error) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, f := range all {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Stop ends the cloud at once. Its directory stays.
func (c *Cloud) Stop() {
	if c.front != nil {
		c.front.close()
	}
	for _, p := range c.servers {
		p.Kill()
	}
	c.servers = nil
	c.address.Release()
}

// File is the file of a volume of the type "files" that has no snapshot.
func (c *Cloud) File(volumeID string) string { return c.path("files/volume-" + volumeID) }

func (c *Cloud) path(name string) string { return filepath.Join(c.Dir, name) }

func (c *Cloud) write(name, text string) error {
	return os.WriteFile(c.path(name), []byte(text), 0o600)
}

// share is what the NFS driver believes to mount.
const share = "127.0.0.1:/files"

// shareHash is the directory below its mount points that the driver has for it.
func shareHash() string {
	sum := md5.Sum([]byte(share)) //nolint:gosec // as Cinder does
	return hex.EncodeToString(sum[:])
}

// CloudsYAML is a clouds.yaml with the cloud "test", for [User] in a region.
func (c *Cloud) CloudsYAML(region string) string {
	auth, ca := c.AuthURL, ""
	if region == RegionTLS {
		auth, ca = c.AuthURLTLS, "    cacert: "+c.CA+"\n"
	}
	return fmt.Sprintf(`clouds:
  test:
    auth:
      auth_url: %s
      username: %s
      password: %q
      project_name: %s
      user_domain_name: %s
      project_domain_name: %s
    region_name: %s
%s`, auth, User, c.Password, Project, Domain, Domain, region, ca)
}
