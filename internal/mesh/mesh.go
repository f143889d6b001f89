// Package mesh is the data plane: it keeps the kernel such that containers of one network reach each other on
// whichever host they are, and nobody else.
//
// It is a loop. What the hosts tell each other and what this one has found out go into a plan (package plan); the
// plan is compared with the kernel (package kernel) and with the tunnel (package tunnel), and what differs is put right.
// That happens when something was told or found out, when somebody has changed the kernel, and every half minute.
// Packets never pass this process, so they notice neither its end nor its start.
package mesh

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/kernel"
	"github.com/remora-plugins/remora/internal/mesh/plan"
	"github.com/remora-plugins/remora/internal/mesh/probe"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Ports that are used where none were chosen. The first is the tunnel's.
const (
	TunnelPort = 6784
	VXLANPort  = 6785
)

// Records is what the hosts of the cluster tell each other.
type Records interface {
	Self() record.Host
	Records(kind string) []record.Record
	Watch(kinds ...string) (changed <-chan struct{}, stop func())
}

// Config is what a mesh needs.
type Config struct {
	Records Records
	// Blocks returns which host owns which addresses. It is asked again whenever a record changes.
	Blocks func() []plan.Block
	// Private is the key of this host's tunnel, whose public half stands in its member record; zero
	// where it encrypts nothing.
	Private tunnel.Key
	// Secret is the cluster's own, which every member has and nobody else.
	Secret []byte
	// Dir keeps which networks this host has; RunDir what is known of the paths, and the tunnel's
	// socket. Both must exist; the second is empty after a boot.
	Dir, RunDir string
	// TunnelPort and VXLANPort are those of all hosts; zero is the usual one.
	TunnelPort, VXLANPort uint16
	// Command starts [tunnel.Serve] where the kernel has no WireGuard.
	Command []string
	// FastPath has plain packets between neighbours pass this host without its firewall.
	FastPath bool
	// NoKernel makes the tunnel a process even where the kernel has WireGuard.
	NoKernel bool
	Log      *slog.Logger
}

// Mesh is the data plane of this host.
type Mesh struct {
	cfg    Config
	self   record.Host
	nudged chan struct{}

	mu       sync.Mutex // held while the kernel is changed
	networks networks
	paths    map[record.Host]learned
	tunnel   tunnel.Tunnel
	tried    map[tunnel.Key]tried
	last     plan.Plan
	bad      int // records that cannot be read
	err      error
	repairs  int
	applied  time.Time
	uplink   int

	peers  peers
	prober *probe.Prober
}

// How often the loop looks without being told, and how long after a look the next may be: the more it took, the
// later, so that fifty hosts that join at once do not keep a busy machine busy.
const (
	verifyEvery = 30 * time.Second
	restFor     = 100 * time.Millisecond
	restTimes   = 5
	restAtMost  = time.Second
)

// New opens a mesh and remembers what it had. Nothing is changed before [Mesh.Run].
func New(ctx context.Context, cfg Config) (*Mesh, error) {
	if cfg.TunnelPort == 0 {
		cfg.TunnelPort = TunnelPort
	}
	if cfg.VXLANPort == 0 {
		cfg.VXLANPort = VXLANPort
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mesh{cfg: cfg, self: cfg.Records.Self(), nudged: make(chan struct{}, 1), tried: map[tunnel.Key]tried{}}
	m.peers.byHost = map[record.Host]*peer{}
	if err := m.recall(); err != nil {
		return nil, err
	}
	p, err := probe.New(ctx)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrDenied, err)
	}
	m.prober = p
	return m, nil
}

// Nudge has the loop look soon.
func (m *Mesh) Nudge() {
	select {
	case m.nudged <- struct{}{}:
	default:
	}
}

// Run keeps the data plane until ctx ends, and leaves it as it is then: containers go on talking.
func (m *Mesh) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed, stop := m.cfg.Records.Watch(record.KindMember, record.KindLinks, record.KindNetwork, record.KindGrant, record.KindRemoval, record.KindSwarm, record.KindClaim)
	defer stop()
	wg.Go(func() { kernel.Watch(ctx, m.Nudge) })
	wg.Go(func() { m.observe(ctx) })
	verify := time.NewTicker(verifyEvery)
	defer verify.Stop()
	compare := true
	for {
		begun := time.Now()
		m.look(ctx, compare)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(max(restFor, restTimes*time.Since(begun)), restAtMost)):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.nudged:
			compare = true
		case <-changed:
			compare = false // most records of others change nothing here
		case <-verify.C:
			compare = true
		}
	}
}

// Close frees what the mesh holds in this process. The data plane stays.
func (m *Mesh) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.prober.Close()
	if m.tunnel != nil {
		err = errors.Join(err, m.tunnel.Close())
		m.tunnel = nil
	}
	return err
}

// Reset takes everything away: links with the tunnel's process, routes, rules, and what was remembered. Call it after
// Run has ended. Containers can no longer reach each other then.
func (m *Mesh) Reset(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tunnel != nil {
		_ = m.tunnel.Close()
		m.tunnel = nil
	}
	err := kernel.Remove(ctx)
	m.networks, m.paths, m.last = networks{}, nil, plan.Plan{}
	err = errors.Join(err, m.forget())
	if rerr := os.Remove(filepath.Join(m.cfg.RunDir, plan.Tunnel+".sock")); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}
