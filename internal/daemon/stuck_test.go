package daemon

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const stuckToml = "shutdown_timeout = \"50ms\"\n[pool.good]\n[pool.stuck]\ndriver = \"stuck\"\n"

// openStuck is a pool whose driver hangs before it is there.
const openStuck = "hang = true\n"

// A driver that hangs at its end holds up neither a reload nor a stop, and no engine that
// calls another pool.
func TestDriverThatDoesNotEnd(t *testing.T) {
	gate := make(chan struct{})
	h := newHost(t, stuckToml)
	h.configure(stuckToml + "[pool.gone]\ndriver = \"stuck\"\n")
	opening := make(chan struct{})
	h.start(stuckDriver(gate, opening))
	h.await("ready", func() bool { _, _, err := h.page("/healthz"); return err == nil && h.served() })
	done := make(chan error, 1)
	h.configure(stuckToml + "text = \"changed\"\n")
	go func() {
		_, err := h.control.Reload(t.Context())
		done <- err
	}()
	h.must(h.plugin("good").Create(t.Context(), "data", nil))
	select {
	case err := <-done:
		h.must(err)
	case <-time.After(patience):
		t.Fatal("reload does not come back")
	}
	// Nor does one that hangs at its beginning hold up a stop.
	h.configure(stuckToml + openStuck)
	go func() {
		_, err := h.control.Reload(t.Context())
		done <- err
	}()
	<-opening
	start := time.Now()
	err := h.stop()
	if err == nil || !strings.Contains(err.Error(), "driver has not ended") || strings.Contains(err.Error(), "\n") {
		t.Errorf("stop: %v", err)
	}
	if took := time.Since(start); took > patience/2 {
		t.Errorf("stopped after %v", took)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("reload that was under way: %v", err)
	}
	close(gate)
}

// SIGTERM is heard although a reload waits.
func TestSIGTERMInAReload(t *testing.T) {
	h := newHost(t, stuckToml)
	told := listenNotify(t, h.dir+"/notify")
	c := startChild(h)
	h.configure(stuckToml + "text = \"changed\"\n")
	c.signal(syscall.SIGHUP)
	h.await("reload", func() bool {
		return slices.ContainsFunc(told(), func(s string) bool { return strings.HasPrefix(s, "RELOADING=1") })
	})
	c.signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { _ = c.cmd.Wait(); close(ended) }() // that a driver did not end is an error
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("SIGTERM was not heard")
		c.signal(syscall.SIGKILL)
		<-ended
	}
}

// Storage that does not answer keeps no engine from another pool, and a stop does not wait
// for it.
func TestStartBesidePoolsThatHang(t *testing.T) {
	gate := make(chan struct{})
	h := newHost(t, "shutdown_timeout = \"50ms\"\n[pool.a]\ndriver = \"dead\"\n[pool.b]\ndriver = \"dead\"\n[pool.c]\n")
	start := time.Now()
	h.start(deadDriver(gate))
	h.await("the pool that answers", func() bool { return h.plugin("c").Create(t.Context(), "data", nil) == nil })
	if took := time.Since(start); took > patience/4 {
		t.Errorf("it was served after %v", took)
	}
	if text, ok, err := h.page("/readyz"); ok || err != nil {
		t.Errorf("readyz: %q, %v", text, err)
	}
	start = time.Now()
	_ = h.stop() // says that calls still run
	if took := time.Since(start); took > patience/2 {
		t.Errorf("stopped after %v", took)
	}
	close(gate)
}
