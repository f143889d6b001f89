package main

import (
	"bufio"
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
)

// TestMain lets the test run as the plugin.
func TestMain(m *testing.M) {
	if os.Getenv("MOBYFS_EXAMPLE") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// plugin is mobyfs at work.
type plugin struct {
	cmd   *exec.Cmd
	lines chan string
}

// run runs cmd as mobyfs until the test ends, and waits until it listens.
func run(t *testing.T, cmd *exec.Cmd) *plugin {
	t.Helper()
	p := &plugin{cmd, make(chan string, 1000)}
	cmd.Env = append(os.Environ(), "MOBYFS_EXAMPLE=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			fmt.Fprintln(t.Output(), s.Text())
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		<-read
		_ = cmd.Wait() // the test that cares waits itself
	})
	p.says(t, "listening")
	return p
}

// says waits for a line of the log.
func (p *plugin) says(t *testing.T, part string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case line := <-p.lines:
			if strings.Contains(line, part) {
				return
			}
		case <-late:
			t.Fatalf("no line with %q", part)
		}
	}
}

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
	p := run(t, exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], "start", "-root", root, "-socket", socket))
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
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.says(t, "refreshed")
	if got := curl(t, "unix", socket, "VolumeDriver.List", "{}"); !strings.Contains(got, `"Name":"found"`) {
		t.Errorf("after a reload: %s", got)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("ended: %v", err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("socket is left behind: %v", err)
	}
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{{"stop"}, {"start", "-root", "/nonexistent"}, {"start", "-x"}, {"start", "-root", t.TempDir(), "-p", "x"}} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
		cmd.Env = append(os.Environ(), "MOBYFS_EXAMPLE=1")
		if out, err := cmd.CombinedOutput(); err == nil || len(out) == 0 {
			t.Errorf("%q: %v, %s", args, err, out)
		}
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
			start := func() *plugin { return run(t, h.Command(context.WithoutCancel(t.Context()), os.Args[0], args...)) }
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
			if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			p.says(t, "refreshed")
			docker(filepath.Join(root, "volumename"), "volume", "inspect", "volumename")

			// The plugin is restarted below an engine that goes on.
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := p.cmd.Wait(); err != nil {
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
