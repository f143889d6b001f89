package runtime

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// chunk is how much is read at once.
	chunk = 64 << 10
	// giveBack is how much that was read stays in a file before its room is given back.
	giveBack = 1 << 20
	// maxLag is how far the reader may be behind; then it leaves out what is in between.
	maxLag = 16 << 20
	// maxBurst is how many lines are read in one go; what is more is left out. A log of short lines holds about as many.
	maxBurst = 100_000
	// recentLines is how many lines an error may quote.
	recentLines = 5
	// followed is how many lines a reader of Logs may be behind.
	followed = 4096
)

// output collects what a plugin writes. The plugin has the files open itself, at their ends; here they are read, and
// what has been read is punched out of them, so that they grow in length only.
type output struct {
	dir string
	log *slog.Logger // has the plugin's id and name

	mu        sync.Mutex
	streams   [2]*stream
	offsets   *os.File // how far each was read
	file      *logFile
	recent    []string
	followers map[chan Line]struct{}
	failed    bool // the last write to the log failed
	klog      bool // on stderr is all that is said, each line with its level
	closed    bool

	wake chan struct{} // something was written
	done chan struct{} // closed when closed is set
}

type stream struct {
	name    string
	f       *os.File
	read    int64 // up to here it was read
	punched int64 // up to here its room was given back
	partial []byte
}

// openOutput opens the files of a plugin, and goes on where they were left.
func openOutput(dir string, log *slog.Logger, limit int64) (*output, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	o := &output{dir: dir, log: log, followers: map[chan Line]struct{}{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	var err error
	if o.file, err = openLog(dir, limit); err != nil {
		return nil, err
	}
	if o.offsets, err = os.OpenFile(filepath.Join(dir, "offsets"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		o.close()
		return nil, err
	}
	var at [16]byte
	_, _ = o.offsets.ReadAt(at[:], 0)
	for i, name := range []string{Stdout, Stderr} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			o.close()
			return nil, err
		}
		read := int64(binary.LittleEndian.Uint64(at[i*8:])) //nolint:gosec // it was one
		o.streams[i] = &stream{name: name, f: f, read: max(read, 0)}
	}
	go o.follow()
	return o, nil
}

// poke has read what was written, beside the caller: who watches all plugins is not to wait for one of them.
func (o *output) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *output) follow() {
	for {
		select {
		case <-o.wake:
			o.drain()
		case <-o.done:
			return
		}
	}
}

// ends returns the files for a plugin to write to, when none has them: what is in them is read and forgotten.
func (o *output) ends() (stdout, stderr *os.File, err error) {
	o.drain()
	o.flush()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.recent = nil
	for _, s := range o.streams {
		if err := s.f.Truncate(0); err != nil {
			return nil, nil, err
		}
		s.read, s.punched = 0, 0
	}
	o.remember()
	open := func(s *stream) (*os.File, error) {
		return os.OpenFile(filepath.Join(o.dir, s.name), os.O_WRONLY|os.O_APPEND, 0)
	}
	if stdout, err = open(o.streams[0]); err != nil {
		return nil, nil, err
	}
	// It is locked as long as any process has it open, whoever that is by then.
	_ = unix.Flock(int(stdout.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if stderr, err = open(o.streams[1]); err != nil {
		_ = stdout.Close()
		return nil, nil, err
	}
	return stdout, stderr, nil
}

// released waits until no process has the end of a plugin's output open any more: what runc began and did not bring as
// far as the control group ends by itself, when runc has been killed, but not at the same instant. It waits for a while
// only, since a plugin may have given its output to a process of the host.
func released(ctx context.Context, dir string, limit time.Duration) {
	f, err := os.Open(filepath.Join(dir, Stdout))
	if err != nil {
		return
	}
	defer f.Close()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			return // closing it unlocks it
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// drain reads what there is when it is called. What is written meanwhile is for the next time: a plugin may write
// faster than anybody reads.
func (o *output) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	var ends [2]int64
	for i, s := range o.streams {
		if fi, err := s.f.Stat(); err == nil {
			ends[i] = fi.Size()
		}
	}
	read := 0
	for more := true; more; {
		more = false
		var lines []Line
		for i, s := range o.streams {
			if read > maxBurst {
				lines = append(lines, s.leaveOut(ends[i]-maxLine)...)
			}
			got, again := s.next(ends[i])
			lines = append(lines, got...)
			more = more || again
		}
		read += len(lines)
		o.emit(lines)
		o.remember()
	}
}

// flush ends lines that have no end, when their writer is gone.
func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	var lines []Line
	for _, s := range o.streams {
		if len(s.partial) > 0 {
			lines = append(lines, s.line(s.partial))
			s.partial = nil
		}
	}
	o.emit(lines)
}

// note adds a line of the daemon's own.
func (o *output) note(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep([]Line{{time.Now(), Remora, text}})
}

func (o *output) emit(lines []Line) {
	if len(lines) == 0 {
		return
	}
	for _, line := range lines {
		say := map[slog.Level]func(string, ...any){slog.LevelInfo: o.log.Info, slog.LevelWarn: o.log.Warn, slog.LevelError: o.log.Error}
		say[o.level(line)](line.Text)
		if strings.TrimSpace(line.Text) == "" {
			continue
		}
		if o.recent = append(o.recent, line.Text); len(o.recent) > recentLines {
			o.recent = o.recent[1:]
		}
	}
	o.keep(lines)
}

// level is how grave a line is. Most drivers of storage write all to stderr, as klog does: "E0102 15:04:05 …" is an error.
func (o *output) level(line Line) slog.Level {
	switch {
	case line.Stream != Stderr:
		return slog.LevelInfo
	case !o.klog:
		return slog.LevelError
	case len(line.Text) > 5 && strings.Trim(line.Text[1:5], "0123456789") == "":
		switch line.Text[0] {
		case 'W':
			return slog.LevelWarn
		case 'E', 'F':
			return slog.LevelError
		}
	}
	return slog.LevelInfo
}

func (o *output) keep(lines []Line) {
	if o.closed {
		return
	}
	err := o.file.write(lines)
	if err != nil && !o.failed {
		o.log.Warn("what the plugin writes cannot be kept", slog.String("error", err.Error()))
	}
	o.failed = err != nil
	for ch := range o.followers {
		for _, line := range lines {
			select {
			case ch <- line:
			default: // a reader that does not read loses lines, nobody else does
			}
		}
	}
}

// remember writes down how far was read, after what was read is in the log.
func (o *output) remember() {
	var at [16]byte
	for i, s := range o.streams {
		done := s.read - int64(len(s.partial))
		binary.LittleEndian.PutUint64(at[i*8:], uint64(done)) //nolint:gosec // not negative
		s.punch(done)
	}
	_, _ = o.offsets.WriteAt(at[:], 0)
}

// last returns the last lines, as one.
func (o *output) last() string {
	o.drain()
	o.flush()
	o.mu.Lock()
	defer o.mu.Unlock()
	return oneLine(strings.Join(o.recent, " | "), maxText)
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	close(o.done)
	for ch := range o.followers {
		close(ch)
	}
	o.followers = nil
	for _, s := range o.streams {
		if s != nil {
			_ = s.f.Close()
		}
	}
	if o.offsets != nil {
		_ = o.offsets.Close()
	}
	o.file.close()
}

// next returns the lines of the next piece, and whether there may be more before end. How far it is behind is looked at
// each time, since what is not read takes room.
func (s *stream) next(end int64) (lines []Line, more bool) {
	fi, err := s.f.Stat()
	if err != nil {
		return nil, false
	}
	switch lag := fi.Size() - s.read; {
	case lag < 0: // it is the plugin's file, who may cut it off
		s.read, s.punched, s.partial = 0, 0, nil
	case lag > maxLag:
		lines = s.leaveOut(fi.Size() - giveBack)
	}
	buf := make([]byte, min(chunk, max(end-s.read, 0)))
	n, _ := s.f.ReadAt(buf, s.read)
	if n == 0 {
		return lines, false
	}
	s.read += int64(n)
	s.partial = append(s.partial, buf[:n]...)
	for {
		i := bytes.IndexByte(s.partial, '\n')
		switch {
		case i >= 0 && i <= maxLine:
			lines = append(lines, s.line(s.partial[:i]))
			s.partial = s.partial[i+1:]
		case len(s.partial) > maxLine:
			lines = append(lines, s.line(s.partial[:maxLine]))
			s.partial = s.partial[maxLine:]
		default:
			s.partial = bytes.Clone(s.partial)
			return lines, n == chunk
		}
	}
}

// leaveOut goes on at a later place, and returns a line that says so.
func (s *stream) leaveOut(at int64) []Line {
	left := at - s.read
	if left <= 0 {
		return nil
	}
	s.read, s.partial = at, nil
	return []Line{s.line(fmt.Appendf(nil, "(%d bytes were written too fast, and are left out)", left))}
}

// line makes text harmless: a terminal may show it.
func (s *stream) line(text []byte) Line {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return r
		case r == 0 || r == '\r':
			return -1
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(text), "?"))
	return Line{time.Now(), s.name, clean}
}

// punch gives the room of what lies before done back to the file system.
func (s *stream) punch(done int64) {
	if done-s.punched < giveBack {
		return
	}
	end := done &^ 4095
	err := unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.punched, end-s.punched)
	if err != nil {
		// A file system without holes. What is written between the look and the cut is lost.
		if fi, serr := s.f.Stat(); serr != nil || fi.Size() != done || s.f.Truncate(0) != nil {
			return
		}
		s.read, end = 0, 0
	}
	s.punched = end
}
