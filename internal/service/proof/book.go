package proof

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

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// book remembers what came of the proofs. Each has a file of/REPOSITORY/POOL/VOLUME in the state
// directory; and [verify.NAME] has one, ran/NAME, that says when it ran last.
type book struct {
	dir string

	mu  sync.Mutex
	all map[[3]string]control.Proof
}

const proofVersion = 1

// openBook reads what is remembered. What cannot be read is as if it had never been.
func openBook(ctx context.Context, dir string, log *slog.Logger) *book {
	s := &book{dir: dir, all: map[[3]string]control.Proof{}}
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
func (b *book) put(p control.Proof) (control.Proof, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := [3]string{p.Repository, p.Pool, p.Volume}
	if p.Error == "" {
		p.Proven, p.ProvenBackup, p.ProvenMade, p.ProvenSeconds = p.At, p.Backup, p.Made, p.Seconds
	} else if last := b.all[key]; !last.Proven.IsZero() {
		p.Proven, p.ProvenBackup, p.ProvenMade, p.ProvenSeconds = last.Proven, last.ProvenBackup, last.ProvenMade, last.ProvenSeconds
	}
	for _, name := range []string{p.Pool, p.Volume} { // who writes to the repository chose it
		if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
			return p, errdefs.Errorf(errdefs.ErrInvalid, "backup %.12s: of a pool %q and a volume %q, which cannot be", p.Backup, p.Pool, p.Volume)
		}
	}
	b.all[key] = p
	return p, b.write(filepath.Join("of", p.Repository, p.Pool), p.Volume, p)
}

func (b *book) write(below, name string, v any) error {
	dir := filepath.Join(b.dir, below)
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
func (b *book) list(of []config.Repository) []control.Proof {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []control.Proof
	for _, p := range b.all {
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
func (b *book) due(v config.Verify, now time.Time) (bool, error) {
	root, err := os.OpenRoot(filepath.Join(b.dir, "ran"))
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
	return known, b.write("ran", v.Name, ranAt{now})
}
