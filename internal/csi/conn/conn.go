package conn

import (
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Config says where a driver is.
type Config struct {
	// Controller and Node are paths of unix sockets, with "unix://" in front or without. One that is empty is
	// the other one.
	Controller, Node string
	// Name is what the driver must call itself; empty takes any.
	Name string
	// Timeouts are by the name of an RPC, such as "CreateVolume"; [Timeout] has the others.
	Timeouts map[string]time.Duration
	// Quirks changes what is known of the driver: see [quirk.Parse].
	Quirks quirk.Set
	// Log is told of connections, and at the level of debug of each RPC; nil is nobody.
	Log *slog.Logger
	// Pool is whose requests these are in [Counts].
	Pool string
}

// Driver is a driver that is talked to. Its methods may be called at the same time.
type Driver struct {
	conf             Config
	log              *slog.Logger
	controller, node *socket // the same one for a driver of one process
	secrets          secrets
	counts           *counter

	reading chan struct{} // holds one token: who has it reads the facts
	of      [2]int64      // of which connections they are; with the token
	mu      sync.Mutex
	facts   *Facts // as they were read last
}

// CheckSocket says what is wrong with a path of a socket as it is written in a configuration.
func CheckSocket(path string) error {
	p := SocketPath(path)
	switch {
	case strings.Contains(p, "://"):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "endpoint %q: drivers are talked to over unix sockets alone", path),
			"give the path of the driver's socket, such as /run/csi/csi.sock")
	case !filepath.IsAbs(p):
		return errdefs.Errorf(errdefs.ErrInvalid, "endpoint %q: not an absolute path", path)
	case len(p) > maxSocketPath:
		return errdefs.Errorf(errdefs.ErrInvalid, "endpoint %q: %d bytes, and a unix socket's path may have %d", path, len(p), maxSocketPath)
	}
	return nil
}

// maxSocketPath is what sockaddr_un takes, without the zero at its end.
const maxSocketPath = 107

// SocketPath is the path of a socket: "unix:///a", "unix:/a" and "/a" are the same.
func SocketPath(endpoint string) string {
	for _, scheme := range []string{"unix://", "unix:"} {
		if path, ok := strings.CutPrefix(endpoint, scheme); ok {
			return path
		}
	}
	return endpoint
}

// Open returns the driver of a configuration at once. It connects when it is asked for something, and again
// after a loss.
func Open(conf Config) *Driver {
	d := &Driver{conf: conf, log: conf.Log, reading: make(chan struct{}, 1), counts: counterOf(conf.Pool)}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	controller, node := SocketPath(conf.Controller), SocketPath(conf.Node)
	if node == "" {
		node = controller
	}
	d.node = d.open(node)
	d.controller = d.node
	if controller != "" && controller != node {
		d.controller = d.open(controller)
	}
	return d
}

// Identity is the service of the node's socket.
func (d *Driver) Identity() csi.IdentityClient { return csi.NewIdentityClient(d.node) }

// Controller is the controller service.
func (d *Driver) Controller() csi.ControllerClient { return csi.NewControllerClient(d.controller) }

// Node is the node service.
func (d *Driver) Node() csi.NodeClient { return csi.NewNodeClient(d.node) }

// Group is the group controller service.
func (d *Driver) Group() csi.GroupControllerClient { return csi.NewGroupControllerClient(d.controller) }

// split reports whether the driver has a socket for its controller and one for its node.
func (d *Driver) split() bool { return d.controller != d.node }

// Close ends the connections. RPCs in flight fail.
func (d *Driver) Close() error {
	err := d.node.close()
	if d.split() {
		err = errdefs.Join(err, d.controller.close())
	}
	return err
}

// name is what errors call the driver: by the name that it gave, or that it must have, or by its socket.
func (d *Driver) name(s *socket) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := s.met.Load(); w != nil {
		return w.name
	}
	switch {
	case d.facts != nil:
		return d.facts.Name
	case d.conf.Name != "":
		return d.conf.Name
	}
	return s.path
}

// quirks are those that are known.
func (d *Driver) quirks() quirk.Set {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.facts != nil {
		return d.facts.Quirks
	}
	if w := d.node.met.Load(); w != nil {
		return quirk.For(w.name, w.version).With(d.conf.Quirks)
	}
	return quirk.Set{}.With(d.conf.Quirks)
}

// Last returns the facts as they were read last, and asks nobody.
func (d *Driver) Last() (Facts, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.facts == nil {
		return Facts{}, false
	}
	return *d.facts, true
}
