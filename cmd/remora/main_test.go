package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/remora-plugins/remora/drivers/all"
	"github.com/remora-plugins/remora/internal/cli"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/daemon"
	"github.com/remora-plugins/remora/internal/mount"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	programs := map[string]func(){"remora": main, "remora-able": ableMain, "answer": answer, "engine": engine, "csi-driver": csiDriver}
	if _, err := exec.LookPath("curl"); err != nil || filepath.Base(os.Args[0]) == "curl" {
		programs["curl"] = curl
	}
	testscript.Main(m, programs)
}

// ableMain is the program with one driver more.
func ableMain() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ(),
		Drivers: append(all.Volumes(), ableDriver()), Network: all.Network(), RunDaemon: daemon.Run,
	}))
}

// TestScripts runs testdata/*.txtar. Each script has a configuration, a run directory
// and so on of its own, which the environment names. Beside the commands of testscript
// there are:
//
//	remora-able ARG...       the program with the driver "able" too
//	ready [SOCKET]           waits until the daemon answers
//	status N COMMAND...      wants COMMAND to exit with N
//	normal FILE              writes to FILE what was printed, times and the like made equal
//	listening SOCKET         waits until somebody listens
//	exists-soon PATH         waits until something is there
//	gone-soon PATH           waits until nothing is there
//	socket PATH              puts a socket on which nobody listens
//	answer SOCKET STATUS BODY    a daemon that answers all calls so
//	engine SOCKET CONTAINERS VOLUMES    an engine that answers with what is in the two files
//	csi-driver DIR SOCKET OPTIONS [CONTROLLER]    a CSI driver with those options of internal/csi/csitest, in JSON
func TestScripts(t *testing.T) {
	root, err := os.MkdirTemp("", "rmr") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		scripts = slices.DeleteFunc(scripts, func(name string) bool { return filepath.Base(name) == "backup.txtar" })
		t.Run("backup", func(t *testing.T) { t.Skip("short: each repository that is opened makes a key of its password") })
	}
	testscript.Run(t, testscript.Params{
		Files:         scripts,
		WorkdirRoot:   root,
		UpdateScripts: *update,
		Setup:         setup,
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready":  ready,
			"status": status,
			"normal": normal,
			"socket": socket,

			"listening": listening,

			"exists-soon": soon(true),
			"gone-soon":   soon(false),
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

func setup(env *testscript.Env) error {
	conf := filepath.Join(env.WorkDir, "remora.toml")
	if _, err := os.Stat(conf); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(conf, nil, 0o600); err != nil {
			return err
		}
	}
	env.Defer(func() { // what a script that failed has left mounted, and what a CSI pool keeps for drivers that outlive the daemon
		left, _ := mount.List(env.WorkDir)
		for _, m := range slices.Backward(left) {
			_ = syscall.Unmount(m.Mountpoint, syscall.MNT_DETACH)
		}
	})
	env.Vars = append(env.Vars,
		"REMORA_CONFIG="+conf, // and not the machine's
		"REMORA_PLUGIN_DIR="+env.WorkDir+"/p",
		"REMORA_RUN_DIR="+env.WorkDir+"/run",
		"REMORA_STATE_DIR="+env.WorkDir+"/state",
		"DOCKER_HOST=unix://"+env.WorkDir+"/no-docker.sock",
		"GORACE=atexit_sleep_ms=0", // or each command takes a second more under the race detector
	)
	return nil
}

// patience is how long a daemon may take for what takes it milliseconds.
const patience = 20 * time.Second

func ready(ts *testscript.TestScript, neg bool, args []string) {
	path := filepath.Join(ts.Getenv("REMORA_RUN_DIR"), "control.sock")
	if len(args) == 1 {
		path = ts.MkAbs(args[0])
	}
	if neg || len(args) > 1 {
		ts.Fatalf("usage: ready [SOCKET]")
	}
	c := control.NewClient(path)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		text, ok, err := c.Page(ctx, "/readyz")
		if ok && err == nil || strings.HasPrefix(text, "pool ") {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("the daemon does not answer: %q, %v", text, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func listening(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listening SOCKET")
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("unix", ts.MkAbs(args[0]))
		if err == nil {
			ts.Check(c.Close())
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("nobody listens: %v", err)
		}
	}
}

// soon waits until a path is there, or is not.
func soon(there bool) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: exists-soon PATH, gone-soon PATH")
		}
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			if _, err := os.Lstat(ts.MkAbs(args[0])); (err == nil) == there {
				return
			}
			if time.Now().After(end) {
				ts.Fatalf("%s: there %t, want %t", args[0], !there, there)
			}
		}
	}
}

func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command...")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

// equal is what differs from run to run, and what normal makes of it.
var equal = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\d+ seconds? ago`), "N seconds ago"},
	{regexp.MustCompile(`\b\d+\.\ds\b`), "N.Ns"},
	{regexp.MustCompile(`"Advice": \{[^}]*\}`), `"Advice": {}`}, // of a host
	{regexp.MustCompile(`"PID": \d+`), `"PID": 1`},
	{regexp.MustCompile(`(\s)(\?|\d[\d.]*[kmgtp]? \(N seconds ago\))(\s)`), "${1}USED$3"}, // counted already, or not yet
	{regexp.MustCompile(`"Unknown": \[\s*"Used"\s*\]`), `"Used": 0,` + "\n    " + `"UsedAt": "TIME"`},
	{regexp.MustCompile(`"Used": \d+`), `"Used": 0`},
	{regexp.MustCompile(`[0-9a-f]{16}-[0-9a-f]{8}`), "TRASH-ID"},
	{regexp.MustCompile(`in \d+ (days|hours)`), "in N days"},
	{regexp.MustCompile(`process \d+`), "process 1"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "ID"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "SHORT-ID"},
	{regexp.MustCompile(`[\d.]+ [KM]?i?B stored`), "N stored"},
	{regexp.MustCompile(`(\S)   +(\S)`), "$1   $2"}, // columns of a table
}

func normal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: normal FILE")
	}
	text := strings.ReplaceAll(ts.ReadFile("stdout"), ts.Getenv("WORK"), "/w")
	for _, e := range equal {
		text = e.what.ReplaceAllString(text, e.with)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

func socket(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: socket PATH")
	}
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o700))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	ts.Check(err)
	l.SetUnlinkOnClose(false)
	ts.Check(l.Close())
}

// answer is a daemon that answers every call with the same status and body.
func answer() {
	path, code, body := os.Args[1], 0, os.Args[3]
	if _, err := fmt.Sscan(os.Args[2], &code); err != nil {
		panic(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		panic(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	panic(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			return
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	})))
}

// engine is an engine that knows the containers and volumes that files say it has.
func engine() {
	l, err := net.Listen("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	for path, file := range map[string]string{"GET /containers/json": os.Args[2], "GET /volumes": os.Args[3]} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	}
	panic(http.Serve(l, mux))
}
