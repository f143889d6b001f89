package logging_test

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/remora-plugins/remora/internal/logging"
)

func TestEngine(t *testing.T) {
	var out, errs bytes.Buffer
	log := logging.NewEngine(&out, &errs, slog.LevelDebug)
	log.Debug("looked")
	log.With("pool", "remora").Info("volume created", "volume", "dbdata", "took", "1.2 s", "none", "")
	log.WithGroup("call").Info("x", slog.Group("", slog.String("password", "p4ss"), slog.Group("of", slog.Int("n", 2))))
	log.Warn("slow", "error", errors.New("volume \"a\":\nno\x1banswer"))
	log.Error("gone")
	want := "debug: looked\nvolume created pool=remora volume=dbdata took='1.2 s' none=''\nx call.password=REDACTED call.of.n=2\n"
	if got := out.String(); got != want {
		t.Errorf("standard output is\n%s, want\n%s", got, want)
	}
	want = "warning: slow error='volume 'a': no?answer'\ngone\n"
	if got := errs.String(); got != want {
		t.Errorf("standard error is\n%s, want\n%s", got, want)
	}

	out.Reset()
	logging.NewEngine(&out, &errs, nil).Debug("unseen")
	if out.Len() > 0 {
		t.Errorf("below its level: %s", out.String())
	}
}
