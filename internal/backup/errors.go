package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/sharded"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// explain gives an error its class, its hint and the name of the repository.
func (p Place) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("repository %q: %w", p.Name, p.classify(err))
}

func (p Place) classify(err error) error {
	hasClass := errdefs.Class(err) != nil
	switch {
	case errors.Is(err, repo.ErrInvalidPassword):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "the password is wrong, or the first block is damaged"),
			"the password is that with which the repository was made; if it is that: "+p.repairCommand())
	case errors.Is(err, repo.ErrAlreadyInitialized):
		return errdefs.Errorf(errdefs.ErrExists, "there is one already at %s", p.URL)
	case errors.Is(err, repo.ErrRepositoryNotInitialized):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "there is none at %s", p.URL), p.missing())
	case errors.Is(err, errNoDirectory):
		return errdefs.Hint(err, p.missing())
	case errors.Is(err, errLayout):
		return errdefs.Hint(fmt.Errorf("a part of it is damaged: %s", sharded.ParametersFile), "mend it: "+p.repairCommand())
	case p.URL.Scheme == config.SchemeSFTP && says(err, "sharding parameters"):
		return errdefs.Hint(fmt.Errorf("a part of it is damaged: %s", sharded.ParametersFile),
			"on the server, remove the file "+path.Join(p.URL.Path, sharded.ParametersFile)+": it is made anew")
	case hasClass:
		return err
	case says(err, "escapes from parent"): // os.Root has no error for it that is exported
		where := ""
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			where = strconv.Quote(pe.Path) + ": "
		}
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%sa symbolic link on its way leads out of the volume", where),
			"restore to a new volume with --to, or give the path without the link")
	case errors.Is(err, snapshot.ErrSnapshotNotFound), errors.Is(err, manifest.ErrNotFound):
		return errdefs.Errorf(errdefs.ErrNotFound, "no such backup")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), says(err, "quota", "storagefull", "minimum free drive"):
		text := syscall.ENOSPC.Error()
		if says(err, "quota") {
			text = syscall.EDQUOT.Error()
		}
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s where it lies", text), "make room there, or remove old backups with remora backup prune")
	case says(err, "nosuchbucket", "bucket does not exist"):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "bucket %q: is not there", p.URL.Host), "make it with the tools of who serves it, or correct url and endpoint")
	case says(err, "requesttimetooskewed", "request time and the server's time", "request time and the current time", "clock skew"):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the clocks of this host and of the server differ too much"),
			"timedatectl shows whether this host's is kept right")
	case errors.Is(err, syscall.EROFS), says(err, "read-only file system"):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s where it lies", syscall.EROFS.Error()), "mount that file system read-write")
	case errors.Is(err, fs.ErrPermission):
		return errdefs.As(errdefs.ErrDenied, err)
	case errors.Is(err, blob.ErrInvalidCredentials), refused(err):
		return errdefs.Errorf(errdefs.ErrDenied, "cannot log in: %s", tail(err))
	case isNet(err):
		return errdefs.As(errdefs.ErrUnavailable, err)
	case errors.Is(err, blob.ErrBlobNotFound):
		return errdefs.Hint(fmt.Errorf("a part of it is missing: %w", err), "mend it: "+p.repairCommand())
	case isDamage(err):
		if name := partName.FindString(err.Error()); name != "" {
			err = errors.New(name) // the rest is how kopia came to it
		}
		return errdefs.Hint(fmt.Errorf("a part of it is damaged: %w", err), "mend it: "+p.repairCommand())
	}
	return err
}

// missing is what to do where there is no repository. It may only be away, and a new one has none
// of its backups.
func (p Place) missing() string {
	init := "remora backup init " + p.Name
	if p.URL.Scheme == config.SchemeFile {
		return "if it lies on a disk, is that mounted? To make a new one: " + init
	}
	return "make it: " + init
}

// targetError is one of where a backup is restored.
type targetError struct{ error }

func (e targetError) Unwrap() error { return e.error }

// target gives an error of where a backup is restored its class, where it could be taken for one
// of the repository.
func target(name string, err error) error {
	if name != "" {
		name += ": "
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, errno) {
			return targetError{errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%sno room for what is restored: %w", name, errno),
				"make the volume larger (size=), or free room in its pool")}
		}
	}
	if errors.Is(err, syscall.EROFS) {
		return targetError{errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%sthe volume cannot be written to: %w", name, syscall.EROFS),
			"mount that file system read-write")}
	}
	return err
}

// partName finds the name of a blob in an error.
var partName = regexp.MustCompile(`\b[pqx][0-9a-z_]+-s[0-9a-z]+(-c\d+)?\b|\bblob config\b|\bformat blob\b`)

func (p Place) repairCommand() string { return "remora backup repair " + p.Name }

// isDamage tells whether an error says that what was read is not what was written. Kopia has
// no words for that but text.
func isDamage(err error) bool {
	if err == nil || errdefs.Class(err) != nil || isNet(err) {
		return false
	}
	if errors.Is(err, blob.ErrBlobNotFound) || errors.Is(err, blob.ErrInvalidRange) {
		return true
	}
	return says(err, "decrypt", "invalid checksum", "checksum mismatch", "decompress", "corrupt", "deserialize blob config",
		"format blob", "malformed", "unable to open index", "invalid header", "message authentication failed")
}

// refused tells whether a server did not let us in.
func refused(err error) bool {
	return says(err, "access denied", "accessdenied", "request signature we calculated does not match", "invalidaccesskeyid", "access key id",
		"ssh: handshake failed", "ssh: unable to authenticate")
}

// says tells whether an error has some words. Servers' clients have nothing else.
func says(err error, words ...string) bool {
	text := strings.ToLower(err.Error())
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// tail is what an error says at its end: before it, the SSH client prints all its settings.
func tail(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "}: "); i >= 0 {
		return text[i+len("}: "):]
	}
	return text
}

func isNet(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}
