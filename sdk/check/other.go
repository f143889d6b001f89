package check

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Log drivers and collectors of metrics are held to their first answers alone: what else they
// do is to be seen in their own sinks.
func otherCases() []Case {
	return []Case{
		{
			ID: "log/capabilities", Kind: Log, run: logCapabilities,
			Asserts: "Capabilities says whether logs can be read, or is not there.",
			Source:  docLog + ", /LogDriver.Capabilities; moby daemon/logger/plugin.go, makePluginCreator",
		},
		{
			ID: "log/start-and-stop", Kind: Log, Basic: true, run: logStartAndStop,
			Asserts: "After StartLogging the plugin reads the FIFO, and StopLogging is answered while the engine has the FIFO open still.",
			Source:  docLog + ", /LogDriver.StartLogging; moby daemon/logger/adapter.go, pluginAdapter",
		},
		{
			ID: "log/unknown-file", Kind: Log, run: logUnknownFile,
			Asserts: "StopLogging of what was never started is answered.",
			Source:  docLog + ", /LogDriver.StopLogging; moby daemon/logger/proxy.go",
		},
		{
			ID: "metrics/start", Kind: Metrics, Basic: true, run: metricsStart,
			Asserts: "StartMetrics is answered with an object, and StopMetrics after it.",
			Source:  docMetrics + ", MetricsCollector.StartMetrics; moby daemon/internal/metrics/plugin_unix.go, StartMetrics",
		},
	}
}

func logCapabilities(t *T) {
	var caps struct{ Cap struct{ ReadLogs bool } }
	err := t.c.Call(t.ctx, "LogDriver.Capabilities", nil, &caps)
	if unanswered(err) {
		t.Fatalf("Capabilities: %w", err)
	}
}

func logInfo(t *T) map[string]any {
	return map[string]any{
		"Config": t.options("log"), "ContainerID": t.hex(64, "container"), "ContainerName": "/" + Prefix + t.p.run, "ContainerEntrypoint": "sh",
		"ContainerArgs": []string{}, "ContainerImageID": "sha256:" + t.hex(64, "image"), "ContainerImageName": "busybox",
		"ContainerCreated": time.Now().UTC(), "ContainerEnv": nil, "ContainerLabels": map[string]string{}, "LogPath": "", "DaemonName": "docker",
	}
}

// frame is one message as the engine writes it: a length, and a protobuf message of source,
// time and line (moby daemon/logger/internal/logdriver/entry.proto).
func frame(line string) []byte {
	msg := append([]byte{0x0a, 6}, "stdout"...)
	msg = binary.AppendUvarint(append(msg, 0x10), uint64(time.Now().UnixNano())) //nolint:gosec // after 1970
	msg = binary.AppendUvarint(append(msg, 0x1a), uint64(len(line)))
	msg = append(msg, line...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(msg))), msg...) //nolint:gosec // a short line
}

func logStartAndStop(t *T) {
	t.here()
	dir, err := os.MkdirTemp("", Prefix)
	t.local("make a directory", err)
	t.undo = append(t.undo, func(context.Context) { _ = os.RemoveAll(dir) }) // ours, below the system's own
	fifo := filepath.Join(dir, t.hex(64, "fifo"))
	t.local("make a FIFO", syscall.Mkfifo(fifo, 0o700))
	f, err := os.OpenFile(fifo, os.O_RDWR|syscall.O_NONBLOCK, 0) // as the engine has it
	t.local("open the FIFO", err)
	defer f.Close()
	t.must("StartLogging", t.c.Call(t.ctx, "LogDriver.StartLogging", map[string]any{"File": fifo, "Info": logInfo(t)}, new(failed)))
	// More than a pipe holds gets through only if it is read.
	line := frame(string(make([]byte, 1000)))
	_ = f.SetWriteDeadline(time.Now().Add(shortWait)) // a FIFO that is non-blocking takes it
	for range 200 {
		if _, err := f.Write(line); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the FIFO is not read: its container hangs")
				break
			}
			t.Fatalf("write into the FIFO: %v", err)
		}
	}
	t.must("StopLogging", t.c.Call(t.ctx, "LogDriver.StopLogging", map[string]string{"File": fifo}, new(failed)))
}

// failed is what an answer has at the least.
type failed struct{ Err string }

func logUnknownFile(t *T) {
	err := t.c.Call(t.ctx, "LogDriver.StopLogging", map[string]string{"File": "/run/docker/logging/" + t.hex(64, "unknown")}, new(failed))
	if unanswered(err) {
		t.Fatalf("StopLogging: %w", err)
	}
}

func metricsStart(t *T) {
	for _, method := range []string{"StartMetrics", "StopMetrics"} {
		var answer struct{ Err string }
		err := t.c.Call(t.ctx, "MetricsCollector."+method, nil, &answer)
		if method == "StopMetrics" && errors.Is(err, errdefs.ErrUnsupported) {
			return
		}
		t.must(method, err)
		if answer.Err != "" {
			t.Errorf("%s: %s", method, answer.Err)
		}
	}
}
