package do

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/test/cloud/fake"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

type droplet struct {
	id           int
	name, region string
	created      time.Time
	host         *machine.Machine
	off          bool
	// destroyed droplets are shown to nobody; their volumes are let go later.
	destroyed bool
	pending   *action
}

// AddDroplet adds a droplet that is running. Its volumes are shown to host; nil is a
// droplet that nobody looks at from inside.
func (c *Cloud) AddDroplet(id int, name, region string, host *machine.Machine) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasRegion(region) {
		return fmt.Errorf("%s: no such region", region)
	}
	if c.droplets[id] != nil {
		return fmt.Errorf("droplet %d: there already", id)
	}
	c.droplets[id] = &droplet{id: id, name: name, region: region, created: c.clock.Now(), host: host}
	return nil
}

// PowerOff turns a droplet off as a cut of power does. It keeps its volumes.
func (c *Cloud) PowerOff(id int) error {
	return c.power(id, true, func(v *volume, d *droplet) error { return c.pull(v, d, true) })
}

// PowerOn turns a droplet on.
func (c *Cloud) PowerOn(id int) error { return c.power(id, false, c.plug) }

func (c *Cloud) power(id int, off bool, each func(*volume, *droplet) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.droplets[id]
	if d == nil || d.destroyed {
		return fmt.Errorf("droplet %d: not found", id)
	}
	if d.off == off {
		return nil
	}
	d.off = off
	var errs []error
	for _, v := range c.attached(id) {
		errs = append(errs, each(v, d))
	}
	return errors.Join(errs...)
}

// Destroy deletes a droplet. Its volumes are let go after the time Config.Gone.
func (c *Cloud) Destroy(id int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.destroy(id)
}

func (c *Cloud) destroy(id int) error {
	d := c.droplets[id]
	if d == nil || d.destroyed {
		return notFound("The resource you were accessing could not be found.")
	}
	d.destroyed = true
	var errs []error
	for _, v := range c.attached(id) {
		errs = append(errs, c.pull(v, d, true))
	}
	c.clock.AfterFunc(c.cfg.Gone, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, v := range c.attached(id) {
			v.droplet = 0
			c.changed(v)
		}
	})
	return errors.Join(errs...)
}

// attached are the volumes of a droplet.
func (c *Cloud) attached(id int) (out []*volume) {
	for _, v := range c.volumes {
		if v.droplet == id {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b *volume) int { return cmp.Compare(a.id, b.id) })
	return out
}

// plug shows a volume to a droplet that runs.
func (c *Cloud) plug(v *volume, d *droplet) error {
	if d.host == nil || d.off || d.destroyed {
		return nil
	}
	if _, there := d.host.Named(c.files.Path(v.id)); there {
		return nil
	}
	_, err := d.host.Plug(machine.DigitalOcean(c.files.Path(v.id), v.name))
	return err
}

// pull takes a volume away from a droplet, by force also one that is mounted.
func (c *Cloud) pull(v *volume, d *droplet, force bool) error {
	if d.host == nil {
		return nil
	}
	name, there := d.host.Named(c.files.Path(v.id))
	switch {
	case !there:
		return nil
	case force:
		return d.host.Yank(name)
	}
	return d.host.Unplug(name)
}

// grown tells the droplet of a volume that it has a new size.
func (c *Cloud) grown(v *volume) error {
	d := c.droplets[v.droplet]
	if d == nil || d.host == nil {
		return nil
	}
	if name, there := d.host.Named(c.files.Path(v.id)); there {
		return d.host.Grow(name)
	}
	return nil
}

// format makes the file system that a volume was created with.
func format(ctx context.Context, file, fsType, label string) error {
	args := []string{"-q", "-F", file}
	if fsType == "xfs" {
		args = []string{"-q", "-f", file}
	}
	if label != "" {
		args = append([]string{"-L", label}, args...)
	}
	_, err := run.Output(ctx, nil, "mkfs."+fsType, args...)
	return err
}

func (c *Cloud) dropletJSON(d *droplet) map[string]any {
	ids := []string{}
	for _, v := range c.attached(d.id) {
		ids = append(ids, v.id)
	}
	status := "active"
	if d.off {
		status = "off"
	}
	return map[string]any{
		"id": d.id, "name": d.name, "status": status, "region": region(d.region), "volume_ids": ids,
		"locked": d.pending != nil, "created_at": stamp(d.created), "tags": []string{},
	}
}

func (c *Cloud) droplet(r *http.Request) (*droplet, error) {
	id, _ := strconv.Atoi(r.PathValue("id"))
	d := c.droplets[id]
	if d == nil || d.destroyed {
		return nil, notFound("The resource you were accessing could not be found.")
	}
	return d, nil
}

func (c *Cloud) getDroplet(r *http.Request) (int, any, error) {
	d, err := c.droplet(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, map[string]any{"droplet": c.dropletJSON(d)}, nil
}

func (c *Cloud) listDroplets(r *http.Request) (int, any, error) {
	all := []map[string]any{}
	for _, d := range c.droplets {
		if !d.destroyed {
			all = append(all, c.dropletJSON(d))
		}
	}
	slices.SortFunc(all, func(a, b map[string]any) int { return cmp.Compare(a["id"].(int), b["id"].(int)) })
	return paged(r, "droplets", all)
}

func (c *Cloud) deleteDroplet(r *http.Request) (int, any, error) {
	d, err := c.droplet(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, c.destroy(d.id)
}

// Metadata is what a droplet finds at 169.254.169.254. Calls to it are counted as metadata.
func (c *Cloud) Metadata(id int) http.Handler {
	mux := http.NewServeMux()
	value := func(path string, of func(*droplet) string) {
		mux.HandleFunc("GET /metadata/v1/"+path, func(w http.ResponseWriter, r *http.Request) {
			c.metadata(w, r, id, func(w http.ResponseWriter, d *droplet) {
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
				io.WriteString(w, of(d))
			})
		})
	}
	value("id", func(d *droplet) string { return strconv.Itoa(d.id) })
	value("region", func(d *droplet) string { return d.region })
	value("hostname", func(d *droplet) string { return d.name })
	mux.HandleFunc("GET /metadata/v1.json", func(w http.ResponseWriter, r *http.Request) {
		c.metadata(w, r, id, func(w http.ResponseWriter, d *droplet) {
			fake.JSON(w, http.StatusOK, map[string]any{"droplet_id": d.id, "hostname": d.name, "region": d.region})
		})
	})
	return mux
}

func (c *Cloud) metadata(w http.ResponseWriter, r *http.Request, id int, answer func(http.ResponseWriter, *droplet)) {
	fail := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "internal server error", http.StatusInternalServerError)
	}
	c.Calls.Serve(w, r, "metadata", fake.Style{Fail: fail, Throttle: fail}, func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		d := c.droplets[id]
		c.mu.Unlock()
		if d == nil || d.destroyed {
			http.NotFound(w, r)
			return
		}
		answer(w, d)
	})
}
