// Package gce is a fake of Google's persistent disks: an HTTP server with the calls of
// compute.googleapis.com that have to do with disks, the end point for tokens, and the
// metadata server of an instance, for tests that have no account. What it knows, and what
// it does not, is in README.md one folder up.
//
// Its disks are sparse files, shown to the [machine.Machine] of the instance that a disk
// is attached to, so that data is really written.
package gce

import (
	"cmp"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/test/cloud/fake"
)

// Config is how a cloud behaves. The zero value of a field is its default.
type Config struct {
	// Dir is where the files of disks and snapshots lie.
	Dir string
	// Clock is [fake.System] by default.
	Clock fake.Clock
	// Project is the only one there is, by default fake-project.
	Project string
	// Zones are those that there are, by default us-central1-a, us-central1-b, europe-west1-b.
	Zones []string
	// NoAuth lets in everyone.
	NoAuth bool

	// How long operations take: for the first quarter they are PENDING.
	Create, Attach, Detach, Resize, Snapshot, Other time.Duration
	// Wait is how long a call to wait waits at most, in real time, by default 2 minutes.
	Wait time.Duration
	// DeviceLag is how long after an attach an instance sees its device.
	DeviceLag time.Duration
	// ListLag is how late lists are. A get is never late.
	ListLag time.Duration
	// Gone is how long a deleted instance keeps its disks.
	Gone time.Duration
	// BusyFails lets the detach of a mounted disk end in an error. Without it the device
	// is pulled from under the instance.
	BusyFails bool
	// LateErrors tells that a disk is in use by the operation and not at once. The real
	// one was seen to do both.
	LateErrors bool

	// PerInstance is how many disks an instance can have beside its first, by default 127.
	PerInstance int
	// QuotaGB is how much a region may hold; 0 is no limit.
	QuotaGB int64
	// Reads and Writes are how many calls of each sort there may be in a minute, by
	// default 1500; below 0 is no limit.
	Reads, Writes int
}

// Cloud is the fake.
type Cloud struct {
	// Calls has the counters by kind of call, and takes faults.
	Calls fake.Calls

	cfg   Config
	clock fake.Clock
	files fake.Files

	mu            sync.Mutex
	disks         map[string]*disk     // by zone/name
	snapshots     map[string]*snapshot // by name
	instances     map[string]*instance // by zone/name
	operations    map[string]*operation
	requests      map[string]*operation // by request id
	unreachable   map[string]bool       // zones
	accounts      map[string]*account   // by e-mail
	tokens        map[string]grant
	lastID        uint64
	reads, writes fake.Window
	// What lists show.
	diskList     fake.Lagged[diskJSON]
	snapshotList fake.Lagged[snapshotJSON]
}

// New makes an empty cloud.
func New(cfg Config) *Cloud {
	cfg.Clock = cmp.Or[fake.Clock](cfg.Clock, fake.System{})
	cfg.Project = cmp.Or(cfg.Project, "fake-project")
	if cfg.Zones == nil {
		cfg.Zones = []string{"us-central1-a", "us-central1-b", "europe-west1-b"}
	}
	cfg.Wait = cmp.Or(cfg.Wait, 2*time.Minute)
	cfg.PerInstance = cmp.Or(cfg.PerInstance, 127)
	minute := func(limit int) fake.Window {
		return fake.Window{Limit: max(cmp.Or(limit, 1500), 0), Per: time.Minute}
	}
	return &Cloud{
		cfg: cfg, clock: cfg.Clock, files: fake.Files(cfg.Dir),
		disks: map[string]*disk{}, snapshots: map[string]*snapshot{}, instances: map[string]*instance{},
		operations: map[string]*operation{}, requests: map[string]*operation{}, unreachable: map[string]bool{},
		accounts: map[string]*account{}, tokens: map[string]grant{},
		lastID: 1000000000000000000, reads: minute(cfg.Reads), writes: minute(cfg.Writes),
	}
}

// call makes a call under the lock and returns its answer.
type call func(*http.Request) (any, error)

// Handler is the API, below / and /compute/v1/, and the end point for tokens at /token.
func (c *Cloud) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range []struct {
		pattern, kind string
		call          call
	}{
		{"GET /zones", "zones.list", c.listZones},
		{"GET /zones/{zone}", "zones.get", c.getZone},
		{"GET /regions", "regions.list", c.listRegions},
		{"GET /regions/{region}", "regions.get", c.getRegion},
		{"GET /zones/{zone}/diskTypes", "diskTypes.list", c.listDiskTypes},
		{"GET /zones/{zone}/diskTypes/{type}", "diskTypes.get", c.getDiskType},

		{"POST /zones/{zone}/disks", "disks.insert", c.insertDisk},
		{"GET /zones/{zone}/disks", "disks.list", c.listDisks},
		{"GET /aggregated/disks", "disks.aggregatedList", c.aggregateDisks},
		{"GET /zones/{zone}/disks/{name}", "disks.get", c.getDisk},
		{"DELETE /zones/{zone}/disks/{name}", "disks.delete", c.deleteDisk},
		{"POST /zones/{zone}/disks/{name}/resize", "disks.resize", c.resizeDisk},
		{"POST /zones/{zone}/disks/{name}/setLabels", "disks.setLabels", c.setDiskLabels},
		{"POST /zones/{zone}/disks/{name}/createSnapshot", "disks.createSnapshot", c.createSnapshot},

		{"POST /global/snapshots", "snapshots.insert", c.insertSnapshot},
		{"GET /global/snapshots", "snapshots.list", c.listSnapshots},
		{"GET /global/snapshots/{name}", "snapshots.get", c.getSnapshot},
		{"DELETE /global/snapshots/{name}", "snapshots.delete", c.deleteSnapshot},
		{"POST /global/snapshots/{name}/setLabels", "snapshots.setLabels", c.setSnapshotLabels},

		{"GET /zones/{zone}/instances", "instances.list", c.listInstances},
		{"GET /zones/{zone}/instances/{name}", "instances.get", c.getInstance},
		{"POST /zones/{zone}/instances/{name}/attachDisk", "instances.attachDisk", c.attachDisk},
		{"POST /zones/{zone}/instances/{name}/detachDisk", "instances.detachDisk", c.detachDisk},
		{"POST /zones/{zone}/instances/{name}/stop", "instances.stop", c.stopInstance},
		{"POST /zones/{zone}/instances/{name}/start", "instances.start", c.startInstance},
		{"DELETE /zones/{zone}/instances/{name}", "instances.delete", c.deleteInstance},

		{"GET /zones/{zone}/operations", "operations.list", c.listOperations},
		{"GET /zones/{zone}/operations/{name}", "operations.get", c.getOperation},
		{"POST /zones/{zone}/operations/{name}/wait", "operations.wait", c.getOperation},
		{"GET /global/operations", "operations.list", c.listOperations},
		{"GET /global/operations/{name}", "operations.get", c.getOperation},
		{"POST /global/operations/{name}/wait", "operations.wait", c.getOperation},
	} {
		method, path, _ := strings.Cut(route.pattern, " ")
		mux.HandleFunc(method+" /projects/{project}"+path, func(w http.ResponseWriter, r *http.Request) {
			c.serve(w, r, route.kind, route.call)
		})
	}
	mux.HandleFunc("POST /token", c.token)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.serve(w, r, "other", func(r *http.Request) (any, error) {
			return nil, notFound("The requested URL " + r.URL.Path + " was not found on this server.")
		})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.StripPrefix(prefixOf(r.URL.Path), mux).ServeHTTP(w, r)
	})
}

func prefixOf(path string) string {
	if strings.HasPrefix(path, "/compute/v1/") {
		return "/compute/v1"
	}
	return ""
}

// serve admits a call, makes it under the lock and writes its answer.
func (c *Cloud) serve(w http.ResponseWriter, r *http.Request, kind string, do call) {
	style := fake.Style{
		Fail: func(w http.ResponseWriter, _ *http.Request) {
			writeError(w, &problem{http.StatusServiceUnavailable, "backendError", "Backend Error"})
		},
		Throttle: func(w http.ResponseWriter, _ *http.Request) { writeError(w, rateLimitExceeded()) },
	}
	c.Calls.Serve(w, r, kind, style, func(w http.ResponseWriter, r *http.Request) {
		write := r.Method != http.MethodGet && kind != "operations.wait"
		if err := c.admit(r, write); err != nil {
			if err.reason == "rateLimitExceeded" {
				fake.Throttled(w)
			}
			writeError(w, err)
			return
		}
		if kind == "operations.wait" {
			c.await(r)
		}
		c.mu.Lock()
		answer, err := c.once(r, write, do)
		c.mu.Unlock()
		if err != nil {
			writeError(w, err)
			return
		}
		fake.JSON(w, http.StatusOK, answer)
	})
}

// admit checks who calls, what about, and how often.
func (c *Cloud) admit(r *http.Request, write bool) *problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.authorized(r, write); err != nil {
		return err
	}
	window := &c.reads
	if write {
		window = &c.writes
	}
	if !window.Take(c.clock.Now()) {
		return rateLimitExceeded()
	}
	zone, region := r.PathValue("zone"), r.PathValue("region")
	switch {
	case r.PathValue("project") != "" && r.PathValue("project") != c.cfg.Project:
		return notFound("The resource 'projects/" + r.PathValue("project") + "' was not found")
	case zone != "" && !c.hasZone(zone):
		return invalid("zone", zone, "Unknown zone.")
	case region != "" && !c.hasRegion(region):
		return invalid("region", region, "Unknown region.")
	case c.unreachable[zone]:
		return &problem{http.StatusServiceUnavailable, "backendError", "Backend Error"}
	}
	return nil
}

// once makes a call, or answers with what the same request was answered before.
func (c *Cloud) once(r *http.Request, write bool, do call) (any, error) {
	id := r.URL.Query().Get("requestId")
	if id == "" || !write {
		return do(r)
	}
	if !uuid.MatchString(id) {
		return nil, invalid("requestId", id, "Must be a valid UUID.")
	}
	if op := c.requests[id]; op != nil {
		return c.operationJSON(op), nil
	}
	return do(r)
}

// Unreachable cuts a zone off, or joins it again.
func (c *Cloud) Unreachable(zone string, yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unreachable[zone] = yes
}

func (c *Cloud) newID() uint64 {
	c.lastID += 7919
	return c.lastID
}
