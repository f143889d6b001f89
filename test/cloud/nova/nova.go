// Package nova is a fake of the part of OpenStack's Nova that attaches volumes to servers, in
// front of a real Cinder and a real Keystone: there is no hypervisor where the tests run. A volume
// that it attaches appears on the server's simulated machine ([machine.Machine]), with the file or
// the image of Ceph that Cinder's connection_info names behind it.
//
// It keeps to what Nova does: each request has a token, which Keystone is asked about, and servers
// are seen in their own project alone. A volume is reserved at Cinder before the request is
// answered, and connected afterwards, as a server's compute host does: attachment, connector,
// device, complete. Cinder is told by the user's token and by that of a service, without which it
// refuses to take an attachment from a server (CVE-2023-2088). The name of the device that is
// answered is the one Nova would have asked for, and not the one that the machine has. A disk that
// a server lets go goes at once, mounted or not. Cinder's event that a volume was extended reaches
// the device.
//
// Not there: quotas, cells, locked servers, and all other requests.
package nova

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/test/cloud/ceph"
	"github.com/remora-plugins/remora/test/cloud/machine"
	"github.com/remora-plugins/remora/test/cloud/openstack"
)

// Nova is the service. Its methods may be called at the same time.
type Nova struct {
	// Delay is how long a machine takes to plug a disk in, or out.
	Delay time.Duration

	cloud *openstack.Cloud
	ceph  *ceph.Cluster
	dir   string
	http  *httptest.Server

	mu      sync.Mutex
	servers map[string]*Server
	tokens  map[string]string // the project of each that was seen
	service string            // the token of the service
	busy    sync.WaitGroup
	seed    uint64
	seen    map[string]int // requests, by method and what they are about
}

// Server is a virtual machine.
type Server struct {
	ID, Project string
	Machine     *machine.Machine

	nova    *Nova
	dir     string
	status  string
	task    string
	volumes map[string]*volume
}

// volume is one that a server has, or is about to.
type volume struct {
	attachment string
	disk       string // what the machine calls it, empty while it is not plugged in
	fuse       *ceph.Mount
	leaving    bool
}

// New starts the service, and puts it into the catalogue of the cloud. cluster may be nil.
func New(ctx context.Context, cloud *openstack.Cloud, cluster *ceph.Cluster, dir string) (*Nova, error) {
	n := &Nova{cloud: cloud, ceph: cluster, dir: dir, servers: map[string]*Server{}, tokens: map[string]string{}, seen: map[string]int{}}
	n.http = httptest.NewUnstartedServer(n)
	n.http.Config.SetKeepAlivesEnabled(false) // Cinder would keep its own, which tests that look for leaks would find
	n.http.Start()
	var err error
	if n.service, err = cloud.AddCompute(ctx, n.http.URL+"/v2.1"); err != nil {
		n.http.Close()
		return nil, err
	}
	return n, nil
}

// Close ends the service.
func (n *Nova) Close() {
	n.http.Close()
	n.busy.Wait()
}

// Server starts one in a project, until the end of the test.
func (n *Nova) Server(t testing.TB, project string) *Server {
	t.Helper()
	n.mu.Lock()
	n.seed++
	seed := n.seed
	n.mu.Unlock()
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := &Server{
		ID:      fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]),
		Project: project, nova: n, status: "ACTIVE", volumes: map[string]*volume{},
	}
	s.dir = filepath.Join(n.dir, s.ID)
	var err error
	if s.Machine, err = machine.NewSeed(s.dir, seed); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	n.servers[s.ID] = s
	n.mu.Unlock()
	t.Cleanup(func() {
		n.busy.Wait()
		for end := time.Now().Add(5 * time.Second); s.mounted() && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
		}
		if err := s.Machine.Close(); err != nil {
			t.Error(err)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, v := range s.volumes {
			if v.fuse != nil {
				v.fuse.Close()
			}
		}
		delete(n.servers, s.ID) // else Cinder believes that it has its volumes
	})
	return s
}

func (s *Server) mounted() bool {
	return slices.ContainsFunc(s.Machine.Names(), s.Machine.Busy)
}

// Stop turns the server off at once. It keeps its volumes, as Nova has it.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.nova.mu.Lock()
	defer s.nova.mu.Unlock()
	s.status = "SHUTOFF"
	for _, v := range s.volumes {
		if err := s.unplug(v); err != nil {
			t.Error(err)
		}
	}
}

// Forget has Nova not know the server any more, as when its database was lost: Cinder still
// believes in its attachments.
func (s *Server) Forget() {
	s.nova.mu.Lock()
	defer s.nova.mu.Unlock()
	delete(s.nova.servers, s.ID)
}

// SetState sets the status of the server and what it is busy with, such as "powering-on".
func (s *Server) SetState(status, task string) {
	s.nova.mu.Lock()
	defer s.nova.mu.Unlock()
	s.status, s.task = status, task
}

// Metadata is the service at 169.254.169.254, as this server sees it.
func (s *Server) Metadata() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /openstack/latest/meta_data.json", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, object{"uuid": s.ID, "availability_zone": "nova-1", "name": "test", "project_id": s.Project})
	})
	return mux
}

// Requests returns how many there were of each kind, and counts anew.
func (n *Nova) Requests() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	seen := n.seen
	n.seen = map[string]int{}
	return seen
}
