// Package logging chooses how the daemon's log looks: text for a person at a terminal,
// JSON for everything else. It keeps values out of the log whose key says that they
// are secret.
package logging

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Levels returns the names that [ParseLevel] knows, from the most talkative on.
func Levels() []string { return []string{"debug", "info", "warn", "error"} }

// ParseLevel returns the level of that name, or ErrInvalid with the names there are.
func ParseLevel(name string) (slog.Level, error) {
	switch name {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, errdefs.Errorf(errdefs.ErrInvalid, "log level %q: not one of %s", name, strings.Join(Levels(), ", "))
}

// New returns a logger that writes to w: text if w is a terminal, else one JSON object
// a line. level may change while the logger is used, as a [slog.LevelVar] does; nil is
// info.
func New(w io.Writer, level slog.Leveler) *slog.Logger { return NewFormat(w, level, "auto") }

// NewFormat is [New] with the choice of the format: "text", "json", or "auto" as New has
// it, which any other word is too.
func NewFormat(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	if level == nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: redact}
	if format == "text" || format != "json" && IsTerminal(w) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

// IsTerminal tells whether a file, an [os.File] in any guise, is a terminal.
func IsTerminal(file any) bool {
	f, ok := file.(*os.File)
	if !ok {
		return false
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	terr := errors.ErrUnsupported
	err = conn.Control(func(fd uintptr) { _, terr = unix.IoctlGetTermios(int(fd), unix.TCGETS) })
	return err == nil && terr == nil
}

// secretWords are parts of keys whose values are secret.
var secretWords = [...]string{
	"password", "passwd", "passphrase", "secret", "token", "credential", "private_key", "access_key", "api_key", "authorization",
}

func redact(groups []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindGroup {
		return a // its members come here one by one
	}
	if isSecret(a.Key) || slices.ContainsFunc(groups, isSecret) {
		return slog.String(a.Key, "REDACTED")
	}
	return a
}

func isSecret(name string) bool {
	name = strings.ReplaceAll(strings.ToLower(name), "-", "_")
	for _, word := range secretWords {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
