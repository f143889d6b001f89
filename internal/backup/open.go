package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/splitter"

	"github.com/remora-plugins/remora/internal/config"
)

// userName is the user that all backups of Remora have, in kopia's words.
const userName = "remora"

// cacheBytes bounds each of the two caches.
const cacheBytes = 512 << 20

// packBytes is the size from which a blob of data is written: the least that kopia takes. Some are
// in memory, and on their way, at a time, and their buffers stay there for the next.
const packBytes = 10 << 20

// Repository is an open repository. Its methods are safe for concurrent use.
type Repository struct {
	place Place
	rep   repo.DirectRepository
	how   *opening
	worn  atomic.Bool // it is not to be kept open for another call
}

// Init makes a repository. One that is there already, with this password, is ErrExists.
func Init(ctx context.Context, p Place) error {
	return p.explain(p.init(ctx))
}

func (p Place) init(ctx context.Context) error {
	register()
	secret, err := password(p.Repository)
	if err != nil {
		return err
	}
	st, err := p.storage(ctx, true)
	if err != nil {
		return err
	}
	if err := p.lists(ctx, st); err != nil {
		return errors.Join(err, st.Close(ctx))
	}
	err = repo.Initialize(ctx, st, &repo.NewRepositoryOptions{
		BlockFormat:  format.ContentFormat{MutableParameters: format.MutableParameters{MaxPackSize: packBytes}},
		ObjectFormat: format.ObjectFormat{Splitter: splitter.DefaultAlgorithm},
	}, secret)
	if err = errors.Join(err, st.Close(ctx)); err != nil {
		return err
	}
	debug.FreeOSMemory() // to make a key of the password takes 64 MiB, on purpose, and open makes it again
	r, err := p.open(ctx, cached)
	if err != nil {
		return err
	}
	// The host that makes it keeps it in order, until another is told to: two at a time would
	// take each other's garbage for their own.
	params := maintenance.DefaultParams()
	params.Owner = r.rep.ClientOptions().UsernameAtHost()
	err = repo.WriteSession(ctx, r.rep, repo.WriteSessionOptions{Purpose: "init"}, func(ctx context.Context, w repo.RepositoryWriter) error {
		return maintenance.SetParams(ctx, w, &params)
	})
	return errors.Join(err, r.close(ctx))
}

// Open opens a repository. It is ErrNotFound where there is none, ErrDenied with the wrong
// password, ErrUnavailable while it cannot be reached. Close it.
func Open(ctx context.Context, p Place) (*Repository, error) {
	r, err := p.open(ctx, cached)
	return r, p.explain(err)
}

// mode is how a repository is opened.
type mode int

const (
	// cached is the usual way.
	cached mode = iota
	// uncached reads everything from the repository itself.
	uncached
)

func (p Place) open(ctx context.Context, m mode) (*Repository, error) {
	register()
	secret, err := password(p.Repository)
	if err != nil {
		return nil, err
	}
	file, err := p.configFile(m)
	if err != nil {
		return nil, err
	}
	o := &opening{place: p, keyMade: func() {}}
	rep, err := repo.Open(context.WithValue(ctx, openingKey{}, o), file, secret, &repo.Options{
		DoNotWaitForUpgrade:  true,
		DisableRepositoryLog: true,
		OnFatalError:         func(error) {}, // the default ends the process; the call fails all the same
	})
	o.keyMade()
	switch {
	case o.err != nil:
		return nil, o.err
	case errors.Is(err, blob.ErrBlobNotFound), errors.Is(err, repo.ErrRepositoryNotInitialized):
		return nil, p.none(ctx)
	case err != nil:
		return nil, err
	}
	direct, ok := rep.(repo.DirectRepository)
	if !ok {
		return nil, errors.Join(errors.New("is not opened directly"), rep.Close(ctx))
	}
	return &Repository{place: p, rep: direct, how: o}, nil
}

// none says why there is no repository.
func (p Place) none(ctx context.Context) error {
	st, err := p.storage(ctx, false)
	if err != nil {
		return err
	}
	return cmp.Or(errors.Join(p.lists(ctx, st), st.Close(ctx)), repo.ErrRepositoryNotInitialized)
}

// lists makes sure that a bucket is there: to read from none is answered as if a blob was not.
func (p Place) lists(ctx context.Context, st blob.Storage) error {
	if p.URL.Scheme != config.SchemeS3 {
		return nil
	}
	return st.ListBlobs(ctx, format.KopiaRepositoryBlobID, func(blob.Metadata) error { return nil })
}

// configFile writes the file by which kopia finds what it opens.
func (p Place) configFile(m mode) (string, error) {
	c := repo.LocalConfig{
		Storage: &blob.ConnectionInfo{Type: storageType, Config: &storageConfig{p.Name}},
		Caching: &content.CachingOptions{},
		ClientOptions: repo.ClientOptions{
			Hostname: p.Host, Username: userName, Description: "repository " + p.Name,
			FormatBlobCacheDuration: -time.Second, // it is small, and may be another one by now
		},
	}
	name := "kopia.json"
	switch m {
	case cached:
		c.Caching = &content.CachingOptions{
			CacheDirectory:         filepath.Join(p.Dir, "cache"),
			ContentCacheSizeBytes:  cacheBytes,
			MetadataCacheSizeBytes: cacheBytes,
		}
		if p.URL.Scheme == config.SchemeFile { // what is cached is no nearer than what is not
			c.Caching = &content.CachingOptions{}
		}
	case uncached:
		name = "kopia-uncached.json"
	}
	data, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return "", err
	}
	file := filepath.Join(p.Dir, name)
	if old, err := os.ReadFile(file); err == nil && string(old) == string(data) {
		return file, nil
	}
	f, err := os.CreateTemp(p.Dir, name+".*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return "", fmt.Errorf("write %s: %w", file, err)
	}
	return file, nil
}

// Close lets go of the repository.
func (r *Repository) Close(ctx context.Context) error {
	return r.place.explain(r.close(ctx))
}

// close gives back the memory too: the next who opens a repository needs much at once.
func (r *Repository) close(ctx context.Context) error {
	defer tidy()
	return r.rep.Close(context.WithoutCancel(ctx))
}
