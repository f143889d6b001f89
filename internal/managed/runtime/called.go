package runtime

import (
	"context"
	"log/slog"
	"strings"
)

// called is a handler of logs for what is no managed plugin, and is called otherwise.
type called struct {
	slog.Handler

	word string
}

func (c called) Handle(ctx context.Context, r slog.Record) error {
	r.Message = strings.Replace(r.Message, "managed plugin", c.word, 1)
	return c.Handler.Handle(ctx, r)
}

func (c called) WithAttrs(attrs []slog.Attr) slog.Handler {
	return called{c.Handler.WithAttrs(attrs), c.word}
}

func (c called) WithGroup(name string) slog.Handler {
	return called{c.Handler.WithGroup(name), c.word}
}
