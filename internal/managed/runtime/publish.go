package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// publication is the name of a plugin in the discovery directory. Its socket is there as a hard link, since engines
// list no symbolic links; where the two directories are on different file systems it is one all the same. A tag
// "latest" is left out of the listed name, as people leave it out; the name with it is a symbolic link, which an
// engine finds but does not list, so that no volume is listed twice.
type publication struct {
	dir   string   // the discovery directory; empty publishes nothing
	work  string   // the plugin's directory below RunDir
	owned []string // where its sockets may be
	names []string

	mu   sync.Mutex
	own  os.FileInfo // the socket that the name was last made a link to
	held bool        // the name is not the plugin's own socket
}

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:-]*$`)

func newPublication(dir, work, name, socket string) (*publication, error) {
	for part := range strings.SplitSeq(name, "/") {
		if !nameForm.MatchString(part) {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "plugin %q: not a name that it can be published under", name)
		}
	}
	p := &publication{dir: dir, work: work, owned: []string{filepath.Join(work, "s", socket), filepath.Join(work, holdName)}}
	short, latest := strings.CutSuffix(name, ":latest")
	if latest || !strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ":") {
		p.names = []string{short, short + ":latest"}
	} else {
		p.names = []string{name}
	}
	return p, nil
}

func (p *publication) path(i int) string { return filepath.Join(p.dir, p.names[i]+".sock") }

// free refuses a name that somebody else's plugin has. What nobody listens on is free.
func (p *publication) free() error {
	if p.dir == "" {
		return nil
	}
	for i := range p.names {
		if !p.replaceable(i) {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "%s: another plugin listens there", p.path(i)),
				"Stop that plugin, or install this one under another name with --alias.")
		}
	}
	return nil
}

// replaceable tells whether what has the name is of this plugin, or of nobody.
func (p *publication) replaceable(i int) bool {
	path := p.path(i)
	fi, err := os.Lstat(path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	if target, err := os.Readlink(path); err == nil && (i > 0 && target == filepath.Base(p.path(0)) || within(target, p.work)) {
		return true
	}
	if p.own != nil && os.SameFile(fi, p.own) {
		return true
	}
	for _, own := range p.owned {
		if is, err := os.Lstat(own); err == nil && os.SameFile(fi, is) {
			return true
		}
	}
	c, err := (&net.Dialer{Timeout: time.Second}).Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return false
	}
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT)
}

// point lets the name be that of the socket, from one instant to the next.
func (p *publication) point(socket string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = filepath.Base(socket) == holdName
	return p.pointed(socket)
}

// again is point for a socket that the plugin made anew, unless callers are held.
func (p *publication) again(socket string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held || p.own == nil {
		return nil
	}
	return p.pointed(socket)
}

func (p *publication) pointed(socket string) error {
	if p.dir == "" {
		return nil
	}
	if err := p.free(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.path(0)), 0o755); err != nil {
		return state.Classify(fmt.Errorf("publish: %w", err))
	}
	err := p.link(socket)
	if errors.Is(err, unix.EXDEV) {
		err = p.symlink(socket, 0)
	}
	if err == nil {
		p.own, err = os.Lstat(p.path(0))
	}
	if err == nil && len(p.names) > 1 {
		err = p.symlink(filepath.Base(p.path(0)), 1)
	}
	if err != nil {
		return state.Classify(fmt.Errorf("publish: %w", err))
	}
	return nil
}

func (p *publication) link(socket string) error {
	temp := filepath.Join(p.work, "name") // not in the discovery directory, where engines would list it
	_ = os.Remove(temp)
	if err := os.Link(socket, temp); err != nil {
		return err
	}
	// Where the plugin cannot change it any more: a link of its making could lead to any socket of the host.
	fi, err := os.Lstat(temp)
	if err == nil && fi.Mode().Type() != fs.ModeSocket {
		err = fmt.Errorf("%s: not a socket", filepath.Base(socket))
	}
	if err == nil {
		err = os.Rename(temp, p.path(0))
	}
	_ = os.Remove(temp) // is still there where both were one file already (rename(2))
	return err
}

func (p *publication) symlink(target string, i int) error {
	if is, err := os.Readlink(p.path(i)); err == nil && is == target {
		return nil
	}
	temp := filepath.Join(filepath.Dir(p.path(i)), ".remora-"+filepath.Base(p.work))
	_ = os.Remove(temp)
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, p.path(i)); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return nil
}

// withdraw takes the name away, and directories that were made for it.
func (p *publication) withdraw() error {
	if p.dir == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for i := range p.names {
		path := p.path(len(p.names) - 1 - i)
		if !p.replaceable(len(p.names) - 1 - i) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, state.Classify(fmt.Errorf("withdraw: %w", err)))
		}
	}
	p.own = nil
	for dir := filepath.Dir(p.path(0)); dir != p.dir && within(dir, p.dir); dir = filepath.Dir(dir) {
		if unix.Rmdir(dir) != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// dialIn connects to a socket in a directory, however long its path is: that of a socket has at most 107 bytes.
func dialIn(ctx context.Context, dir, name string) (net.Conn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	// A plugin could have made a link to any socket of the host.
	if fi, err := os.Lstat(filepath.Join(dir, name)); err != nil {
		return nil, err
	} else if fi.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s: not a socket", name)
	}
	return (&net.Dialer{}).DialContext(ctx, "unix", shortPath(d, name))
}

func listenIn(dir, name string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: shortPath(d, name)})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	return ln, nil
}

func shortPath(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}
