package volumetest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// broken are mistakes in the Handler, in the words of its own source, and the case that must
// fail for each.
var broken = map[string]struct{ file, right, wrong, fails string }{
	"OneLockForAllVolumes": {
		"run.go", "bounded.Run(ctx, h.runner, volume, v)", `bounded.Run(ctx, h.runner, "all of them", v)`,
		"SlowRemoteBlocksNoRestore",
	},
	"GetWaitsForTheListing": {
		"handler.go", "	if info, ok := h.index.get(name); ok {\n", "	h.listing <- struct{}{}\n	<-h.listing\n	if info, ok := h.index.get(name); ok {\n",
		"SlowRemoteBlocksNoRestore",
	},
	"StartWithoutLimit": {
		"reconcile.go", "ctx, cancel := h.limit(ctx, h.options.LongTimeout)", "ctx, cancel := context.WithCancel(ctx)",
		"StartWhileStorageHangs",
	},
	"NothingIsListedAtFirst": {
		"index.go", "	all, loaded = x.sorted, x.loaded\n", "	all, loaded = x.sorted, true\n",
		"StartWhileStorageHangs",
	},
	"OutOfReachIsGone": {
		"handler.go",
		"(Info, error) { return h.inspect(ctx, name) })\n	if err != nil {\n",
		"(Info, error) { return h.inspect(ctx, name) })\n	if err != nil {\n		err = errdefs.ErrNotFound\n",
		"StartWhileStorageHangs",
	},
	"PingAsksNobody": {
		"handler.go", "if p, ok := h.driver.(Pinger); ok {", "if p, ok := h.driver.(Pinger); ok && p == nil {",
		"PingTellsOfTheStorage",
	},
	"PingSwallowsErrors": {
		"handler.go", "return struct{}{}, p.Ping(ctx) })\n		return redact(err, nil)", "return struct{}{}, p.Ping(ctx) })\n		_ = err\n		return nil",
		"PingTellsOfTheStorage",
	},
	"PingWithoutLimit": {
		"handler.go", "bounded.Look(ctx, h.runner, func(ctx context.Context) (struct{}, error) { return struct{}{}, p.Ping(ctx) })",
		"func() (_ struct{}, err error) { defer func() { if recover() != nil { err = errdefs.ErrInvalid } }(); return struct{}{}, p.Ping(ctx) }()",
		"PingTellsOfTheStorage",
	},
}

// TestBrokenHandler shows that the cases that hold the Handler to something find it broken. The
// suite runs as a process of its own, with a real driver and with one line of the Handler's
// source changed (go build -overlay).
func TestBrokenHandler(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short: builds the suite once for each mistake")
	}
	module, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			path := filepath.Join(module, "sdk", "volume", b.file)
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(src), b.right); n != 1 {
				t.Fatalf("%s has %d times what is to be broken; bring the test up to date: %q", b.file, n, b.right)
			}
			dir := t.TempDir()
			mistaken, overlay := filepath.Join(dir, "mistaken.go"), filepath.Join(dir, "overlay.json")
			replace, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mistaken}})
			if err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{mistaken: strings.Replace(string(src), b.right, b.wrong, 1), overlay: string(replace)} {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-count=1", "-timeout=2m", "-overlay", overlay,
				"-run", "^TestConformance$/^wire$/^"+b.fails+"$", "./drivers/volume/dir")
			cmd.Dir = module
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestConformance/wire/"+b.fails) || strings.Contains(string(out), "panic: ") {
				t.Errorf("case %s did not fail, or not as a case should: %v\n%s", b.fails, err, out)
			}
		})
	}
}
