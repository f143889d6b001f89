package runtime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher tells of changes of files and directories (inotify(7)), all of a Runtime with one descriptor, of which a user
// has only 128.
type watcher struct {
	f *os.File

	mu    sync.Mutex
	calls map[int32]watch
	ended chan struct{}
}

type watch struct {
	path string
	call func(name string)
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watcher{f: os.NewFile(uintptr(fd), "inotify"), calls: map[int32]watch{}, ended: make(chan struct{})}
	go w.run()
	return w, nil
}

// add has call called, one at a time, when one of events happens to path; in a directory with the name of the file.
func (w *watcher) add(path string, events uint32, call func(name string)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	conn, err := w.f.SyscallConn()
	if err != nil {
		return err
	}
	var wd int
	var aerr error
	if err := conn.Control(func(fd uintptr) { wd, aerr = unix.InotifyAddWatch(int(fd), path, events) }); err != nil {
		return err
	}
	if aerr != nil {
		return &os.PathError{Op: "watch", Path: path, Err: aerr}
	}
	w.calls[int32(wd)] = watch{path, call} //nolint:gosec // the kernel's own is 32 bits
	return nil
}

// remove forgets the watches of path.
func (w *watcher) remove(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	conn, err := w.f.SyscallConn()
	if err != nil {
		return
	}
	for wd, c := range w.calls {
		if c.path == path {
			_ = conn.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) }) //nolint:gosec // as above
			delete(w.calls, wd)
		}
	}
}

func (w *watcher) run() {
	defer close(w.ended)
	buf := make([]byte, 16<<10)
	for {
		n, err := w.f.Read(buf)
		if errors.Is(err, os.ErrClosed) || n == 0 {
			return
		}
		// Many events of one file are one.
		type event struct {
			wd   int32
			name string
		}
		var events []event
		seen := map[event]bool{}
		for rest := buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(rest)) //nolint:gosec // a descriptor, or -1 where events were lost
			length := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			name, _, _ := bytes.Cut(rest[unix.SizeofInotifyEvent:length], []byte{0})
			if e := (event{wd, string(name)}); !seen[e] {
				seen[e] = true
				events = append(events, e)
			}
			rest = rest[length:]
		}
		for _, e := range events {
			for _, call := range w.find(e.wd) {
				call(e.name)
			}
		}
	}
}

// find returns who wants to hear of an event: everybody, where the kernel had to leave some out.
func (w *watcher) find(wd int32) []func(string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if wd >= 0 {
		if c, ok := w.calls[wd]; ok {
			return []func(string){c.call}
		}
		return nil
	}
	var all []func(string)
	for _, c := range w.calls {
		all = append(all, c.call)
	}
	return all
}

func (w *watcher) close() {
	_ = w.f.Close()
	<-w.ended
}
