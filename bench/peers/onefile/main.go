// Onefile is the volume plugin that one writes on docker/go-plugins-helpers in an
// afternoon, after the manner of local-persist: a directory for each volume, a map
// behind one mutex, and the whole of it written to one JSON file at each change. It
// counts no mounts and flushes nothing to the disk, unless -fsync asks for that.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/docker/go-plugins-helpers/volume"
)

func main() {
	socket := flag.String("socket", "", "unix `socket` to serve on")
	dir := flag.String("dir", "", "`directory` of state.json and of the volumes")
	fsync := flag.Bool("fsync", false, "flush the state to the disk before the answer")
	flag.Parse()
	if err := run(*socket, *dir, *fsync); err != nil {
		fmt.Fprintln(os.Stderr, "onefile:", err)
		os.Exit(1)
	}
}

func run(socket, dir string, fsync bool) error {
	d := &driver{dir: dir, fsync: fsync, Volumes: map[string]*entry{}}
	b, err := os.ReadFile(d.file())
	if err == nil {
		err = json.Unmarshal(b, d)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	log.SetOutput(os.Stderr)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return volume.NewHandler(d).Serve(l)
}

// driver is the plugin; its exported fields are the state file.
type driver struct {
	dir   string
	fsync bool

	mu      sync.Mutex
	Volumes map[string]*entry
}

// entry is a volume in the state file.
type entry struct {
	Mountpoint string
	CreatedAt  string
}

func (d *driver) file() string { return filepath.Join(d.dir, "state.json") }

// save rewrites the state file. The caller holds the mutex.
func (d *driver) save() error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if !d.fsync {
		return os.WriteFile(d.file(), b, 0o600)
	}
	f, err := os.OpenFile(d.file()+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(d.file()+".new", d.file()); err != nil {
		return err
	}
	parent, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// Create implements [volume.Driver].
func (d *driver) Create(r *volume.CreateRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.Volumes[r.Name]; ok {
		return nil
	}
	mountpoint := filepath.Join(d.dir, "volumes", r.Name)
	if err := os.MkdirAll(mountpoint, 0o755); err != nil {
		return err
	}
	d.Volumes[r.Name] = &entry{mountpoint, time.Now().UTC().Format(time.RFC3339)}
	return d.save()
}

// Remove implements [volume.Driver].
func (d *driver) Remove(r *volume.RemoveRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.Volumes[r.Name]
	if !ok {
		return nil
	}
	if err := os.RemoveAll(e.Mountpoint); err != nil {
		return err
	}
	delete(d.Volumes, r.Name)
	return d.save()
}

func (d *driver) find(name string) (*entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := d.Volumes[name]; ok {
		return e, nil
	}
	return nil, fmt.Errorf("no such volume: %s", name)
}

// Mount implements [volume.Driver].
func (d *driver) Mount(r *volume.MountRequest) (*volume.MountResponse, error) {
	e, err := d.find(r.Name)
	if err != nil {
		return nil, err
	}
	return &volume.MountResponse{Mountpoint: e.Mountpoint}, nil
}

// Unmount implements [volume.Driver].
func (d *driver) Unmount(r *volume.UnmountRequest) error {
	_, err := d.find(r.Name)
	return err
}

// Path implements [volume.Driver].
func (d *driver) Path(r *volume.PathRequest) (*volume.PathResponse, error) {
	e, err := d.find(r.Name)
	if err != nil {
		return nil, err
	}
	return &volume.PathResponse{Mountpoint: e.Mountpoint}, nil
}

// Get implements [volume.Driver].
func (d *driver) Get(r *volume.GetRequest) (*volume.GetResponse, error) {
	e, err := d.find(r.Name)
	if err != nil {
		return nil, err
	}
	return &volume.GetResponse{Volume: &volume.Volume{Name: r.Name, Mountpoint: e.Mountpoint, CreatedAt: e.CreatedAt}}, nil
}

// List implements [volume.Driver].
func (d *driver) List() (*volume.ListResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]*volume.Volume, 0, len(d.Volumes))
	for name, e := range d.Volumes {
		all = append(all, &volume.Volume{Name: name, Mountpoint: e.Mountpoint})
	}
	return &volume.ListResponse{Volumes: all}, nil
}

// Capabilities implements [volume.Driver].
func (d *driver) Capabilities() *volume.CapabilitiesResponse {
	return &volume.CapabilitiesResponse{Capabilities: volume.Capability{Scope: "local"}}
}
