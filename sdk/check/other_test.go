package check_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/sdk/check"
)

// logger is the model of a log driver.
func newLogger(t *testing.T, b bug) *model {
	t.Helper()
	m := &model{bug: b, kinds: []string{"LogDriver"}}
	started := map[string]*os.File{}
	m.call = func(method string, req object) (any, error) {
		file := text(req, "File")
		m.mu.Lock()
		defer m.mu.Unlock()
		switch strings.TrimPrefix(method, "LogDriver.") {
		case "Capabilities":
			if b == "talks nonsense" {
				return "no", nil
			}
			return object{"Cap": object{"ReadLogs": false}}, nil
		case "StartLogging":
			f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				return nil, refuse(err.Error())
			}
			started[file] = f
			if b == "" {
				go func() { _, _ = f.WriteTo(discard{}) }()
			}
			return object{}, nil
		case "StopLogging":
			f := started[file]
			if f == nil && b == "talks nonsense" {
				return "no", nil
			}
			delete(started, file)
			if f != nil {
				_ = f.Close()
			}
			return object{"Err": ""}, nil
		}
		return nil, nil
	}
	return m
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func newCollector(_ *testing.T, b bug) *model {
	m := &model{bug: b, kinds: []string{"MetricsCollector"}}
	m.call = func(method string, _ object) (any, error) {
		switch {
		case !strings.HasPrefix(method, "MetricsCollector."):
			return nil, nil
		case b == "never starts":
			return object{"Err": "no socket"}, nil
		}
		return object{}, nil
	}
	return m
}

func TestLoggers(t *testing.T) {
	t.Parallel()
	mutants{
		"talks nonsense": {"log/capabilities", "log/unknown-file"},
		"never reads":    {"log/start-and-stop"},
	}.check(t, check.Log, newLogger, check.Options{})
}

func TestCollectors(t *testing.T) {
	t.Parallel()
	mutants{"never starts": {"metrics/start"}}.check(t, check.Metrics, newCollector, check.Options{})
}
