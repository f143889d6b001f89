// Package trace shows the calls that engines make to a plugin, while they are made. It puts a
// socket of its own in the place of the plugin's and passes everything on.
//
// The plugin's socket stays in reach by a second name, a hard link in a directory beside it,
// and both changes of the first name are one rename(2): there is no moment at which a call
// finds nothing. The link is the note of what has to be put right, too: whoever finds it, and
// finds no trace that holds its lock, puts the socket back ([Mend]). A process of its own waits
// for the end of this one to do so, so that kill -9 leaves nothing behind.
package trace

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Options of [Run].
type Options struct {
	// Show is told of each call when it has ended, one at a time. No call waits for it: if it takes too long, calls are left
	// out.
	Show func(Call)
	// Say tells a person what happens to the plugin.
	Say func(text string)
	// Guard is the command line of a process that calls [Guard] with the socket as its last
	// argument; nil is none.
	Guard []string
}

// Run traces the plugin at a unix socket until ctx ends. When the plugin ends, so that another
// can start in its place, it waits for that one.
func Run(ctx context.Context, socket string, o Options) (err error) {
	socket, err = filepath.Abs(socket)
	if err != nil {
		return err
	}
	if fi, err := os.Lstat(socket); err == nil && fi.Mode().Type() == fs.ModeSymlink {
		if socket, err = filepath.EvalSymlinks(socket); err != nil {
			return err
		}
	}
	endGuard := func() {}
	defer func() { endGuard() }() // last of all: it wants the lock
	n, err := lock(socket)
	if err != nil {
		return err
	}
	defer func() {
		if n != nil {
			n.unlock()
		}
	}()
	if err := n.mend(); err != nil { // of a trace that was killed with its guard
		return err
	}
	if err := listens(socket); err != nil {
		return err
	}
	stop, err := guard(o.Guard, socket)
	if err != nil {
		return err
	}
	endGuard = stop
	t := newTeller(o)
	defer t.end()
	o.Show = t.tell
	o.Say("connections that engines have open already are not seen; restart the plugin to see all")
	for {
		if err := n.follow(ctx, o); err != nil || ctx.Err() != nil {
			return err
		}
		o.Say("the plugin has ended; waiting for the next one")
		for listens(socket) != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(lookEvery):
			}
		}
		o.Say("the plugin is back")
		// Engines clear the directory of a managed plugin away with all that is in it.
		n.unlock()
		if n, err = lock(socket); err != nil {
			return err
		}
	}
}

// lookEvery is how often the plugin is looked at: while it is traced none can start in its
// place, and one that wants to should not wait for long.
const lookEvery = 100 * time.Millisecond

// listens tells whether somebody listens on a socket.
func listens(socket string) error {
	fi, err := os.Stat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errdefs.Errorf(errdefs.ErrNotFound, "socket %q: not found", socket)
	case err != nil:
		return errdefs.Errorf(errdefs.ErrDenied, "socket %q: %w", socket, err)
	case fi.Mode().Type() != fs.ModeSocket:
		return errdefs.Errorf(errdefs.ErrInvalid, "%q: is not a socket", socket)
	}
	c, err := dial(socket)
	switch {
	case err == nil:
		return c.Close()
	case errors.Is(err, syscall.EAGAIN): // its queue is full: somebody is there
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "socket %q: %w", socket, errGone), "start the plugin")
	}
	return denied(socket, err)
}

var errGone = errors.New("nobody listens there")

// gone tells whether nobody listens on a socket any more. Where that cannot be told, as for want of a descriptor to look
// with, somebody does: a plugin does not get back a name that is taken from it.
func gone(socket string) bool {
	err := listens(socket)
	return errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errGone)
}

// guard starts the process that waits for the end of this one.
func guard(command []string, socket string) (stop func(), err error) {
	if len(command) == 0 {
		return func() {}, nil
	}
	in, hold, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // it outlives every context
	cmd.Args = append(append([]string{}, command...), socket)
	cmd.Stdin = in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what is typed at the terminal is not for it
	if err := cmd.Start(); err != nil {
		_ = hold.Close()
		return nil, err
	}
	return func() {
		_ = hold.Close()
		_ = cmd.Wait() // it finds nothing to do
	}, nil
}

// Guard waits for the end of its input, which is that of the trace, and puts the socket back.
func Guard(input io.Reader, socket string) error {
	_, _ = io.Copy(io.Discard, input)
	// A process that ends lets go of its lock a little later than of its pipe. Where another trace
	// has it, that one puts right what it finds.
	for range 500 {
		n, err := lock(socket)
		if err == nil {
			defer n.unlock()
			return n.mend()
		}
		if !errors.Is(err, errdefs.ErrInUse) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// Mend puts back the socket of a plugin whose trace was killed. It changes nothing where there
// is nothing to mend, or where a trace is at work.
func Mend(socket string) error {
	n, err := lock(socket)
	if errors.Is(err, errdefs.ErrInUse) {
		return nil
	}
	if err != nil {
		return err
	}
	defer n.unlock()
	return n.mend()
}

// Left returns the sockets below dir whose traces were killed and not mended.
func Left(dir string) []string {
	entries, err := os.ReadDir(filepath.Join(dir, asideDir))
	if err != nil {
		return nil
	}
	var all []string
	for _, e := range entries {
		if e.Type() != fs.ModeSocket {
			continue
		}
		socket := filepath.Join(dir, e.Name())
		if n, err := lock(socket); err == nil {
			n.unlock()
			all = append(all, socket)
		}
	}
	return all
}

// note is what lies beside a socket that is traced.
type note struct {
	socket string
	// aside is the second name of the plugin's own socket.
	aside string
	lock  *os.File
}

// asideDir is where second names are. An engine that lists the sockets looks into directories,
// but for sockets of the same name alone.
const asideDir = ".remora-trace"

// lock makes sure that there is one trace of a socket.
func lock(socket string) (*note, error) {
	dir := filepath.Join(filepath.Dir(socket), asideDir)
	n := &note{socket: socket, aside: filepath.Join(dir, filepath.Base(socket))}
	if _, err := os.Stat(filepath.Dir(dir)); errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.Errorf(errdefs.ErrNotFound, "socket %q: not found", socket)
	}
	for {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, denied(socket, err)
		}
		f, err := os.OpenFile(n.aside+".lock", os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another trace ended
		}
		if err != nil {
			return nil, denied(socket, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a descriptor fits an int
			_ = f.Close()
			return nil, errdefs.Errorf(errdefs.ErrInUse, "socket %q: is being traced already", socket)
		}
		// The file may have been removed by the one who had the lock before.
		at, err := os.Stat(n.aside + ".lock")
		is, ierr := f.Stat()
		if err == nil && ierr == nil && os.SameFile(at, is) {
			n.lock = f
			return n, nil
		}
		_ = f.Close()
	}
}

func denied(socket string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return errdefs.Errorf(errdefs.ErrDenied, "socket %q: %w", socket, err)
	}
	return errdefs.Errorf(errdefs.ErrUnavailable, "socket %q: %w", socket, err)
}

// unlock ends the trace of the socket, and removes what is empty.
func (n *note) unlock() {
	at, err := os.Stat(n.aside + ".lock")
	is, ierr := n.lock.Stat()
	if err == nil && ierr == nil && os.SameFile(at, is) { // it may be another's, where the directory was cleared
		_ = os.Remove(n.aside + ".lock")
	}
	_ = n.lock.Close()
	_ = os.Remove(filepath.Dir(n.aside)) // if no other is traced
}

// mend puts back what a trace has left behind.
func (n *note) mend() error {
	own, err := os.Lstat(n.aside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return denied(n.socket, err)
	}
	at, err := os.Lstat(n.socket)
	listening := listens(n.socket)
	switch {
	case err == nil && os.SameFile(own, at), listening == nil:
		// It was killed before it changed anything, or a plugin that started since has taken
		// the name.
		return os.Remove(n.aside)
	case gone(n.aside):
		// The plugin has ended as well. A socket on which nobody listens makes engines wait.
		if err == nil {
			_ = os.Remove(n.socket)
		}
		return os.Remove(n.aside)
	case gone(n.socket), errors.Is(listening, errdefs.ErrInvalid):
		return os.Rename(n.aside, n.socket)
	}
	return listening
}
