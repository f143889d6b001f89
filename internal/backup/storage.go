package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/blob/s3"
	"github.com/kopia/kopia/repo/blob/sftp"
	"github.com/kopia/kopia/repo/format"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// storageType is what the file that kopia opens says of the storage. The rest, with its
// secrets, comes with the context, so that no secret is written to the disk a second time and
// nothing is taken from a configuration that has changed since.
const storageType = "remora"

type storageConfig struct {
	Repository string `json:"repository"`
}

// opening is the place of what is being opened, why its storage could not be, and what is to be
// known of that later.
type opening struct {
	place   Place
	err     error
	watched *watched
	format  []byte // the first block as it was read
	keyMade func() // is to be called when the key has been made of the password, or cannot be
}

// making is full while a key is made of a password, which takes 64 MiB, on purpose: two at the same
// time would take twice as much, and be no faster.
var making = make(chan struct{}, 1)

type openingKey struct{}

// register makes the type known to kopia, which has a table for that.
var register = sync.OnceFunc(func() {
	blob.AddSupportedStorage(storageType, storageConfig{}, func(ctx context.Context, _ *storageConfig, isCreate bool) (blob.Storage, error) {
		o, ok := ctx.Value(openingKey{}).(*opening)
		if !ok {
			return nil, errors.New("opened without its place")
		}
		var st blob.Storage
		if st, o.err = o.place.storage(ctx, isCreate); o.err != nil {
			return nil, o.err
		}
		o.watched = st.(named).watched
		return &beginning{Storage: st, of: o}, nil
	})
})

// beginning sees what kopia reads first: the format, of which it then makes a key with the
// password, and what else there is of the format.
type beginning struct {
	blob.Storage
	of  *opening
	key sync.Once
}

// GetBlob implements [blob.Storage].
func (s *beginning) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	first := false
	switch {
	case id == format.KopiaRepositoryBlobID && length < 0:
		s.key.Do(func() { first = true })
	case id == format.KopiaBlobCfgBlobID:
		s.of.keyMade()
	}
	if !first {
		return s.Storage.GetBlob(ctx, id, offset, length, out)
	}
	b, err := get(ctx, s.Storage, id)
	if err != nil {
		return err
	}
	select {
	case making <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.of.keyMade = sync.OnceFunc(func() {
		debug.FreeOSMemory() // else it stays beside what comes now
		<-making
	})
	s.of.format = b
	out.Reset()
	_, err = out.Write(b)
	return err
}

// named is a storage that says that it is of our type.
type named struct {
	blob.Storage
	repository string
	watched    *watched
}

// ConnectionInfo implements [blob.Storage].
func (n named) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &storageConfig{n.repository}}
}

// The limits for a server to be there, and to let us in.
const (
	dialTime  = 10 * time.Second
	loginTime = 30 * time.Second
)

// storage opens the place where the blobs lie.
func (p Place) storage(ctx context.Context, create bool) (blob.Storage, error) {
	var open func(context.Context) (blob.Storage, error)
	var err error
	switch p.URL.Scheme {
	case config.SchemeFile:
		open = p.directory(create)
	case config.SchemeS3:
		open, err = p.bucket(ctx)
	default:
		open, err = p.server(ctx)
	}
	if err != nil {
		return nil, err
	}
	type opened struct {
		st  blob.Storage
		err error
	}
	done := make(chan opened, 1)
	go func() {
		st, err := open(ctx)
		done <- opened{st, err}
	}()
	limit := cmp.Or(p.login, loginTime)
	waiting, cancel := context.WithTimeoutCause(ctx, limit, errdefs.Errorf(errdefs.ErrUnavailable, "does not answer within %s", limit))
	defer cancel()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, o.err
		}
		w := watch(ctx, o.st, cmp.Or(p.stall, p.Stall, stallTime))
		var st blob.Storage = copied{w}
		if p.mended != nil {
			st = repairing{st, p.hidden, p.mended}
		}
		return named{st, p.Name, w}, nil
	case <-waiting.Done():
	}
	go func() {
		if o := <-done; o.err == nil {
			_ = o.st.Close(context.WithoutCancel(ctx)) // nobody waits for it any more
		}
	}()
	return nil, context.Cause(waiting)
}

var errNoDirectory = errors.New("is not there")

func (p Place) directory(create bool) func(context.Context) (blob.Storage, error) {
	return func(ctx context.Context) (blob.Storage, error) { // of a server, too, that may not answer
		if fi, err := os.Stat(p.URL.Path); errors.Is(err, fs.ErrNotExist) && !create {
			return nil, errdefs.Errorf(errdefs.ErrNotFound, "directory %s %w", p.URL.Path, errNoDirectory)
		} else if err == nil && !fi.IsDir() {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s is not a directory", p.URL.Path)
		}
		o := &filesystem.Options{Path: p.URL.Path, FileMode: 0o600, DirectoryMode: 0o700}
		if !create {
			var err error
			if o.DirectoryShards, err = layoutOf(p.URL.Path); err != nil {
				return nil, err
			}
		}
		return filesystem.New(ctx, o, create)
	}
}

func (p Place) bucket(ctx context.Context) (func(context.Context) (blob.Storage, error), error) {
	access, secret, err := s3Keys(p.S3)
	if err != nil {
		return nil, err
	}
	o := &s3.Options{
		BucketName: p.URL.Host, Endpoint: p.S3.Endpoint.Host, DoNotUseTLS: p.S3.Endpoint.Scheme == "http",
		Region: p.S3.Region, AccessKeyID: access, SecretAccessKey: secret,
	}
	if prefix := strings.Trim(p.URL.Path, "/"); prefix != "" {
		o.Prefix = prefix + "/"
	}
	if p.S3.CAFile != "" {
		if o.RootCA, err = os.ReadFile(p.S3.CAFile); err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
	}
	return func(ctx context.Context) (blob.Storage, error) { return s3.New(ctx, o, false) }, reach(ctx, p.S3.Endpoint)
}

func (p Place) server(ctx context.Context) (func(context.Context) (blob.Storage, error), error) {
	key, err := secretFile("key_file", p.SFTP.KeyFile)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(p.SFTP.KnownHosts); err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "known_hosts: %w", err)
	}
	port, err := strconv.Atoi(portOf(p.URL))
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "port %q: want a number", p.URL.Port())
	}
	o := &sftp.Options{
		Path: path.Clean(p.URL.Path), Host: p.URL.Hostname(), Port: port, Username: p.URL.User.Username(),
		KeyData: string(key), KnownHostsFile: p.SFTP.KnownHosts,
	}
	return func(ctx context.Context) (blob.Storage, error) { return sftp.New(ctx, o, true) }, reach(ctx, p.URL)
}

func portOf(u *url.URL) string {
	if u.Port() != "" {
		return u.Port()
	}
	return map[string]string{"http": "80", "https": "443", config.SchemeSFTP: "22"}[u.Scheme]
}

// reach makes sure that somebody listens: the libraries try again and again, for minutes,
// where nobody does.
func reach(ctx context.Context, u *url.URL) error {
	c, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), portOf(u)))
	if err != nil {
		return errdefs.Errorf(errdefs.ErrUnavailable, "cannot be reached: %w", err)
	}
	_ = c.Close() // it was only to see that it opens
	return nil
}
