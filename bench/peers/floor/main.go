// Floor is the least that a volume plugin can do: a bare net/http handler that
// decodes the request and sends an answer of the right shape and size, the same each
// time. It keeps nothing, looks at nothing and checks nothing; what it takes is the
// price of HTTP and JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// volume is a volume in an answer.
type volume struct {
	Name       string
	Mountpoint string `json:",omitempty"`
	CreatedAt  string `json:",omitempty"`
}

// request is that of every method.
type request struct {
	Name string
	ID   string
	Opts map[string]string
}

func main() {
	socket := flag.String("socket", "", "unix `socket` to serve on")
	dir := flag.String("dir", "", "`directory` that mountpoints in answers begin with")
	n := flag.Int("volumes", 0, "`number` of volumes that List answers")
	name := flag.String("name", "v%06d", "`format` of their names")
	flag.Parse()
	if err := run(*socket, *dir, *name, *n); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(socket, dir, format string, n int) error {
	mountpoint := func(name string) string { return dir + "/" + name + "/data" }
	created := time.Now().UTC().Format(time.RFC3339)
	all := make([]volume, 0, n)
	for i := range n {
		name := fmt.Sprintf(format, i)
		all = append(all, volume{Name: name, Mountpoint: mountpoint(name)})
	}
	mux := http.NewServeMux()
	handle := func(method string, answer func(request) any) {
		mux.HandleFunc("/"+method, func(w http.ResponseWriter, r *http.Request) {
			var req request
			if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.2+json")
			_ = json.NewEncoder(w).Encode(answer(req)) // the caller is gone: nobody is left to tell
		})
	}
	type done struct{ Err string }
	type mounted struct {
		Mountpoint string
		Err        string
	}
	type got struct {
		Volume *volume
		Err    string
	}
	type listed struct {
		Volumes []volume
		Err     string
	}
	nothing := func(request) any { return done{} }
	handle("VolumeDriver.Create", nothing)
	handle("VolumeDriver.Remove", nothing)
	handle("VolumeDriver.Unmount", nothing)
	handle("VolumeDriver.Mount", func(r request) any { return mounted{Mountpoint: mountpoint(r.Name)} })
	handle("VolumeDriver.Get", func(r request) any {
		return got{Volume: &volume{Name: r.Name, Mountpoint: mountpoint(r.Name), CreatedAt: created}}
	})
	handle("VolumeDriver.List", func(request) any { return listed{Volumes: all} })
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return http.Serve(l, mux)
}
