package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// record is what the next daemon must know of a plugin that was started. It is written before the first thing that
// would be left behind, and removed after the last was cleared away.
type record struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Rootfs     string    `json:"rootfs"`
	Propagated string    `json:"propagated,omitempty"`
	Socket     string    `json:"socket"`
	Pid        int       `json:"pid,omitempty"` // of a plugin whose socket has answered
	Start      uint64    `json:"start,omitempty"`
	Boot       string    `json:"boot"`
	Since      time.Time `json:"since"`
	Restarts   int       `json:"restarts,omitempty"`
	Last       *Exit     `json:"last,omitempty"`
	Version    string    `json:"of,omitempty"`
	Serves     bool      `json:"serves,omitempty"`
}

const recordVersion = 1

const recordName = "record.json"

func (r *Runtime) saveRecord(rec *record) error {
	rec.Boot = r.boot
	return state.Write(r.root, filepath.Join(rec.ID, recordName), recordVersion, rec)
}

// loadRecord returns the record of a plugin, nil where there is none. One that makes no sense counts as one that
// knows nothing but the ID.
func (r *Runtime) loadRecord(id string) (*record, error) {
	var rec record
	err := state.Read(r.root, filepath.Join(id, recordName), recordVersion, &rec)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return nil, nil //nolint:nilnil // none
	case errors.Is(err, state.ErrCorrupt) || err == nil && rec.ID != id:
		return &record{ID: id}, nil
	case err != nil:
		return nil, err
	}
	if rec.Boot != r.boot {
		rec.Pid = 0
	}
	return &rec, nil
}

// process returns the process that the record tells of, nil where it has ended.
func (rec *record) process() *process {
	if rec == nil || rec.Pid == 0 {
		return nil
	}
	p, err := openProcess(rec.Pid, rec.Start)
	if err != nil {
		return nil
	}
	select {
	case <-p.exited:
		p.close()
		return nil
	default:
		return p
	}
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}
