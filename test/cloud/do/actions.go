package do

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The states of an action.
const (
	inProgress = "in-progress"
	completed  = "completed"
	errored    = "errored"
)

type action struct {
	id             int
	kind           string // attach, detach, resize
	status         string
	volume, region string
	started, ended time.Time
}

func (a *action) json() actionJSON {
	out := actionJSON{
		ID: a.id, Status: a.status, Type: a.kind + "_volume", StartedAt: stamp(a.started),
		ResourceType: "backend", RegionSlug: a.region,
	}
	place := region(a.region)
	out.Region = &place
	if a.status != inProgress {
		ended := stamp(a.ended)
		out.CompletedAt = &ended
	}
	return out
}

type actionRequest struct {
	Type          string   `json:"type"`
	VolumeName    string   `json:"volume_name"`
	DropletID     int      `json:"droplet_id"`
	Region        string   `json:"region"`
	SizeGigabytes int64    `json:"size_gigabytes"`
	Tags          []string `json:"tags"`
}

// postAction begins an action on a volume by its id, or by its name and region. It is
// counted as volumes.attach, volumes.detach or volumes.resize.
func (c *Cloud) postAction(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		writeError(w, err)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var peek actionRequest
	kind := "volumes.action"
	if json.Unmarshal(body, &peek) == nil && slices.Contains([]string{"attach", "detach", "resize"}, peek.Type) {
		kind = "volumes." + peek.Type
	}
	c.serve(w, r, kind, func(r *http.Request) (int, any, error) {
		var req actionRequest
		if err := read(r, &req); err != nil {
			return 0, nil, err
		}
		v, err := c.volume(r.PathValue("id"))
		if r.PathValue("id") == "" {
			v, err = c.named(req.Region, req.VolumeName), nil
			if v == nil {
				err = notFound("volume not found")
			}
		}
		if err != nil {
			return 0, nil, err
		}
		if req.Region != "" && req.Region != v.region {
			return 0, nil, unprocessable("volume is not in region %s", req.Region)
		}
		a, err := c.begin(v, req)
		if err != nil {
			return 0, nil, err
		}
		return http.StatusAccepted, map[string]any{"action": a.json()}, nil
	})
}

// begin checks an action and starts it.
func (c *Cloud) begin(v *volume, req actionRequest) (*action, error) {
	d := c.droplets[req.DropletID]
	if req.Type != "resize" && (d == nil || d.destroyed) {
		return nil, notFound("droplet not found")
	}
	switch req.Type {
	case "attach":
		switch {
		case v.droplet != 0:
			return nil, unprocessable("This volume is already attached")
		case d.region != v.region:
			return nil, unprocessable("volume and Droplet are not in the same region")
		case len(c.attached(d.id)) >= c.cfg.PerDroplet:
			return nil, unprocessable("cannot attach more volumes to the Droplet")
		}
		if err := c.makeTags(req.Tags); err != nil {
			return nil, err
		}
	case "detach":
		if v.droplet != d.id {
			return nil, unprocessable("Attachment not found")
		}
	case "resize":
		d = nil
		if req.SizeGigabytes <= v.size {
			return nil, unprocessable("volumes can only be resized up: size must be larger than %d GB", v.size)
		}
		if req.SizeGigabytes > maxSize {
			return nil, unprocessable("size must be at most %d GB", maxSize)
		}
	default:
		return nil, unprocessable("invalid action type")
	}
	if v.pending != nil {
		return nil, conflict("volume has a pending event")
	}
	if d != nil && d.pending != nil {
		return nil, unprocessable("Droplet already has a pending event.")
	}
	c.lastAction++
	a := &action{
		id: c.lastAction, kind: req.Type, status: inProgress, volume: v.id, region: v.region, started: c.clock.Now(),
	}
	c.actions[a.id] = a
	v.pending = a
	if d != nil {
		d.pending = a
	}
	fails := c.Calls.Errored("volumes." + req.Type)
	takes := map[string]time.Duration{"attach": c.cfg.Attach, "detach": c.cfg.Detach, "resize": c.cfg.Resize}[req.Type]
	c.clock.AfterFunc(takes, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.end(a, v, d, req, fails)
	})
	return a, nil
}

// end carries an action out. Its volume is there still, as one with an action under way
// is not deleted.
func (c *Cloud) end(a *action, v *volume, d *droplet, req actionRequest, fails bool) {
	a.status, a.ended = completed, c.clock.Now()
	v.pending = nil
	if d != nil {
		d.pending = nil
	}
	var err error
	switch {
	case fails, d != nil && d.destroyed && a.kind == "attach":
		err = errors.New("the action was to fail")
	case a.kind == "attach":
		v.droplet = d.id
		v.tags = union(v.tags, c.canonical(req.Tags))
		c.clock.AfterFunc(c.cfg.DeviceLag, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if v.droplet == d.id {
				c.plug(v, d)
			}
		})
	case a.kind == "detach":
		err = c.pull(v, d, !c.cfg.BusyFails)
		if !errors.Is(err, unix.EBUSY) {
			v.droplet = 0
		}
	case a.kind == "resize":
		if err = c.files.Grow(v.id, req.SizeGigabytes*gib); err == nil {
			v.size = req.SizeGigabytes
			err = c.grown(v)
		}
	}
	if err != nil {
		a.status = errored
	}
	c.changed(v)
}

func (c *Cloud) getAction(r *http.Request) (int, any, error) {
	id, _ := strconv.Atoi(r.PathValue("action"))
	a := c.actions[id]
	if a == nil || r.PathValue("id") != "" && r.PathValue("id") != a.volume {
		return 0, nil, notFound("The resource you were accessing could not be found.")
	}
	return http.StatusOK, map[string]any{"action": a.json()}, nil
}

func (c *Cloud) listActions(r *http.Request) (int, any, error) {
	v, err := c.volume(r.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	all := []actionJSON{}
	for id := c.lastAction; id > 0 && c.actions[id] != nil; id-- { // the newest first
		if a := c.actions[id]; a.volume == v.id {
			all = append(all, a.json())
		}
	}
	return paged(r, "actions", all)
}
