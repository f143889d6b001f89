package main

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
)

// StorageResults is everything that the storage suite measured.
type StorageResults struct {
	Machine   Machine           `json:"machine"`
	Tools     map[string]string `json:"tools"`
	Fio       []FioSample       `json:"fio"`
	Snapshots []SnapshotSample  `json:"snapshots"`
	Lists     []ListSample      `json:"lists"`
	Backups   []BackupSample    `json:"backups"`
	// BackupBytes is the size of what was backed up, Changed what was changed of it.
	BackupBytes int64 `json:"backup_bytes"`
	BackupFiles int   `json:"backup_files"`
	Changed     int64 `json:"changed_bytes"`
}

// FioSample is the rate of one job on one side of a pair.
type FioSample struct {
	Driver string  `json:"driver"`
	Side   string  `json:"side"`
	Job    string  `json:"job"`
	Round  int     `json:"round"`
	KiB    float64 `json:"kib_per_s"`
}

// SnapshotSample is how long one snapshot took. Dirty is whether something had just been
// written that was not on the disk yet. Stall is the longest that a write took meanwhile, zero
// in results from before it was measured.
type SnapshotSample struct {
	Storage string  `json:"storage"`
	Bytes   int64   `json:"bytes"`
	Dirty   bool    `json:"dirty"`
	Round   int     `json:"round"`
	Millis  float64 `json:"ms"`
	Stall   float64 `json:"stall_ms,omitempty"`
}

// ListSample is how long one list took, by the API alone or by the command.
type ListSample struct {
	Driver    string  `json:"driver"`
	Via       string  `json:"via"`
	Volumes   int     `json:"volumes"`
	Snapshots int     `json:"snapshots"`
	Round     int     `json:"round"`
	Millis    float64 `json:"ms"`
}

// BackupSample is one phase of one peer.
type BackupSample struct {
	Peer    string  `json:"peer"`
	Phase   string  `json:"phase"`
	Round   int     `json:"round"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_s"`
	// Peak is the most memory that all processes of the peer held.
	Peak int64 `json:"peak_bytes"`
	// Stored is how large the repository was afterwards.
	Stored int64 `json:"stored_bytes"`
}

// fio returns the rates of a job by round.
func (r *StorageResults) fio(driver, job, side string) (byRound map[int]float64) {
	byRound = map[int]float64{}
	for _, x := range r.Fio {
		if x.Driver == driver && x.Job == job && x.Side == side {
			byRound[x.Round] = x.KiB
		}
	}
	return byRound
}

// fioRatio is the rate of the volume to that of the bare file system.
func (r *StorageResults) fioRatio(driver, job string) (ratio, bool) {
	b := r.fio(driver, job, bare)
	var pairs []float64
	for round, v := range r.fio(driver, job, remora) {
		if b[round] > 0 { // else a turn in which the machine did something else
			pairs = append(pairs, v/b[round])
		}
	}
	return ratioOf(pairs), len(pairs) > 0
}

func (r *StorageResults) snapshotTimes(storage string, dirty bool) (ms []float64) {
	for _, x := range r.Snapshots {
		if x.Storage == storage && x.Dirty == dirty {
			ms = append(ms, x.Millis)
		}
	}
	return ms
}

// snapshotStalls returns how long the writes of a storage were held up, none where that was not
// measured.
func (r *StorageResults) snapshotStalls(storage string, dirty bool) (ms []float64) {
	for _, x := range r.Snapshots {
		if x.Storage == storage && x.Dirty == dirty && x.Stall > 0 {
			ms = append(ms, x.Stall)
		}
	}
	return ms
}

func (r *StorageResults) listTimes(driver, via string) (ms []float64) {
	for _, x := range r.Lists {
		if x.Driver == driver && x.Via == via {
			ms = append(ms, x.Millis)
		}
	}
	return ms
}

// backup returns a value of a phase by round.
func (r *StorageResults) backup(peer, phase string, value func(BackupSample) float64) (all []float64) {
	for _, x := range r.Backups {
		if x.Peer == peer && x.Phase == phase {
			all = append(all, value(x))
		}
	}
	return all
}

func seconds(x BackupSample) float64 { return x.Seconds }
func cpu(x BackupSample) float64     { return x.CPU }
func peak(x BackupSample) float64    { return float64(x.Peak) }
func stored(x BackupSample) float64  { return float64(x.Stored) }

// storages returns the storages of the snapshots, in the order in which they were measured.
func (r *StorageResults) storages() (names []string) {
	for _, x := range r.Snapshots {
		if !slices.Contains(names, x.Storage) {
			names = append(names, x.Storage)
		}
	}
	return names
}

// save writes the results with a line for each sample.
func (r *StorageResults) save(path string) error { return saveLines(r, path) }

func saveLines(r any, path string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	b = bytes.ReplaceAll(b, []byte("},{"), []byte("},\n{"))
	b = bytes.ReplaceAll(b, []byte(":[{"), []byte(":[\n{"))
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
