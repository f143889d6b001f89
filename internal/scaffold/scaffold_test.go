package scaffold

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// in runs a command of the author's in the directory of the plugin, without a net.
func in(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -p=1", "GOPROXY=off", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestNewPlugins does with a plugin of each kind what its README says, against this tree's SDK.
func TestNewPlugins(t *testing.T) {
	if testing.Short() {
		t.Skip("short: four plugins are compiled and put through their suites")
	}
	tree, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	implements := map[string][]string{
		"volume": {"VolumeDriver"}, "network": {"NetworkDriver", "IpamDriver"}, "ipam": {"IpamDriver"}, "authz": {"authz"},
	}
	for _, kind := range Kinds() {
		t.Run(kind, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "my-"+kind)
			files, err := Write(dir, Plugin{Kind: kind, Name: "my-" + kind, Module: "example.com/my-" + kind, SDK: "(devel)"})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{".github/workflows/ci.yml", ".gitignore", "Makefile", "README.md", "config.json", "go.mod", "main.go", "main_test.go", "my-" + kind + ".service"} {
				if !slices.Contains(files, want) {
					t.Errorf("no %s among %q", want, files)
				}
			}
			for _, name := range files {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(b), "[[") || strings.Contains(string(b), "NAME") {
					t.Errorf("%s has places that nothing was put into", name)
				}
				if formatted, err := format.Source(b); strings.HasSuffix(name, ".go") && (err != nil || string(formatted) != string(b)) {
					t.Errorf("%s is not as gofmt has it: %v", name, err)
				}
			}
			in(t, dir, "go", "mod", "edit", "-require=github.com/remora-plugins/remora@v0.0.0", "-replace=github.com/remora-plugins/remora="+tree)
			if out := in(t, dir, "make", "test"); !strings.Contains(out, "ok  \texample.com/my-"+kind) {
				t.Errorf("make test says %s", out)
			}
			in(t, dir, "make", "bundle")
			checkBundle(t, filepath.Join(dir, "bundle"), "my-"+kind)
			checkAnswers(t, filepath.Join(dir, "my-"+kind), kind, implements[kind])
		})
	}
}

// checkBundle looks at a bundle as an engine does.
func checkBundle(t *testing.T, dir, name string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c plugin.Config
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Interface.Types) == 0 || c.Interface.Socket != name+".sock" || len(c.Entrypoint) == 0 {
		t.Fatalf("config.json is %+v", c)
	}
	program, err := elf.Open(filepath.Join(dir, "rootfs", c.Entrypoint[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if libs, err := program.ImportedLibraries(); err == nil && len(libs) > 0 {
		t.Errorf("the program loads %q, which the rootfs lacks", libs)
	}
}

// checkAnswers starts the program and asks what it is, as an engine does first.
func checkAnswers(t *testing.T, program, kind string, want []string) {
	t.Helper()
	short, err := os.MkdirTemp("", "new")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(short) })
	args := []string{"start", "-socket", filepath.Join(short, "p.sock")}
	switch kind {
	case "volume":
		args = append(args, "-root", short)
	case "network", "ipam":
		args = append(args, "-state", filepath.Join(short, "state"))
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := activate(ctx, filepath.Join(short, "p.sock"))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("it implements %q, %v; want %q", got, err, want)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func activate(ctx context.Context, socket string) ([]string, error) {
	for {
		c, err := client.New(client.Endpoint{Name: "p", Addr: "unix://" + socket}, client.Options{})
		if err == nil {
			var kinds []string
			kinds, err = c.Activate(ctx)
			if err == nil {
				return kinds, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []Plugin{
		{Kind: "disk", Name: "x"},
		{Kind: "volume"},
		{Kind: "volume", Name: "Big"},
		{Kind: "volume", Name: "../x"},
		{Kind: "volume", Name: "x", Module: "a b"},
		{Kind: "volume", Name: "1x"},
		{Kind: "volume", Name: "bundle"},
	} {
		if _, err := Write(filepath.Join(dir, "wrong"), p); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%+v: %v, want ErrInvalid", p, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("wrong ones left %v, %v", entries, err)
	}

	full := filepath.Join(dir, "full")
	if err := os.MkdirAll(full, 0o700); err != nil {
		t.Fatal(err)
	}
	p := Plugin{Kind: "authz", Name: "guard", SDK: "v1.2.3"}
	if _, err := Write(full, p); err != nil {
		t.Errorf("into an empty directory: %v", err)
	}
	mod, err := os.ReadFile(filepath.Join(full, "go.mod"))
	if err != nil || string(mod) != "module guard\n\ngo 1.26.0\n\nrequire github.com/remora-plugins/remora v1.2.3\n" {
		t.Errorf("go.mod is %q, %v", mod, err)
	}
	if err := os.WriteFile(filepath.Join(full, "main.go"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(full, p); !errors.Is(err, errdefs.ErrExists) {
		t.Errorf("over another: %v, want ErrExists", err)
	}
	if b, err := os.ReadFile(filepath.Join(full, "main.go")); err != nil || string(b) != "mine" {
		t.Errorf("what was there is %q, %v", b, err)
	}
	if _, err := Write(filepath.Join(full, "main.go"), p); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("over a file: %v, want ErrInvalid", err)
	}
}

// TestShipped is about what only others' machines run: the unit and the workflow.
func TestShipped(t *testing.T) {
	for kind, flag := range map[string]string{"volume": "-root", "network": "-state", "ipam": "-state", "authz": "-operators"} {
		dir := filepath.Join(t.TempDir(), "x")
		if _, err := Write(dir, Plugin{Kind: kind, Name: "my-x"}); err != nil {
			t.Fatal(err)
		}
		read := func(name string) string {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		unit := read("my-x.service")
		if !strings.Contains(unit, "\nExecStart=/usr/bin/my-x start $MY_X_OPTS\n") || !strings.Contains(unit, `# Flags are set there, as MY_X_OPTS="`+flag+" ") {
			t.Errorf("%s: the unit does not use its file:\n%s", kind, unit)
		}
		// Whoever does not look again on SIGHUP ends by it.
		if reloads := strings.Contains(unit, "ExecReload="); reloads != (kind == "volume") {
			t.Errorf("%s: reload %v:\n%s", kind, reloads, unit)
		}
		ci := read(".github/workflows/ci.yml")
		if !strings.Contains(ci, "\n    tags: [\"v*\"]\n") || !strings.Contains(ci, "path: my-x.tar.gz\n") {
			t.Errorf("%s: no tag starts the release, or it loses modes:\n%s", kind, ci)
		}
		if readme := read("README.md"); strings.Contains(readme, "mkdir -p /var/lib/my-x") != (kind == "volume") {
			t.Errorf("%s: %s", kind, readme)
		}
	}
}
