package do

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/test/cloud/fake"
)

// Control has the calls of [fake.Control], and for droplets:
//
//	POST /droplets                {"id":1,"name":"a","region":"nyc1","dir":"/…"}: add one whose
//	                              machine is below dir; answers {"metadata":"http://…"}
//	POST /droplets/{id}/power_off
//	POST /droplets/{id}/power_on
//	POST /droplets/{id}/destroy
//
// The metadata is served until ctx ends.
func (c *Cloud) Control(ctx context.Context, hosts *fake.Hosts) http.Handler {
	mux := fake.Control(&c.Calls, c.clock)
	mux.HandleFunc("POST /droplets", func(w http.ResponseWriter, r *http.Request) {
		var d struct {
			ID                int
			Name, Region, Dir string
		}
		err := json.NewDecoder(r.Body).Decode(&d)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		m, err := hosts.Add(d.Dir)
		if err == nil {
			err = c.AddDroplet(d.ID, d.Name, d.Region, m)
		}
		url := ""
		if err == nil {
			url, err = fake.Start(ctx, "127.0.0.1:0", c.Metadata(d.ID))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		fake.JSON(w, http.StatusCreated, map[string]string{"metadata": url})
	})
	for what, do := range map[string]func(int) error{
		"power_off": c.PowerOff, "power_on": c.PowerOn, "destroy": c.Destroy,
	} {
		mux.HandleFunc("POST /droplets/{id}/"+what, func(w http.ResponseWriter, r *http.Request) {
			id, err := strconv.Atoi(r.PathValue("id"))
			if err == nil {
				err = do(id)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	return mux
}

// Flags adds those of a cloud to a program's.
func (cfg *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&cfg.Dir, "dir", "", "folder for the files of volumes and snapshots")
	fs.DurationVar(&cfg.Attach, "attach", 0, "how long an attach takes")
	fs.DurationVar(&cfg.Detach, "detach", 0, "how long a detach takes")
	fs.DurationVar(&cfg.Resize, "resize", 0, "how long a resize takes")
	fs.DurationVar(&cfg.DeviceLag, "device-lag", 0, "how long after an attach the device appears")
	fs.DurationVar(&cfg.ListLag, "list-lag", 0, "how late lists are")
	fs.DurationVar(&cfg.Gone, "gone", 0, "how long a destroyed droplet keeps its volumes")
	fs.BoolVar(&cfg.BusyFails, "busy-fails", false, "let the detach of a mounted volume fail, where else its device is pulled")
	fs.IntVar(&cfg.Hourly, "hourly", 0, "calls in an hour; 0 is 5000, -1 no limit")
	fs.IntVar(&cfg.Burst, "burst", 0, "calls in a minute; 0 is 250, -1 no limit")
	cfg.Tokens = map[string]bool{}
	fs.Func("token", "a token that may read and write (repeat for more)", func(s string) error {
		cfg.Tokens[s] = true
		return nil
	})
	fs.Func("regions", "slugs of the regions, separated by commas", func(s string) error {
		cfg.Regions = strings.Split(s, ",")
		return nil
	})
}
