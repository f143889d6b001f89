// Package proof restores backups to where they are thrown away again, to know that they are good.
package proof

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/service/backups"
	"github.com/remora-plugins/remora/internal/service/fill"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/service/restore"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

const (
	// proofPrefix begins the names of what is made for a proof, and thrown away.
	proofPrefix = "remora-proof-"
	// scratchDirs stands for a pool where a proof is made in a directory.
	scratchDirs = ".scratch"
	// proofLabel is that of the containers of checks.
	proofLabel = "remora.proof"
)

// Service makes proofs, of the backups that somebody names and as the configuration says.
type Service struct {
	Options
	book *book
	// proving is full while a backup is restored to prove that it is good.
	proving chan struct{}
}

// Options are what the service stands on.
type Options struct {
	Pools   *pool.Set
	Backups *backups.Service
	Fills   *fill.Fills
	// Engines are those that may be asked to run a check.
	Engines func() []engine.Engine
	// Verifies are those of the configuration in force.
	Verifies func() []config.Verify
	StateDir string
	Log      *slog.Logger
}

// New returns a service with what is remembered in the state directory.
func New(ctx context.Context, o Options) *Service {
	return &Service{o, openBook(ctx, filepath.Join(o.StateDir, "proofs"), o.Log), make(chan struct{}, 1)}
}

// Known returns what is remembered of the repositories that there are.
func (s *Service) Known() []control.Proof { return s.book.list(s.Backups.Repositories()) }

// proving is the proof of one backup.
type proving struct {
	s     *Service
	r     *backup.Repository
	place backup.Place
	one   backup.Backup
	conf  config.Verify
	name  string
	tell  func(backup.Progress)
}

// prove restores a backup to where it is thrown away again, compares, has the check run, and
// remembers what came of it. An error is one of the remembering; what is wrong with the backup is
// in the proof.
func (s *Service) prove(ctx context.Context, r *backup.Repository, place backup.Place, one backup.Backup, conf config.Verify, progress func(control.Progress)) (control.Proof, error) {
	select { // one at a time: it takes all that disk and network give
	case s.proving <- struct{}{}:
		defer func() { <-s.proving }()
	case <-ctx.Done():
		return control.Proof{}, context.Cause(ctx)
	}
	p := control.Proof{
		Repository: place.Name, Pool: one.Pool, Volume: one.Volume, Backup: one.ID, Made: one.Started, At: time.Now().UTC().Truncate(time.Millisecond), Check: conf.Image,
	}
	start := time.Now()
	w := proving{s, r, place, one, conf, proofPrefix + strings.ToLower(rand.Text()[:10]), backups.Teller(one.Volume, progress)}
	compared, err := w.run(ctx)
	if ctx.Err() != nil {
		return p, context.Cause(ctx) // neither a proof nor the contrary
	}
	if errors.Is(err, pool.ErrChanged) {
		return p, err // likewise
	}
	p.Seconds, p.Files, p.Bytes = time.Since(start).Seconds(), compared.Files, compared.Bytes
	log := s.Log.With(slog.String("repository", place.Name), slog.String("pool", one.Pool), slog.String("volume", one.Volume), slog.String("backup", one.ID))
	if err != nil {
		p.Error = errdefs.OneLine(strings.Join(append([]string{err.Error()}, errdefs.Hints(err)...), "; "))
		log.ErrorContext(ctx, "backup is not proved to be good", slog.Any("error", err))
	} else {
		log.InfoContext(ctx, "backup was restored, and is good", slog.Float64("seconds", p.Seconds))
	}
	return s.book.put(p)
}

const scratchHint = "scratch in the table [verify.NAME] names another pool, or a directory"

// run makes the proof.
func (w proving) run(ctx context.Context) (c backup.Compared, err error) {
	if filepath.IsAbs(w.conf.Scratch) {
		return w.inDirectory(ctx, w.conf.Scratch)
	}
	name := w.conf.Scratch
	if name == "" {
		name = w.one.Pool
	}
	p, err := w.s.Pools.Enter(ctx, name)
	if err != nil {
		return c, errdefs.Hint(err, scratchHint)
	}
	defer p.Leave()
	ctx, done := p.Within(ctx)
	defer done()
	return w.inPool(ctx, p)
}

// inPool makes the proof in a volume.
func (w proving) inPool(ctx context.Context, p *pool.Pool) (c backup.Compared, err error) {
	if s, err := p.Handler.Space(ctx); err == nil {
		if err := w.room(s.Free); err != nil {
			return c, fmt.Errorf("pool %q: %w", p.Conf.Name, err)
		}
	}
	f, err := w.s.Fills.Begin(p.Conf.Name, w.name, fill.Facts{Kind: fill.Proof, Repository: w.place.Name, Backup: w.one.ID})
	if err != nil {
		return c, err
	}
	defer func() {
		err = errdefs.Join(err, restore.Discard(ctx, p, f, w.name))
		f.Stopped(err)
	}()
	var opts map[string]string
	if v, verr := p.Handler.Get(ctx, w.one.Volume); verr == nil && p.Conf.Name == w.one.Pool && !v.External {
		opts = restore.LikeOptions(v)
	}
	if err := p.Handler.Create(f.Context(ctx), w.name, opts); err != nil {
		return c, errdefs.Hint(err, scratchHint)
	}
	if v, err := p.Handler.Get(ctx, w.name); err != nil || v.External { // what is restored would stay there
		err = errdefs.Join(err, errdefs.Errorf(errdefs.ErrUnsupported, "pool %q: its volumes are on a server, from which nothing is removed", p.Conf.Name))
		return c, errdefs.Hint(err, scratchHint)
	}
	if err := w.enlarge(f.Context(ctx), p); err != nil {
		return c, err
	}
	err = p.Mounted(f.Context(ctx), w.name, func(ctx context.Context, dir string) (err error) {
		if err := fill.Empty(dir); err != nil {
			return err
		}
		c, err = w.look(ctx, dir)
		return err
	})
	return c, err
}

// enlarge gives the volume a limit in which the backup has room.
func (w proving) enlarge(ctx context.Context, p *pool.Pool) error {
	if !volume.Can[volume.Sizer](p.Handler) || !volume.Can[volume.Resizer](p.Handler) {
		return nil
	}
	u, err := p.Handler.Usage(ctx, w.name)
	if need := w.needs() + w.needs()/10; err == nil && u.Limit > 0 && u.Limit < need {
		return p.Handler.Resize(ctx, w.name, need)
	}
	return nil
}

// inDirectory makes the proof in a directory of the host.
func (w proving) inDirectory(ctx context.Context, scratch string) (c backup.Compared, err error) {
	dir := filepath.Join(scratch, w.name)
	f, err := w.s.Fills.Begin(scratchDirs, w.name, fill.Facts{Kind: fill.Proof, Repository: w.place.Name, Backup: w.one.ID, Dir: dir})
	if err != nil {
		return c, err
	}
	defer func() {
		err = errdefs.Join(err, w.s.dropDirectory(f))
		f.Stopped(err)
	}()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return c, errdefs.Hint(fmt.Errorf("scratch: %w", err), "the directory is not made for you, as it may be where a disk will be mounted")
	}
	return w.look(ctx, dir)
}

// dropDirectory removes a directory that was made for a proof.
func (s *Service) dropDirectory(f *fill.Fill) error {
	if strings.HasPrefix(filepath.Base(f.Dir), proofPrefix) {
		if err := os.RemoveAll(f.Dir); err != nil {
			return err
		}
	}
	return f.End()
}

// look restores into a directory, compares, and has the check run.
func (w proving) look(ctx context.Context, dir string) (c backup.Compared, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil {
		if err := w.room(int64(st.Bavail) * st.Bsize); err != nil {
			return c, err
		}
	}
	if err := w.restore(ctx, dir); err != nil {
		return c, err
	}
	c, err = w.r.Compare(ctx, w.one.ID, dir, w.tell)
	switch {
	case err != nil:
		return c, err
	case c.Differences > 0:
		return c, fmt.Errorf("what was restored differs from the backup in %d places: %w", c.Differences, c.First)
	case c.Files != w.one.Files || c.Bytes != w.one.Size:
		return c, fmt.Errorf("restored are %d bytes in %d files, and not %d in %d", c.Bytes, c.Files, w.one.Size, w.one.Files)
	case w.conf.Image == "":
		return c, nil
	}
	return c, w.check(ctx, dir)
}

// restore writes what the repository has, and not what a cache has of it.
func (w proving) restore(ctx context.Context, dir string) (err error) {
	r, err := backup.OpenUncached(ctx, w.place)
	if err != nil {
		return err
	}
	defer func() { err = errdefs.Join(err, r.Close(ctx)) }()
	_, err = r.Restore(ctx, w.one.ID, dir, w.tell)
	return err
}

// check has an engine run the command.
func (w proving) check(ctx context.Context, dir string) error {
	all := w.s.Engines()
	if len(all) == 0 {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "no engine is there that could run the check"), "engine.sockets in the configuration names others")
	}
	var errs []error
	for _, e := range all {
		err := e.Run(ctx, engine.Check{
			Name: w.name, Label: w.s.checkLabel(), Image: w.conf.Image, Command: w.conf.Command, Dir: dir, Mountpoint: w.conf.Mountpoint,
			Memory: w.conf.Memory, Timeout: w.conf.Timeout,
		})
		if !errors.Is(err, errdefs.ErrUnavailable) && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		errs = append(errs, err) // another may have the image
	}
	return errors.Join(errs...)
}

// checkLabel is that of the containers of this daemon's checks.
func (s *Service) checkLabel() engine.Label {
	return engine.Label{Key: proofLabel, Value: s.StateDir}
}

// needs returns how much room the backup takes when it is restored, about.
func (w proving) needs() int64 {
	const block, spare = 4096, 8 << 20
	return w.one.Size + w.one.Files*block + spare
}

// room refuses a place that is too small.
func (w proving) room(free int64) error {
	if need := w.needs(); free < need {
		return errdefs.Errorf(errdefs.ErrUnavailable, "no room for it: %d MiB are needed, and %d free", need>>20, free>>20)
	}
	return nil
}
