package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/internal/enginetest"
	"github.com/remora-plugins/remora/sdk/internal/suitetest"
)

// TestMain lets the test run as the plugin.
func TestMain(m *testing.M) { enginetest.Main(m, main) }

// curl is what the tutorials do by hand: curl -XPOST -d BODY -H "Content-Type:
// application/json" --unix-socket … http://localhost/METHOD.
func curl(t *testing.T, network, address, method, body string) string {
	t.Helper()
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/"+method, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		t.Fatalf("%s: %q: %v", method, b, err)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, &compact)
}

func TestByHand(t *testing.T) {
	root := t.TempDir()
	dir, err := os.MkdirTemp("", "mobyfs") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "mobyfs.sock")
	p := enginetest.RunPlugin(t, "start", "-root", root, "-socket", socket)
	p.Says(t, "listening")
	path := `"` + filepath.Join(root, "data") + `"`
	for _, tt := range []struct{ method, body, want string }{
		{"Plugin.Activate", "", `200 {"Implements":["VolumeDriver"]}`},
		{"VolumeDriver.Capabilities", "{}", `200 {"Capabilities":{"Scope":"local"},"Err":""}`},
		{"VolumeDriver.List", "{}", `200 {"Volumes":[],"Err":""}`},
		{"VolumeDriver.Create", `{"Name":"data"}`, `200 {"Err":""}`},
		{"VolumeDriver.Create", `{"Name":"data","Opts":null}`, `200 {"Err":""}`},
		{"VolumeDriver.Create", `{"Name":"../data"}`, `"Err":"volume name \"../data\": `},
		{"VolumeDriver.Create", `{"Name":"other","Opts":{"size":"1"}}`, `500 {"Err":"volume \"other\": option \"size\": mobyfs takes none"}`},
		{"VolumeDriver.Mount", `{"Name":"data","ID":"one"}`, `200 {"Mountpoint":` + path + `,"Err":""}`},
		{"VolumeDriver.Path", `{"Name":"data"}`, `200 {"Mountpoint":` + path + `,"Err":""}`},
		{"VolumeDriver.Get", `{"Name":"data"}`, `"Mountpoint":` + path},
		{"VolumeDriver.Remove", `{"Name":"data"}`, `mounted 1 times`},
		{"VolumeDriver.Unmount", `{"Name":"data","ID":"one"}`, `200 {"Err":""}`},
		{"VolumeDriver.Get", `{"Name":"data"}`, `200 {"Volume":{"Name":"data"`},
		{"VolumeDriver.Remove", `{"Name":"data"}`, `200 {"Err":""}`},
		{"VolumeDriver.Get", `{"Name":"data"}`, `500 {"Err":`},
		{"NetworkDriver.GetCapabilities", "", `404 {"Err":`},
	} {
		if got := curl(t, "unix", socket, tt.method, tt.body); !strings.Contains(got, tt.want) {
			t.Errorf("%s %s: %s, want %s", tt.method, tt.body, got, tt.want)
		}
	}

	// Reload finds what came by another way.
	if err := os.Mkdir(filepath.Join(root, "found"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.Signal(t, syscall.SIGHUP)
	p.Says(t, "refreshed")
	if got := curl(t, "unix", socket, "VolumeDriver.List", "{}"); !strings.Contains(got, `"Name":"found"`) {
		t.Errorf("after a reload: %s", got)
	}
	if err := p.Stop(t, syscall.SIGTERM); err != nil {
		t.Errorf("ended: %v", err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("socket is left behind: %v", err)
	}
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{{"stop"}, {"start", "-root", "/nonexistent"}, {"start", "-x"}, {"start", "-root", t.TempDir(), "-p", "x"}} {
		enginetest.RefusesArguments(t, args...)
	}
}

// TestEngine is the tutorial on a real engine, by socket and by port.
func TestEngine(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Dockerd, testenv.DockerCLI, testenv.Busybox)
	busybox, err := testenv.BusyboxPath()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, announced string
		args            []string
	}{
		{"socket", "run/docker/plugins/mobyfs.sock", nil},
		{"port", "etc/plugins/mobyfs.spec", []string{"-p", port}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			h := enginetest.NewHost(t)
			announced := filepath.Join(filepath.Dir(h.Run), tt.announced)
			args := append([]string{"start", "-root", root}, tt.args...)
			start := func() *enginetest.Plugin {
				p := h.RunPlugin(t, args...)
				p.Says(t, "listening")
				return p
			}
			p := start()
			if _, err := os.Stat(announced); err != nil {
				t.Fatal(err)
			}
			e := h.Start(t)
			e.ImportBusybox(t, busybox)
			docker := func(want string, args ...string) {
				t.Helper()
				out, err := e.Docker(t.Context(), args...)
				if err != nil || !strings.Contains(out, want) {
					t.Errorf("docker %s: %v: %s; want %q", strings.Join(args, " "), err, out, want)
				}
			}
			in := []string{"run", "--rm", "--network=none", "--volume-driver=mobyfs", "-v", "volumename:/data", enginetest.Image, "sh", "-c"}
			docker("", append(in, "echo bye >/data/file")...)
			docker("mobyfs    volumename", "volume", "ls")
			docker("bye", append(in, "cat /data/file")...)
			p.Signal(t, syscall.SIGHUP)
			p.Says(t, "refreshed")
			docker(filepath.Join(root, "volumename"), "volume", "inspect", "volumename")

			// The plugin is restarted below an engine that goes on.
			if err := p.Stop(t, syscall.SIGTERM); err != nil {
				t.Errorf("ended: %v", err)
			}
			if _, err := os.Stat(announced); !os.IsNotExist(err) {
				t.Errorf("%s is left behind: %v", announced, err)
			}
			start()
			docker("bye", append(in, "cat /data/file")...)

			docker("volumename", "volume", "rm", "volumename")
			if _, err := os.Stat(filepath.Join(root, "volumename")); !os.IsNotExist(err) {
				t.Errorf("the directory is still there: %v", err)
			}
		})
	}
}

// TestUnit holds the unit to what the guide says of it.
func TestUnit(t *testing.T) {
	unit, err := os.ReadFile("mobyfs.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Before=docker.service", "EnvironmentFile=-/etc/default/mobyfs", "ExecStart=/usr/bin/mobyfs start -p 8080 $MOBYFS_OPTS", "ExecReload=/bin/kill -HUP $MAINPID"} {
		if !strings.Contains(string(unit), "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("other: no systemd-analyze to verify the unit with")
	}
	out, _ := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", "./mobyfs.service").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// Its own complaint about a program that is not installed is no mistake of the unit.
		if strings.Contains(line, "mobyfs.service") && !strings.Contains(line, "/usr/bin/mobyfs is not executable") && !strings.Contains(line, "Unit docker.service") {
			t.Error(strings.TrimSpace(line))
		}
	}
}

// TestCheck holds the whole plugin to what any plugin is held to.
func TestCheck(t *testing.T) {
	socket := suitetest.Socket(t)
	enginetest.RunPlugin(t, "start", "-root", t.TempDir(), "-socket", socket)
	enginetest.Conforms(t, socket)
}
