package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// side is one of two hosts on which the docker command is given the same arguments.
type side struct {
	*lab.Host
	socket string
}

type outcome struct {
	stdout, stderr string
	status         int
}

func (o outcome) String() string {
	return fmt.Sprintf("exit status %d\n--- stdout\n%s\n--- stderr\n%s", o.status, o.stdout, o.stderr)
}

// docker gives the docker command arguments. {id NAME} stands for the ID of a plugin, {short NAME} for its begin.
func (s side) docker(t *testing.T, args ...string) outcome {
	t.Helper()
	for i, arg := range args {
		args[i] = idOf.ReplaceAllStringFunc(arg, func(m string) string {
			f := idOf.FindStringSubmatch(m)
			id := strings.TrimSpace(s.docker(t, "plugin", "inspect", "-f", "{{.Id}}", f[2]).stdout)
			if f[1] == "short" && len(id) > 12 {
				id = id[:12]
			}
			return id
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := s.Command(ctx, "docker", append([]string{"-H", "unix://" + s.socket}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	o := outcome{}
	if err := cmd.Run(); err != nil {
		ended, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			t.Fatalf("docker %v: %v", args, err)
		}
		o.status = ended.ExitCode()
	}
	o.stdout, o.stderr = stdout.String(), stderr.String()
	return o
}

var idOf = regexp.MustCompile(`\{(id|short) ([^}]*)\}`)

// sameThings is what differs from run to run or from engine to engine and says nothing.
var sameThings = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?m)^time=\S+ level=error msg="Can't .*\n`), ""},       // the client, which is refused while it packs
	{regexp.MustCompile(`(?m)^[0-9a-f]{12}: .*\n`), ""},                         // progress of a layer: which of it is seen is chance
	{regexp.MustCompile(`(?m)^[0-9a-z]+: (Pulling from|digest: ).*\n`), "$1\n"}, //
	{regexp.MustCompile(`(?m)^ *"DockerVersion": .*\n`), ""},                    // of who made it
	{regexp.MustCompile(`sha256:[0-9a-f]{64}`), "DIGEST"},                       // of a config in which that version is
	{regexp.MustCompile(`(?m)^plugin \w+ rs/gz:v1\n`), ""},                      // the event of what dockerd cannot do
	{regexp.MustCompile(`[0-9a-f]{64}`), "ID"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "SHORT"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`size: \d+`), "size: N"},
	{regexp.MustCompile(` +\n`), "\n"},
	{regexp.MustCompile(`   +`), "   "}, // columns
	{regexp.MustCompile(`-H unix://\S+`), "-H SOCKET"},
}

func (o outcome) normal() outcome {
	for _, s := range sameThings {
		o.stdout, o.stderr = s.what.ReplaceAllString(o.stdout, s.with), s.what.ReplaceAllString(o.stderr, s.with)
	}
	return o
}

// invocation is one use of the docker command. Where Remora means to differ from dockerd, why says so and ours is
// what must be in what it prints, or "" for nothing but success.
type invocation struct {
	args string // in words; a word in quotes may have spaces
	why  string
	ours string
}

var word = regexp.MustCompile(`'[^']*'|\S+`)

func (i invocation) words(dir string) []string {
	var all []string
	for _, w := range word.FindAllString(i.args, -1) {
		all = append(all, strings.ReplaceAll(strings.Trim(w, "'"), "DIR", dir))
	}
	return all
}

// TestDockerCLI has the docker command drive a real dockerd and Remora side by side, and wants the same output, error
// texts and exit statuses.
func TestDockerCLI(t *testing.T) {
	t.Parallel()
	l := newLab(t, append(engine, testenv.Registry)...)
	dir := t.TempDir()
	for _, version := range []string{"1", "2", "3"} {
		pluginBundle(t, filepath.Join(dir, "p"+version), version)
	}
	noErr(t, os.MkdirAll(filepath.Join(dir, "bare"), 0o755))
	noErr(t, os.WriteFile(filepath.Join(dir, "bare/config.json"), []byte("{}"), 0o600))
	noErr(t, os.MkdirAll(filepath.Join(dir, "wrong/rootfs"), 0o755))
	noErr(t, os.WriteFile(filepath.Join(dir, "wrong/config.json"), []byte("{"), 0o600))

	theirs := side{l.Host(t, "dockerd"), "/run/docker.sock"}
	theirs.Remora("[plugins]\nengine_api = \"off\"\n")
	theirs.Dockerd()
	ours := side{l.Host(t, "remora"), "/run/remora/engine.sock"}
	ours.Remora("")
	for _, s := range []side{theirs, ours} {
		startRegistry(t, s.Host)
	}
	if len(dockerCLI) < 60 {
		t.Errorf("the table has %d invocations, want 60 at least", len(dockerCLI))
	}
	for _, in := range dockerCLI {
		want, got := theirs.docker(t, in.words(dir)...).normal(), ours.docker(t, in.words(dir)...).normal()
		switch {
		case in.why == "" && got != want:
			t.Errorf("docker %s: differs\n=== dockerd\n%s\n=== remora\n%s", in.args, want, got)
		case in.why != "" && got == want:
			t.Errorf("docker %s: does not differ, although it should: %s\n%s", in.args, in.why, got)
		case in.why != "" && in.ours == "" && got.status != 0, in.why != "" && !strings.Contains(got.String(), in.ours):
			t.Errorf("docker %s: %s: want %q\n=== dockerd\n%s\n=== remora\n%s", in.args, in.why, in.ours, want, got)
		}
	}
}

func startRegistry(t *testing.T, h *lab.Host) {
	t.Helper()
	h.Write("/run/registry.yml", "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: "+t.TempDir()+"\nhttp:\n  addr: 127.0.0.1:5000\n")
	p := h.Start(nil, "docker-registry", "serve", "/run/registry.yml")
	h.Wait(p, 20*time.Second, "registry", func() error {
		_, err := h.Run("busybox", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:5000/v2/")
		return err
	})
}

// pluginBundle makes the directory of a managed plugin: the volume plugin of these tests, with a setting of each kind.
func pluginBundle(t *testing.T, dir, version string) {
	t.Helper()
	noErr(t, os.MkdirAll(filepath.Join(dir, "rootfs/data"), 0o755))
	noErr(t, os.WriteFile(filepath.Join(dir, "rootfs/version"), []byte(version+"\n"), 0o600))
	busybox, err := testenv.BusyboxPath()
	noErr(t, err)
	program, err := os.ReadFile(busybox)
	noErr(t, err)
	noErr(t, os.WriteFile(filepath.Join(dir, "rootfs/busybox"), program, 0o700)) //nolint:gosec // a program
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "rootfs/plugin"), "./plugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	noErr(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{
  "description": "directories as volumes, for the tests of an engine, version `+version+`",
  "documentation": "https://example.com/",
  "entrypoint": ["/plugin", "-name=p", "-unix=/run/docker/plugins/p.sock", "-root=/data/volumes"],
  "interface": {"types": ["docker.volumedriver/1.0"], "socket": "p.sock"},
  "network": {"type": "host"},
  "propagatedMount": "/data",
  "env": [
    {"name": "DEBUG", "description": "more of it", "settable": ["value"], "value": "0"},
    {"name": "FIXED", "description": "cannot be set", "value": "1"},
    {"name": "EMPTY", "description": "has none", "settable": ["value"], "value": null}
  ],
  "mounts": [
    {"name": "m1", "description": "something of the host", "settable": ["source"], "source": "/tmp", "destination": "/host", "type": "bind", "options": ["rbind"]}
  ],
  "args": {"name": "args", "description": "more arguments", "settable": ["value"], "value": ["-slow=0s"]},
  "linux": {"capabilities": ["CAP_SYS_ADMIN"], "devices": [
    {"name": "dev", "description": "a device", "settable": ["path"], "path": "/dev/null"}
  ]}
}`), 0o600))
}
