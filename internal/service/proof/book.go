package daemon

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// proofs remembers what came of the proofs. Each has a file of/REPOSITORY/POOL/VOLUME in the state
// directory; and [verify.NAME] has one, ran/NAME, that says when it ran last.
type proofs struct {
	dir string

	mu  sync.Mutex
	all map[[3]string]control.Proof
}

const proofVersion = 1

// openProofs reads what is remembered. What cannot be read is as if it had never been.
func openProofs(ctx context.Context, dir string, log *slog.Logger) *proofs {
	s := &proofs{dir: dir, all: map[[3]string]control.Proof{}}
	err := filepath.WalkDir(filepath.Join(dir, "of"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			return err
		}
		root, err := os.OpenRoot(filepath.Dir(path))
		if err != nil {
			return err
		}
		defer root.Close()
		var p control.Proof
		if err := state.Read(root, e.Name(), proofVersion, &p); err != nil {
			log.WarnContext(ctx, "a proof of a backup is forgotten", slog.Any("error", err))
			return nil
		}
		s.all[[3]string{p.Repository, p.Pool, p.Volume}] = p
		return nil
	})
	if err != nil {
		log.WarnContext(ctx, "proofs of backups cannot be read", slog.Any("error", err))
	}
	return s
}

// put remembers a proof, or what came of one that is none, and returns it with the last that was.
func (s *proofs) put(p control.Proof) (control.Proof, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [3]string{p.Repository, p.Pool, p.Volume}
	if p.Error == "" {
		p.Proven, p.ProvenBackup, p.ProvenMade, p.ProvenSeconds = p.At, p.Backup, p.Made, p.Seconds
	} else if last := s.all[key]; !last.Proven.IsZero() {
		p.Proven, p.ProvenBackup, p.ProvenMade, p.ProvenSeconds = last.Proven, last.ProvenBackup, last.ProvenMade, last.ProvenSeconds
	}
	for _, name := range []string{p.Pool, p.Volume} { // who writes to the repository chose it
		if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
			return p, errdefs.Errorf(errdefs.ErrInvalid, "backup %.12s: of a pool %q and a volume %q, which cannot be", p.Backup, p.Pool, p.Volume)
		}
	}
	s.all[key] = p
	return p, s.write(filepath.Join("of", p.Repository, p.Pool), p.Volume, p)
}

func (s *proofs) write(below, name string, v any) error {
	dir := filepath.Join(s.dir, below)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return state.Classify(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	return state.Write(root, name, proofVersion, v)
}

// list returns what is remembered of the repositories that there are.
func (s *proofs) list(of []config.Repository) []control.Proof {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []control.Proof
	for _, p := range s.all {
		if slices.ContainsFunc(of, func(r config.Repository) bool { return r.Name == p.Repository }) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b control.Proof) int {
		return cmp.Or(strings.Compare(a.Repository, b.Repository), strings.Compare(a.Pool, b.Pool), strings.Compare(a.Volume, b.Volume))
	})
	return all
}

// ranAt is when a verification ran last.
type ranAt struct {
	At time.Time `json:"at"`
}

// due tells whether a verification is to run now, and remembers that it does. One that is new waits
// for its time; one whose time has passed while the daemon was down runs once.
func (s *proofs) due(v config.Verify, now time.Time) (bool, error) {
	root, err := os.OpenRoot(filepath.Join(s.dir, "ran"))
	var last ranAt
	if err == nil {
		defer root.Close()
		err = state.Read(root, v.Name, proofVersion, &last)
	}
	known := err == nil && !last.At.After(now)
	if known {
		if next := v.Cron.Next(last.At.Local()); next.IsZero() || next.After(now) {
			return false, nil
		}
	}
	return known, s.write("ran", v.Name, ranAt{now})
}

// Prove implements [control.Backups].
func (b backups) Prove(ctx context.Context, req control.BackupListRequest, progress func(control.Progress)) (c control.BackupProofs, err error) {
	c.Proofs = []control.Proof{}
	err = b.with(ctx, req.Repository, func(ctx context.Context, r *backup.Repository, place backup.Place) error {
		var chosen []backup.Backup
		if req.Name != "" {
			one, err := r.Pick(ctx, backup.Wanted{Of: req.Name, Pool: req.Pool})
			if err != nil {
				return err
			}
			chosen = append(chosen, one)
		} else {
			all, err := newest(ctx, r, place)
			if err != nil {
				return err
			}
			chosen = slices.DeleteFunc(all, func(one backup.Backup) bool { return req.Pool != "" && one.Pool != req.Pool })
			if len(chosen) == 0 && req.Pool != "" {
				return errdefs.Errorf(errdefs.ErrNotFound, "repository %q: no backup by this host is of a volume of pool %q", place.Name, req.Pool)
			}
		}
		for _, one := range chosen {
			p, err := b.d.prove(ctx, r, place, one, b.d.verifyOf(place.Name, one), progress)
			if err != nil {
				return err
			}
			c.Proofs = append(c.Proofs, p)
		}
		return nil
	})
	return c, err
}

// newest returns the newest backup of each volume of this host.
func newest(ctx context.Context, r *backup.Repository, place backup.Place) ([]backup.Backup, error) {
	all, err := r.List(ctx)
	last := map[[2]string]backup.Backup{}
	for _, one := range all { // the oldest first
		if one.Host == place.Host {
			last[[2]string{one.Pool, one.Volume}] = one
		}
	}
	return slices.DeleteFunc(all, func(one backup.Backup) bool { return last[[2]string{one.Pool, one.Volume}].ID != one.ID }), err
}

// verifyOf returns what the configuration says of the proof of a volume's backups.
func (d *Daemon) verifyOf(repository string, one backup.Backup) config.Verify {
	for _, v := range d.conf.Load().Verifies {
		if (v.Repository == "" || v.Repository == repository) && v.Matches(one.Pool, one.Volume) {
			return v
		}
	}
	return config.NewVerify()
}

// proveEvery is how often it is looked which verifications are due.
const proveEvery = 15 * time.Second

// proveLoop runs the verifications of the configuration in force at their times, until ctx ends.
func (d *Daemon) proveLoop(ctx context.Context) {
	d.dropChecks(ctx)
	tick := time.NewTicker(proveEvery)
	defer tick.Stop()
	for {
		for _, v := range d.conf.Load().Verifies {
			if v.Cron.String() == "" || ctx.Err() != nil {
				continue
			}
			due, err := d.proofs.due(v, time.Now())
			if err == nil && due {
				err = d.runVerify(ctx, v)
			}
			if err != nil && ctx.Err() == nil {
				d.log.ErrorContext(ctx, "backups are not verified", slog.String("verify", v.Name), slog.Any("error", err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// runVerify makes all proofs of a verification.
func (d *Daemon) runVerify(ctx context.Context, v config.Verify) error {
	return backups{d}.with(ctx, v.Repository, func(ctx context.Context, r *backup.Repository, place backup.Place) error {
		all, err := newest(ctx, r, place)
		if err != nil {
			return err
		}
		var errs []error
		for _, one := range all {
			if v.Matches(one.Pool, one.Volume) && ctx.Err() == nil {
				_, err := d.prove(ctx, r, place, one, v, func(control.Progress) {})
				errs = append(errs, err)
			}
		}
		return join(errs...)
	})
}

// dropChecks removes what a daemon before this one has left of proofs outside of the pools.
func (d *Daemon) dropChecks(ctx context.Context) {
	d.fills.load(ctx, scratchDirs)
	for _, f := range d.fills.left(scratchDirs) {
		if err := d.dropDirectory(f); err != nil {
			d.log.WarnContext(ctx, "what was made for a proof is still there", slog.String("path", f.Dir), slog.Any("error", err))
		}
	}
	if len(d.conf.Load().Verifies) == 0 {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, listTime, errdefs.Errorf(context.DeadlineExceeded, "the engine does not answer in time"))
	defer cancel()
	for _, e := range d.engines() {
		if err := e.RemoveChecks(ctx, d.checkLabel()); err != nil {
			d.log.WarnContext(ctx, "containers of checks that were cut off are not looked for", slog.Any("error", err))
		}
	}
}
