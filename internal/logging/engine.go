package logging

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// NewEngine returns a logger for a managed plugin, whose lines an engine puts into its own
// log with its own time: what the plugin writes to standard output as information, what it
// writes to standard error as an error, each as one quoted text. So a line has no time, no
// level that the engine's line has already, and no double quotes:
//
//	volume created volume=dbdata took='1.2 s'
func NewEngine(stdout, stderr io.Writer, level slog.Leveler) *slog.Logger {
	if level == nil {
		level = slog.LevelInfo
	}
	return slog.New(&engineHandler{out: stdout, err: stderr, level: level, mu: new(sync.Mutex)})
}

type engineHandler struct {
	out, err io.Writer
	level    slog.Leveler
	mu       *sync.Mutex
	attrs    string   // of With, as they are written
	groups   []string // that are open
}

func (h *engineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *engineHandler) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	w := h.out
	switch {
	case r.Level >= slog.LevelError:
		w = h.err
	case r.Level >= slog.LevelWarn:
		w = h.err
		b.WriteString("warning: ")
	case r.Level < slog.LevelInfo:
		b.WriteString("debug: ")
	}
	b.WriteString(oneLine(r.Message))
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.groups, a)
		return true
	})
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := w.Write(b.Bytes())
	return err
}

func (h *engineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b bytes.Buffer
	for _, a := range attrs {
		appendAttr(&b, h.groups, a)
	}
	c := *h
	c.attrs += b.String()
	return &c
}

func (h *engineHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.groups = append(slices.Clip(h.groups), name)
	return &c
}

func appendAttr(b *bytes.Buffer, groups []string, a slog.Attr) {
	a.Value = a.Value.Resolve()
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" {
			groups = append(slices.Clip(groups), a.Key)
		}
		for _, member := range a.Value.Group() {
			appendAttr(b, groups, member)
		}
		return
	}
	if a = redact(groups, a); a.Equal(slog.Attr{}) {
		return
	}
	b.WriteByte(' ')
	for _, g := range groups {
		b.WriteString(g)
		b.WriteByte('.')
	}
	b.WriteString(a.Key)
	b.WriteByte('=')
	text := oneLine(a.Value.String())
	if text == "" || strings.ContainsAny(text, " =") {
		text = "'" + text + "'"
	}
	b.WriteString(text)
}

// oneLine has nothing in it that the engine would have to escape.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
}
