package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
)

// order is one line that the daemon of a kill test reads.
type order struct {
	Verb    string
	Plugins []Plugin
}

// daemon is the process that kill tests kill: it does what is written to its standard input, and answers each line.
func daemon(dir string) {
	l := &lab{dir: dir}
	opts := l.options()
	opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	r, err := Open(opts)
	if err != nil {
		fmt.Println(err)
		return
	}
	r.limits = fast()
	ctx := context.Background()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var o order
		err := json.Unmarshal(in.Bytes(), &o)
		if err == nil {
			switch o.Verb {
			case "adopt":
				err = r.Adopt(ctx, o.Plugins)
			case "start":
				err = r.Start(ctx, o.Plugins[0])
			case "stop":
				err = r.Stop(ctx, o.Plugins[0].ID, 0)
			}
		}
		fmt.Println(err)
	}
	fmt.Println(r.Close())
}

// child is such a process, of the test that kills it.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func (l *lab) child(t *testing.T) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "REMORA_RUNTIME_DAEMON="+l.dir)
	cmd.Stderr = l.log
	in, err := cmd.StdinPipe()
	noErr(t, err)
	out, err := cmd.StdoutPipe()
	noErr(t, err)
	noErr(t, cmd.Start())
	return &child{cmd, in, bufio.NewScanner(out)}
}

// do returns what the daemon answered, and whether it did.
func (c *child) do(verb string, plugins ...Plugin) (string, bool) {
	data, _ := json.Marshal(order{verb, plugins})
	if _, err := c.in.Write(append(data, '\n')); err != nil {
		return "", false
	}
	if !c.out.Scan() {
		return "", false
	}
	return c.out.Text(), true
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// runcs returns the processes of runc that a daemon started.
func (c *child) runcs() (pids []int) {
	parents, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, p := range parents {
		data, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(c.cmd.Process.Pid) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestKilled kills the daemon, its runc or the plugin at random instants of a start or a stop. The next daemon brings to
// an end what was begun, and what it has stopped has left nothing.
func TestKilled(t *testing.T) {
	l := newLab(t)
	noErr(t, os.MkdirAll(l.dir+"/plugins", 0o755))
	seed := testenv.Seed(t)
	rnd := rand.New(rand.NewPCG(seed, 0))
	p := l.plugin(t, "killed:latest", "MOUNT=/volumes/v", "CHILD=1")
	q := l.plugin(t, "other:v2", "CHILD=1")
	q.Config.PidHost = true
	c := l.child(t)
	defer func() {
		c.kill()
		if t.Failed() { // whatever it was, nothing of it is to be left on this machine
			c = l.child(t)
			c.do("adopt")
			c.kill()
		}
	}()
	again := func(want ...Plugin) {
		t.Helper()
		c.kill()
		c = l.child(t)
		if got, ok := c.do("adopt", want...); !ok || got != "<nil>" {
			t.Fatalf("adopt: %q, %v", got, ok)
		}
	}
	for round := range testenv.Rounds(12) {
		victim := []string{"daemon", "runc", "plugin"}[rnd.IntN(3)]
		which := []Plugin{p, q}[rnd.IntN(2)]
		after := time.Duration(rnd.IntN(150)) * time.Millisecond
		stop := rnd.IntN(2) == 0
		if stop {
			c.do("start", which)
			after /= 3
		}
		target := c
		timer := time.AfterFunc(after, func() {
			switch victim {
			case "daemon":
				_ = target.cmd.Process.Kill()
			case "runc":
				for _, pid := range target.runcs() {
					_ = killPid(pid)
				}
			case "plugin":
				dirs, _ := cgroupDirs(cgroupOf(which.ID))
				for _, pid := range cgroupPids(dirs) {
					_ = killPid(pid)
				}
			}
		})
		verb := "start"
		if stop {
			verb = "stop"
		}
		text, answered := c.do(verb, which)
		timer.Stop()
		if !answered && victim != "daemon" {
			t.Fatalf("round %d: the daemon died of the kill of a %s", round, victim)
		}
		if answered && stop && text != "<nil>" {
			t.Errorf("round %d: stop with the %s killed after %s: %s", round, victim, after, text)
		}
		if answered && (stop || text != "<nil>") {
			// What has failed, and what was stopped, has left nothing.
			if left := l.left(); len(left) > 0 {
				t.Fatalf("round %d: %s with the %s killed after %s (%s): left %q", round, verb, victim, after, text, left)
			}
			continue
		}
		if rnd.IntN(2) == 0 {
			again(which)
			// The first call may meet one that is about to end. An engine calls again, too.
			until(t, fmt.Sprintf("an answer, after %s with the %s killed after %s", verb, victim, after), func() bool {
				_, err := l.caller(strings.TrimSuffix(which.Name, ":latest")).call(t.Context(), "pid")
				return err == nil
			})
			if text, _ := c.do("stop", which); text != "<nil>" {
				t.Errorf("round %d: stop: %s", round, text)
			}
		} else {
			again()
		}
		if left := l.left(); len(left) > 0 {
			t.Fatalf("round %d: %s with the %s killed after %s: left %q", round, verb, victim, after, left)
		}
	}
}

// TestDaemonKilled: a plugin's callers notice nothing of the daemon's end, and nothing of the next one's beginning.
func TestDaemonKilled(t *testing.T) {
	l := newLab(t)
	noErr(t, os.MkdirAll(l.dir+"/plugins", 0o755))
	p := l.plugin(t, "steady:latest", "MOUNT=/volumes/v")
	c := l.child(t)
	defer func() { c.kill() }()
	if text, _ := c.do("start", p); text != "<nil>" {
		t.Fatal(text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	calls := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if pid, err := l.caller("steady").call(context.WithoutCancel(ctx), "pid"); err != nil || pid != "1" {
				t.Errorf("call %d: %q, %v", n, pid, err)
			}
		}
		calls <- n
	}()
	for range testenv.Rounds(5) {
		c.kill()
		c = l.child(t)
		if text, ok := c.do("adopt", p); !ok || text != "<nil>" {
			t.Errorf("adopt: %q", text)
		}
		if _, err := os.Stat(p.Propagated + "/v/file"); err != nil {
			t.Error(err)
		}
	}
	cancel()
	if n := <-calls; n < 10 {
		t.Errorf("%d calls were made", n)
	}
	if text, _ := c.do("stop", p); text != "<nil>" {
		t.Error(text)
	}
	l.clean(t)
}
