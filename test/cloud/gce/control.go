package gce

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"strings"

	"github.com/remora-plugins/remora/test/cloud/fake"
)

// Control has the calls of [fake.Control], and besides:
//
//	POST /instances                          {"zone":"…","name":"a","dir":"/…","scopes":["…"]}: add one
//	                                         whose machine is below dir; answers {"metadata":"http://…"}
//	POST /instances/{zone}/{name}/preempt    turn one off; stop, start and delete are in the API
//	POST /accounts                           {"email":"…","token_uri":"http://…"}: add one; answers with its key file
//	POST /revoke                             make all tokens worthless
//	POST /zones/{zone}/cut, …/join           put a zone out of reach, or back
//
// The metadata is served until ctx ends.
func (c *Cloud) Control(ctx context.Context, hosts *fake.Hosts) http.Handler {
	mux := fake.Control(&c.Calls, c.clock)
	mux.HandleFunc("POST /instances", func(w http.ResponseWriter, r *http.Request) {
		var i struct {
			Zone, Name, Dir string
			Scopes          []string
		}
		if err := json.NewDecoder(r.Body).Decode(&i); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		m, err := hosts.Add(i.Dir)
		if err == nil {
			err = c.AddInstance(i.Zone, i.Name, m)
		}
		url := ""
		if err == nil {
			url, err = fake.Start(ctx, "127.0.0.1:0", c.Metadata(i.Zone, i.Name, i.Scopes...))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		fake.JSON(w, http.StatusCreated, map[string]string{"metadata": url})
	})
	mux.HandleFunc("POST /instances/{zone}/{name}/preempt", func(w http.ResponseWriter, r *http.Request) {
		if err := c.Preempt(r.PathValue("zone"), r.PathValue("name")); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /accounts", func(w http.ResponseWriter, r *http.Request) {
		var a struct {
			Email    string `json:"email"`
			TokenURI string `json:"token_uri"`
		}
		err := json.NewDecoder(r.Body).Decode(&a)
		var key []byte
		if err == nil {
			key, err = c.ServiceAccount(a.Email, a.TokenURI)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		w.Write(key)
	})
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		c.Revoke()
		w.WriteHeader(http.StatusNoContent)
	})
	for what, cut := range map[string]bool{"cut": true, "join": false} {
		mux.HandleFunc("POST /zones/{zone}/"+what, func(w http.ResponseWriter, r *http.Request) {
			c.Unreachable(r.PathValue("zone"), cut)
			w.WriteHeader(http.StatusNoContent)
		})
	}
	return mux
}

// Flags adds those of a cloud to a program's.
func (cfg *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&cfg.Dir, "dir", "", "folder for the files of disks and snapshots")
	fs.StringVar(&cfg.Project, "project", "", "the only project there is (fake-project)")
	fs.BoolVar(&cfg.NoAuth, "no-auth", false, "let in everyone")
	fs.DurationVar(&cfg.Create, "create", 0, "how long it takes to make a disk")
	fs.DurationVar(&cfg.Attach, "attach", 0, "how long an attach takes")
	fs.DurationVar(&cfg.Detach, "detach", 0, "how long a detach takes")
	fs.DurationVar(&cfg.Resize, "resize", 0, "how long a resize takes")
	fs.DurationVar(&cfg.Snapshot, "snapshot", 0, "how long a snapshot takes")
	fs.DurationVar(&cfg.Other, "other", 0, "how long any other operation takes")
	fs.DurationVar(&cfg.DeviceLag, "device-lag", 0, "how long after an attach the device appears")
	fs.DurationVar(&cfg.ListLag, "list-lag", 0, "how late lists are")
	fs.DurationVar(&cfg.Gone, "gone", 0, "how long a deleted instance keeps its disks")
	fs.BoolVar(&cfg.BusyFails, "busy-fails", false, "let the detach of a mounted disk fail, where else its device is pulled")
	fs.BoolVar(&cfg.LateErrors, "late-errors", false, "tell by the operation that a disk is in use, not at once")
	fs.Int64Var(&cfg.QuotaGB, "quota", 0, "gigabytes that a region may hold; 0 is no limit")
	fs.IntVar(&cfg.Reads, "reads", 0, "calls in a minute that read; 0 is 1500, -1 no limit")
	fs.IntVar(&cfg.Writes, "writes", 0, "calls in a minute that write; 0 is 1500, -1 no limit")
	fs.Func("zones", "names of the zones, separated by commas", func(s string) error {
		cfg.Zones = strings.Split(s, ",")
		return nil
	})
}
