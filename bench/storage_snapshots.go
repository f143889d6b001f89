package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// snapshots measures how long a snapshot of a large volume takes, with real data in it: at
// rest, and right after something was written, and how long one who writes meanwhile waits.
// Between two of them blocks all over a file change.
func (s *storageSuite) snapshots() error {
	s.results.Snapshots = nil
	for _, c := range []struct {
		storage, disk, driver, fs string
		limit                     bool
	}{
		{"btrfs", "btrfs", "btrfs", "", false}, {limited, "btrfs", "btrfs", "", true},
		{"loop, ext4 on xfs", "xfs", "loop", "ext4", true}, {"loop, ext4 on btrfs", "btrfs", "loop", "ext4", true},
	} {
		if err := s.alone(func() error { return s.snapshotsOf(c.storage, c.disk, c.driver, c.fs, c.limit) }); err != nil {
			return fmt.Errorf("%s: %w", c.storage, err)
		}
	}
	return nil
}

func (s *storageSuite) snapshotsOf(storage, disk, driver, fs string, limit bool) error {
	at, err := s.disk("disk", disk)
	if err != nil {
		return err
	}
	pool := filepath.Join(at, "pool")
	if err := os.Mkdir(pool, 0o755); err != nil {
		return err
	}
	h, err := s.serve("snap", fmt.Sprintf("[pool.p]\ndriver = %q\npath = %q\n", driver, pool))
	if err != nil {
		return err
	}
	var opts []string
	if limit {
		opts = append(opts, fmt.Sprintf("size=%d", s.snapshotSize+s.snapshotSize/8))
	}
	if fs != "" {
		opts = append(opts, "fs="+fs)
	}
	dir, err := s.volume(h, "p", "data", opts...)
	if err != nil {
		return err
	}
	if err := s.step("snapshots: %s: write %d MiB", storage, s.snapshotSize>>20); err != nil {
		return err
	}
	const files = 64
	out, err := exec.Command("fio", "--name=fill", "--directory="+dir, fmt.Sprintf("--nrfiles=%d", files), fmt.Sprintf("--size=%d", s.snapshotSize),
		"--rw=write", "--bs=1m", "--ioengine=psync", "--end_fsync=1", "--file_service_type=sequential").CombinedOutput()
	if err != nil {
		return fmt.Errorf("fio: %w: %s", err, out)
	}
	if err := s.step("snapshots: %s: %d of each kind", storage, s.snapshotRounds); err != nil {
		return err
	}
	for round := range 2 * s.snapshotRounds {
		dirty := round%2 == 1
		out, err := exec.Command("fio", "--name=change", "--filename="+dir+"/change", "--size=64m", "--io_size=4m", "--rw=randwrite", "--bs=4k",
			"--ioengine=psync", "--fallocate=none", fmt.Sprintf("--randseed=%d", round+1)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("fio: %w: %s", err, out)
		}
		if !dirty {
			if err := flushed(dir); err != nil {
				return err
			}
		}
		w, err := writeTo(dir)
		if err != nil {
			return err
		}
		begin := time.Now()
		_, err = h.call("Snapshot.Create", map[string]string{"Pool": "p", "Volume": "data", "Name": fmt.Sprintf("s%d", round)})
		took := time.Since(begin)
		stall, werr := w.end()
		if err := errors.Join(err, werr); err != nil {
			return err
		}
		s.results.Snapshots = append(s.results.Snapshots, SnapshotSample{
			Storage: storage, Bytes: s.snapshotSize, Dirty: dirty, Round: round / 2, Millis: took.Seconds() * 1e3, Stall: stall.Seconds() * 1e3,
		})
	}
	return nil
}
