package proof

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Prove implements [control.Backups].
func (s *Service) Prove(ctx context.Context, req control.BackupListRequest, progress func(control.Progress)) (c control.BackupProofs, err error) {
	c.Proofs = []control.Proof{}
	err = s.Backups.With(ctx, req.Repository, func(ctx context.Context, r *backup.Repository, place backup.Place) error {
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
			p, err := s.prove(ctx, r, place, one, s.verifyOf(place.Name, one), progress)
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
func (s *Service) verifyOf(repository string, one backup.Backup) config.Verify {
	for _, v := range s.Verifies() {
		if (v.Repository == "" || v.Repository == repository) && v.Matches(one.Pool, one.Volume) {
			return v
		}
	}
	return config.NewVerify()
}

// proveEvery is how often it is looked which verifications are due.
const proveEvery = 15 * time.Second

// Run runs the verifications of the configuration in force at their times, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	s.dropChecks(ctx)
	tick := time.NewTicker(proveEvery)
	defer tick.Stop()
	for {
		for _, v := range s.Verifies() {
			if v.Cron.String() == "" || ctx.Err() != nil {
				continue
			}
			due, err := s.book.due(v, time.Now())
			if err == nil && due {
				err = s.runVerify(ctx, v)
			}
			if err != nil && ctx.Err() == nil {
				s.Log.ErrorContext(ctx, "backups are not verified", slog.String("verify", v.Name), slog.Any("error", err))
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
func (s *Service) runVerify(ctx context.Context, v config.Verify) error {
	return s.Backups.With(ctx, v.Repository, func(ctx context.Context, r *backup.Repository, place backup.Place) error {
		all, err := newest(ctx, r, place)
		if err != nil {
			return err
		}
		var errs []error
		for _, one := range all {
			if v.Matches(one.Pool, one.Volume) && ctx.Err() == nil {
				_, err := s.prove(ctx, r, place, one, v, func(control.Progress) {})
				errs = append(errs, err)
			}
		}
		return errdefs.Join(errs...)
	})
}

// engineTime bounds the question to an engine for what is left of checks.
const engineTime = 5 * time.Second

// dropChecks removes what a daemon before this one has left of proofs outside of the pools.
func (s *Service) dropChecks(ctx context.Context) {
	s.Fills.Load(ctx, scratchDirs)
	for _, f := range s.Fills.Left(scratchDirs) {
		if err := s.dropDirectory(f); err != nil {
			s.Log.WarnContext(ctx, "what was made for a proof is still there", slog.String("path", f.Dir), slog.Any("error", err))
		}
	}
	if len(s.Verifies()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, engineTime, errdefs.Errorf(context.DeadlineExceeded, "the engine does not answer in time"))
	defer cancel()
	for _, e := range s.Engines() {
		if err := e.RemoveChecks(ctx, s.checkLabel()); err != nil {
			s.Log.WarnContext(ctx, "containers of checks that were cut off are not looked for", slog.Any("error", err))
		}
	}
}
