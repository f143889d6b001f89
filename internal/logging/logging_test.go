package logging_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/logging"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestParseLevel(t *testing.T) {
	last := slog.Level(-100)
	for _, name := range logging.Levels() {
		got, err := logging.ParseLevel(name)
		if err != nil || got <= last {
			t.Errorf("%s is %v, %v", name, got, err)
		}
		last = got
	}
	if _, err := logging.ParseLevel("loud"); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "debug, info") {
		t.Errorf("unknown level: %v", err)
	}
}

func TestJSONWhereThereIsNoTerminal(t *testing.T) {
	var out bytes.Buffer
	var level slog.LevelVar
	log := logging.New(&out, &level)
	log.Debug("unseen")
	level.Set(slog.LevelDebug)
	log.Debug("seen", "volume", "data")
	if got := out.String(); strings.Contains(got, "unseen") || !strings.Contains(got, `"msg":"seen","volume":"data"}`) {
		t.Errorf("log is %s", got)
	}
	f, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	logging.New(f, nil).Info("x")
	if raw, err := os.ReadFile(f.Name()); err != nil || !strings.HasPrefix(string(raw), "{") {
		t.Errorf("a file got %q, %v", raw, err)
	}
}

func TestFormat(t *testing.T) {
	for format, want := range map[string]string{"text": "level=INFO msg=x\n", "json": `"level":"INFO","msg":"x"}` + "\n", "auto": "\"msg\":\"x\"}\n"} {
		var out bytes.Buffer
		logging.NewFormat(&out, nil, format).Info("x")
		if !strings.HasSuffix(out.String(), want) {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}

func TestTextOnTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal to be had: %v", err)
	}
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skipf("no terminal to be had: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	logging.New(tty, nil).Info("hello", "volume", "data")
	buf := make([]byte, 200)
	n, err = master.Read(buf)
	if err != nil || !strings.Contains(string(buf[:n]), "msg=hello volume=data") {
		t.Errorf("terminal shows %q, %v", buf[:n], err)
	}
}

func TestSecretsAreRedacted(t *testing.T) {
	var out bytes.Buffer
	log := logging.New(&out, nil).With("API-Key", "hunter2")
	log.Info("x", "Password", "hunter2", "opts", slog.GroupValue(slog.String("db_token", "hunter2"), slog.String("size", "10g")))
	log.WithGroup("credentials").Info("y", "user", "hunter2")
	got := out.String()
	if strings.Contains(got, "hunter2") || strings.Count(got, "REDACTED") != 5 || !strings.Contains(got, `"size":"10g"`) {
		t.Errorf("log is %s", got)
	}
}
