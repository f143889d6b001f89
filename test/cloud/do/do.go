// Package do is a fake of DigitalOcean's block storage: an HTTP server with the calls of
// api.digitalocean.com that have to do with volumes, for tests that have no account. What
// it knows, and what it does not, is in README.md one folder up.
//
// Its volumes are sparse files, shown to the [machine.Machine] of the droplet that a
// volume is attached to, so that data is really written.
package do

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/test/cloud/fake"
)

// Config is how a cloud behaves. The zero value of a field is its default.
type Config struct {
	// Dir is where the files of volumes and snapshots lie.
	Dir string
	// Clock is [fake.System] by default.
	Clock fake.Clock
	// Tokens are those that are known; true are those that may write.
	Tokens map[string]bool
	// Regions are the slugs of those that there are, by default nyc1, nyc3, fra1.
	Regions []string

	// How long actions take.
	Attach, Detach, Resize time.Duration
	// DeviceLag is how long after the end of the action a droplet sees its device.
	DeviceLag time.Duration
	// ListLag is how late lists are. A get is never late.
	ListLag time.Duration
	// Gone is how long a destroyed droplet keeps its volumes.
	Gone time.Duration
	// BusyFails lets the detach of a mounted volume end in an error. Without it, as the
	// real one is believed to do, the device is pulled from under the droplet.
	BusyFails bool

	// PerDroplet is how many volumes a droplet can have, by default 7.
	PerDroplet int
	// VolumeLimit is how many the account can have; 0 is no limit.
	VolumeLimit int
	// Hourly and Burst are how many calls a token has in an hour and in a minute, by
	// default 5,000 and 250; below 0 is no limit.
	Hourly, Burst int
}

// Cloud is the fake.
type Cloud struct {
	// Calls has the counters by kind of call, and takes faults.
	Calls fake.Calls

	cfg   Config
	clock fake.Clock
	files fake.Files

	mu         sync.Mutex
	volumes    map[string]*volume
	snapshots  map[string]*snapshot
	droplets   map[int]*droplet
	actions    map[int]*action
	tags       map[string]string // as first spelt, by lower case
	rates      map[string]*rate
	lastAction int
	// What lists show.
	volumeList   fake.Lagged[volumeJSON]
	snapshotList fake.Lagged[snapshotJSON]
}

// New makes an empty cloud.
func New(cfg Config) *Cloud {
	cfg.Clock = cmp.Or[fake.Clock](cfg.Clock, fake.System{})
	if cfg.Regions == nil {
		cfg.Regions = []string{"nyc1", "nyc3", "fra1"}
	}
	cfg.PerDroplet = cmp.Or(cfg.PerDroplet, 7)
	cfg.Hourly = cmp.Or(cfg.Hourly, 5000)
	cfg.Burst = cmp.Or(cfg.Burst, 250)
	return &Cloud{
		cfg: cfg, clock: cfg.Clock, files: fake.Files(cfg.Dir),
		volumes: map[string]*volume{}, snapshots: map[string]*snapshot{}, droplets: map[int]*droplet{},
		actions: map[int]*action{}, tags: map[string]string{}, rates: map[string]*rate{},
		lastAction: 72531855,
	}
}

// Handler is the API.
func (c *Cloud) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range []struct {
		pattern, kind string
		call          func(*http.Request) (int, any, error)
	}{
		{"GET /v2/account", "account.get", c.getAccount},
		{"GET /v2/regions", "regions.list", c.listRegions},
		{"GET /v2/droplets", "droplets.list", c.listDroplets},
		{"GET /v2/droplets/{id}", "droplets.get", c.getDroplet},
		{"DELETE /v2/droplets/{id}", "droplets.delete", c.deleteDroplet},

		{"POST /v2/volumes", "volumes.create", c.createVolume},
		{"GET /v2/volumes", "volumes.list", c.listVolumes},
		{"DELETE /v2/volumes", "volumes.delete", c.deleteVolumeByName},
		{"GET /v2/volumes/{id}", "volumes.get", c.getVolume},
		{"DELETE /v2/volumes/{id}", "volumes.delete", c.deleteVolume},
		{"GET /v2/volumes/{id}/actions", "actions.list", c.listActions},
		{"GET /v2/volumes/{id}/actions/{action}", "actions.get", c.getAction},
		{"GET /v2/actions/{action}", "actions.get", c.getAction},

		{"POST /v2/volumes/{id}/snapshots", "snapshots.create", c.createSnapshot},
		{"GET /v2/volumes/{id}/snapshots", "snapshots.list", c.listSnapshots},
		{"GET /v2/snapshots", "snapshots.list", c.listSnapshots},
		{"GET /v2/snapshots/{id}", "snapshots.get", c.getSnapshot},
		{"DELETE /v2/snapshots/{id}", "snapshots.delete", c.deleteSnapshot},

		{"POST /v2/tags", "tags.create", c.createTag},
		{"GET /v2/tags", "tags.list", c.listTags},
		{"GET /v2/tags/{name}", "tags.get", c.getTag},
		{"DELETE /v2/tags/{name}", "tags.delete", c.deleteTag},
		{"POST /v2/tags/{name}/resources", "tags.tag", c.tagResources},
		{"DELETE /v2/tags/{name}/resources", "tags.untag", c.untagResources},
	} {
		mux.HandleFunc(route.pattern, func(w http.ResponseWriter, r *http.Request) {
			c.serve(w, r, route.kind, route.call)
		})
	}
	// The kind of these calls is in their body.
	mux.HandleFunc("POST /v2/volumes/{id}/actions", c.postAction)
	mux.HandleFunc("POST /v2/volumes/actions", c.postAction)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.serve(w, r, "other", func(*http.Request) (int, any, error) {
			return 0, nil, notFound("The resource you were accessing could not be found.")
		})
	})
	return mux
}

// serve admits a call, makes it under the lock and writes its answer.
func (c *Cloud) serve(w http.ResponseWriter, r *http.Request, kind string, call func(*http.Request) (int, any, error)) {
	style := fake.Style{
		Fail: func(w http.ResponseWriter, _ *http.Request) {
			writeError(w, &problem{http.StatusInternalServerError, "server_error", "Server was unable to give you a response."})
		},
		Throttle: func(w http.ResponseWriter, _ *http.Request) { c.tooMany(w, 30*time.Second) },
	}
	c.Calls.Serve(w, r, kind, style, func(w http.ResponseWriter, r *http.Request) {
		if !c.admit(w, r) {
			return
		}
		c.mu.Lock()
		status, body, err := call(r)
		c.mu.Unlock()
		switch {
		case err != nil:
			writeError(w, err)
		case body == nil:
			w.WriteHeader(status)
		default:
			fake.JSON(w, status, body)
		}
	})
}

// rate is what one token has used.
type rate struct {
	hour, minute fake.Window
}

// admit checks the token and counts the call against its limits.
func (c *Cloud) admit(w http.ResponseWriter, r *http.Request) bool {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	write, known := c.cfg.Tokens[token]
	if !known {
		writeError(w, &problem{http.StatusUnauthorized, "Unauthorized", "Unable to authenticate you"})
		return false
	}
	c.mu.Lock()
	now := c.clock.Now()
	use := c.rates[token]
	if use == nil {
		use = &rate{
			hour:   fake.Window{Limit: max(c.cfg.Hourly, 0), Per: time.Hour},
			minute: fake.Window{Limit: max(c.cfg.Burst, 0), Per: time.Minute},
		}
		c.rates[token] = use
	}
	wait := time.Duration(0)
	switch {
	case !use.minute.Take(now):
		wait = use.minute.End().Sub(now)
	case !use.hour.Take(now):
		wait = use.hour.End().Sub(now)
	}
	if use.hour.Limit > 0 {
		w.Header().Set("RateLimit-Limit", strconv.Itoa(use.hour.Limit))
		w.Header().Set("RateLimit-Remaining", strconv.Itoa(use.hour.Left()))
		w.Header().Set("RateLimit-Reset", strconv.FormatInt(use.hour.End().Unix(), 10))
	}
	c.mu.Unlock()
	if wait > 0 {
		fake.Throttled(w)
		c.tooMany(w, wait)
		return false
	}
	if !write && r.Method != http.MethodGet {
		writeError(w, &problem{http.StatusForbidden, "forbidden", "You are not authorized to perform this operation"})
		return false
	}
	return true
}

func (c *Cloud) tooMany(w http.ResponseWriter, wait time.Duration) {
	seconds := int((wait + time.Second - 1) / time.Second)
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	writeError(w, &problem{http.StatusTooManyRequests, "too_many_requests", "API Rate limit exceeded."})
}

func (c *Cloud) getAccount(*http.Request) (int, any, error) {
	return http.StatusOK, map[string]any{"account": map[string]any{
		"droplet_limit": 25, "volume_limit": c.cfg.VolumeLimit, "email": "fake@example.com",
		"uuid": "b6fr89dbf6d9156cace5f3c78dc9851d957381ef", "email_verified": true, "status": "active", "status_message": "",
	}}, nil
}

func (c *Cloud) listRegions(r *http.Request) (int, any, error) {
	regions := make([]regionJSON, len(c.cfg.Regions))
	for i, slug := range c.cfg.Regions {
		regions[i] = region(slug)
	}
	return paged(r, "regions", regions)
}

func (c *Cloud) hasRegion(slug string) bool { return slices.Contains(c.cfg.Regions, slug) }
