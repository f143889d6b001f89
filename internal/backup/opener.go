package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/format"

	"github.com/remora-plugins/remora/internal/config"
)

// Opener opens repositories for one piece of work after another, and keeps each open for a while
// behind it: to open one takes a key of the password, with much memory and a good part of a second,
// and the reading of all indexes.
//
// One that is kept is nobody's until it is taken again, by one at a time. Who wants it meanwhile
// has another opened. So nobody is at work in it while its indexes are replaced by newer ones.
type Opener struct {
	idle time.Duration

	mu     sync.Mutex
	kept   map[string]*keptOpen // by the repository's name
	turn   int                  // what was taken before the last Forget is not kept
	closed bool
}

type keptOpen struct {
	r       *Repository
	ctx     context.Context //nolint:containedctx // to close it, whoever opened it
	secrets [sha256.Size]byte
	late    *time.Timer
}

const (
	// stillTime is how long one that was kept may take to show that it is what it was. Then it is
	// opened anew, with the time that this has.
	stillTime = 5 * time.Second
	// keptIndex bounds what is kept of indexes in memory, for each repository, in bytes.
	keptIndex = 16 << 20
	// partTime is how long the end of the daemon waits for repositories to be closed.
	partTime = 2 * time.Second
)

// NewOpener returns an opener that keeps a repository open until it was not used for so long.
func NewOpener(idle time.Duration) *Opener {
	return &Opener{idle: idle, kept: map[string]*keptOpen{}}
}

// With calls do with the repository at p, with errors as those of [Open]. What is said of the
// configuration, the secrets, and the repository itself is so by now, whatever it was when it was
// opened. do must not close it.
func (o *Opener) With(ctx context.Context, p Place, do func(r *Repository) error) error {
	k, turn, err := o.take(ctx, p)
	if err != nil {
		return p.explain(err)
	}
	done := false
	defer func() {
		if !done { // it panics
			go k.close()
		}
	}()
	err = do(k.r)
	done = true
	if err == nil && o.keep(ctx, k, turn) {
		return nil
	}
	closeErr := k.r.Close(ctx)
	if err == nil {
		err = closeErr // beside another it says no more than that one
	}
	return err
}

// Forget closes all that is kept. What is in use is closed behind its use.
func (o *Opener) Forget() {
	for _, k := range o.clear(false) {
		go k.close()
	}
}

// Close is a Forget after which nothing is kept any more. It waits, but not for long.
func (o *Opener) Close() {
	var closing sync.WaitGroup
	for _, k := range o.clear(true) {
		closing.Go(k.close)
	}
	done := make(chan struct{})
	go func() { defer close(done); closing.Wait() }()
	select {
	case <-done:
	case <-time.After(partTime):
	}
}

func (o *Opener) clear(forGood bool) (all []*keptOpen) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.turn++
	o.closed = o.closed || forGood
	for _, k := range o.kept {
		k.late.Stop()
		all = append(all, k)
	}
	clear(o.kept)
	return all
}

// close closes a repository that nobody uses, and that nobody wants to know of. A server that is gone
// may take long to say goodbye to.
func (k *keptOpen) close() { _ = k.r.close(k.ctx) }

// take returns a repository that is open, and in which turn it was taken.
func (o *Opener) take(ctx context.Context, p Place) (*keptOpen, int, error) {
	o.mu.Lock()
	k, turn := o.kept[p.Name], o.turn
	delete(o.kept, p.Name)
	o.mu.Unlock()
	// The secrets are read before what they open: if they change meanwhile, the next one sees it.
	secrets, secretsErr := p.secrets()
	if k != nil {
		k.late.Stop()
		if secretsErr == nil && secrets == k.secrets && reflect.DeepEqual(p, k.r.place) && k.r.still(ctx) {
			return k, turn, nil
		}
		go k.close()
	}
	r, err := p.open(ctx, cached)
	if err != nil {
		return nil, 0, err
	}
	r.worn.Store(secretsErr != nil)
	return &keptOpen{r: r, ctx: context.WithoutCancel(ctx), secrets: secrets}, turn, nil
}

// keep keeps a repository that is done with, if that can be.
func (o *Opener) keep(ctx context.Context, k *keptOpen, turn int) bool {
	if k.r.worn.Load() || !k.r.small(ctx) {
		return false
	}
	tidy()
	o.mu.Lock()
	defer o.mu.Unlock()
	name := k.r.place.Name
	if o.closed || turn != o.turn || o.kept[name] != nil {
		return false
	}
	o.kept[name] = k
	k.late = time.AfterFunc(o.idle, func() { o.expire(name, k) })
	return true
}

// expire closes a repository that nobody has wanted for long.
func (o *Opener) expire(name string, k *keptOpen) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.kept[name] == k { // or somebody has just taken it
		delete(o.kept, name)
		go k.close()
	}
}

// still tells whether a repository is the one that was opened, and can be reached, and has it read
// what others have done to it since.
func (r *Repository) still(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, stillTime)
	defer cancel()
	b, err := get(ctx, r.rep.BlobReader(), format.KopiaRepositoryBlobID)
	return err == nil && bytes.Equal(b, r.how.format) && r.rep.Refresh(ctx) == nil
}

// small tells whether a repository takes so little memory that it may stay open. Indexes of a
// server's are in files, which are mapped.
func (r *Repository) small(ctx context.Context) bool {
	if r.place.URL.Scheme != config.SchemeFile {
		return true
	}
	all, err := r.rep.IndexBlobs(ctx, false)
	sum := int64(0)
	for _, b := range all {
		sum += b.Length
	}
	return err == nil && sum <= keptIndex
}

// secrets is a hash of what a repository is opened with beside the configuration.
func (p Place) secrets() (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	add := func(b []byte) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	pass, err := password(p.Repository)
	if err != nil {
		return sum, err
	}
	add([]byte(pass))
	switch p.URL.Scheme {
	case config.SchemeS3:
		access, secret, err := s3Keys(p.S3)
		if err != nil {
			return sum, err
		}
		add([]byte(access))
		add([]byte(secret))
		if p.S3.CAFile != "" {
			b, err := os.ReadFile(p.S3.CAFile)
			if err != nil {
				return sum, err
			}
			add(b)
		}
	case config.SchemeSFTP:
		key, err := secretFile("key_file", p.SFTP.KeyFile)
		if err != nil {
			return sum, err
		}
		known, err := os.ReadFile(p.SFTP.KnownHosts)
		if err != nil {
			return sum, err
		}
		add(key)
		add(known)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
