package runtime

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Limits of what is kept of a plugin's output.
const (
	// maxLog is how large a log becomes before it is rotated; one older is kept.
	maxLog = 4 << 20
	// maxLine is the longest line; what is longer becomes several.
	maxLine = 16 << 10
)

// The names of the streams in a [Line].
const (
	Stdout = "stdout"
	Stderr = "stderr"
	// Remora has the lines that tell what became of the plugin.
	Remora = "remora"
)

// Line is one line that a plugin wrote.
type Line struct {
	Time   time.Time
	Stream string
	Text   string
}

// logFile is the log of one plugin. The methods are called with the output's lock held.
type logFile struct {
	dir  string
	f    *os.File
	size int64
	max  int64
}

const (
	logName = "log"
	oldName = "log.1"
)

func openLog(dir string, limit int64) (*logFile, error) {
	l := &logFile{dir: dir, max: limit}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(filepath.Join(l.dir, logName), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	l.f, l.size = f, fi.Size()
	l.whole()
	return nil
}

// whole takes away what a crash, or a full disk, has left of a line, so that the next one is none with it.
func (l *logFile) whole() {
	end := make([]byte, min(l.size, 2*maxLine))
	if _, err := l.f.ReadAt(end, l.size-int64(len(end))); err != nil {
		return
	}
	if size := l.size - int64(len(end)-1-bytes.LastIndexByte(end, '\n')); l.f.Truncate(size) == nil {
		l.size = size
	}
}

// write appends lines. A disk that is full costs lines, and neither the plugin nor the daemon.
func (l *logFile) write(lines []Line) error {
	var buf bytes.Buffer
	for _, line := range lines {
		buf.WriteString(line.Time.UTC().Format(time.RFC3339Nano))
		buf.WriteByte(' ')
		buf.WriteString(line.Stream)
		buf.WriteByte(' ')
		buf.WriteString(line.Text)
		buf.WriteByte('\n')
	}
	if l.size > 0 && l.size+int64(buf.Len()) > l.max {
		// It may be gone: by a hand, or because no new one could be opened the last time.
		if err := os.Rename(filepath.Join(l.dir, logName), filepath.Join(l.dir, oldName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_ = l.f.Close()
		if err := l.open(); err != nil {
			l.size = l.max // it is tried again with the next line
			return err
		}
	}
	n, err := l.f.Write(buf.Bytes())
	l.size += int64(n)
	if n > 0 && err != nil {
		l.whole()
	}
	return err
}

func (l *logFile) close() { _ = l.f.Close() }

// readLog returns the last lines of the log in a directory, all for tail < 0. What a crash left half is passed over.
func readLog(dir string, tail int) ([]Line, error) {
	var lines []Line
	for _, name := range []string{oldName, logName} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for text := range strings.Lines(string(data)) {
			if line, ok := parseLine(text); ok {
				lines = append(lines, line)
			}
		}
	}
	if tail >= 0 && len(lines) > tail {
		lines = lines[len(lines)-tail:]
	}
	return lines, nil
}

func parseLine(text string) (Line, bool) {
	text, whole := strings.CutSuffix(text, "\n")
	at, rest, ok := strings.Cut(text, " ")
	stream, text, ok2 := strings.Cut(rest, " ")
	t, err := time.Parse(time.RFC3339Nano, at)
	return Line{t, stream, text}, whole && ok && ok2 && err == nil
}
