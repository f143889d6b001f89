package runtime

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pluginSocket is where it listens.
var pluginSocket = cmp.Or(os.Getenv("SOCKET"), "/run/docker/plugins/test.sock")

// testPlugin behaves as a test wants: by its environment at the start, by calls from then on.
func testPlugin() {
	if len(os.Args) > 2 && os.Args[1] == "tool" {
		tool(os.Args[2:])
		return
	}
	fmt.Println("hello from", os.Args[1:])
	switch os.Getenv("MODE") {
	case "exit":
		fmt.Fprintln(os.Stderr, "cannot go on:\tthe moon is missing")
		os.Exit(3)
	case "mute":
		fmt.Fprintln(os.Stderr, "thinking about it")
		time.Sleep(time.Hour)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	case "sleep":
		time.Sleep(time.Hour)
	case "flood":
		flood()
	}
	if n, _ := strconv.Atoi(os.Getenv("CRASHES")); n > 0 {
		data, _ := os.ReadFile("/crashes")
		if len(data) < n {
			must(os.WriteFile("/crashes", append(data, 'x'), 0o600))
			os.Exit(4)
		}
	}
	if dir := os.Getenv("MOUNT"); dir != "" {
		mountOn(dir)
	}
	if os.Getenv("CHILD") != "" {
		cmd := exec.Command("/proc/self/exe", "child")
		cmd.Env, cmd.Stdout = []string{"MODE=sleep", "REMORA_TEST_PLUGIN=1"}, os.Stdout
		must(cmd.Start())
	}
	if os.Getenv("FUSE") != "" {
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		must(err)
		cmd := exec.Command("/proc/self/exe", "serves")
		cmd.Env, cmd.ExtraFiles = []string{"MODE=sleep", "REMORA_TEST_PLUGIN=1"}, []*os.File{f}
		must(cmd.Start())
		must(f.Close())
	}
	http.HandleFunc("/Plugin.Activate", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, `{"Implements":["VolumeDriver"]}`)
	})
	http.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { must(json.NewEncoder(w).Encode(os.Environ())) })
	http.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	http.HandleFunc("/cat", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(r.FormValue("file"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(data)
	})
	http.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	http.HandleFunc("/print", func(_ http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		for i := range n {
			fmt.Println(r.FormValue("text"), i)
		}
	})
	http.HandleFunc("/mount", func(_ http.ResponseWriter, r *http.Request) { mountOn(r.FormValue("dir")) })
	http.HandleFunc("/flood", func(http.ResponseWriter, *http.Request) { go flood() })
	http.HandleFunc("/link", func(_ http.ResponseWriter, r *http.Request) {
		must(os.Remove(pluginSocket))
		must(os.Symlink(r.FormValue("to"), pluginSocket))
	})
	http.HandleFunc("/again", func(http.ResponseWriter, *http.Request) { go listenAgain() })
	listenAgain()
}

// flood writes faster than anybody reads.
func flood() {
	for block := []byte(strings.Repeat("y\n", 64<<10)); ; {
		_, _ = os.Stdout.Write(block)
	}
}

// tool is what a test has run in the plugin.
func tool(args []string) {
	switch args[0] {
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "cat":
		_, err := io.Copy(os.Stdout, os.Stdin)
		must(err)
	case "exit":
		code, _ := strconv.Atoi(args[1])
		fmt.Fprintln(os.Stderr, "as told")
		os.Exit(code)
	case "sleep":
		fmt.Println("asleep")
		time.Sleep(time.Hour)
	}
}

func mountOn(dir string) {
	must(os.MkdirAll(dir, 0o755))
	must(syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	must(os.WriteFile(dir+"/file", []byte("of the plugin"), 0o600))
}

func listenAgain() {
	_ = os.Remove(pluginSocket)
	if wait := os.Getenv("WAIT"); wait != "" {
		d, err := time.ParseDuration(wait)
		must(err)
		time.Sleep(d)
	}
	ln, err := net.Listen("unix", pluginSocket)
	must(err)
	must(http.Serve(ln, nil)) //nolint:gosec // a test's
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, strings.TrimSpace(err.Error()))
		os.Exit(5)
	}
}
