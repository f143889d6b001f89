package runtime

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestLogs(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "log:latest")
	noErr(t, r.Start(t.Context(), p))
	call := l.caller("log")
	call.get(t, "print?n=2000&text=line")
	until(t, "the lines", func() bool { return strings.Contains(l.log.String(), "line 1999") })
	if log := l.log.String(); !strings.Contains(log, `level=INFO msg="line 7" plugin=`+p.ID+` name=log:latest`) {
		t.Error("the daemon's log lacks a line with the plugin's id and name")
	}
	texts := func(tail int) (got []string) {
		for line, err := range r.Logs(t.Context(), p.ID, tail, false) {
			noErr(t, err)
			if line.Time.IsZero() {
				t.Errorf("line %+v has no time", line)
			}
			got = append(got, line.Stream+" "+line.Text)
		}
		return got
	}
	if got := fmt.Sprint(texts(2)); got != "[stdout line 1998 stdout line 1999]" {
		t.Error(got)
	}
	if got := texts(-1); len(got) != 2001 || got[0] != "stdout hello from [log:latest]" {
		t.Errorf("%d lines, the first is %q", len(got), got[0])
	}
	if got := texts(0); len(got) != 0 {
		t.Errorf("none were asked for, and got %q", got)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for line, err := range r.Logs(ctx, p.ID, 1, true) {
			if err != nil {
				lines <- err.Error()
				return
			}
			lines <- line.Stream + " " + line.Text
		}
	}()
	want := func(text string) {
		t.Helper()
		select {
		case got := <-lines:
			if got != text {
				t.Errorf("got %q, want %q", got, text)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("waited in vain for %q", text)
		}
	}
	want("stdout line 1999")
	call.get(t, "print?n=1&text=more")
	want("stdout more 0")
	_, _ = call.call(t.Context(), "exit?code=9")
	want("remora ended: exit status 9")
	want("stdout hello from [log:latest]")
	until(t, "it to run", func() bool { return r.State(p.ID).Status == Running })
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	want("remora stopped: exit status 2")
	if _, ok := <-lines; ok {
		t.Error("there is more after it was stopped")
	}
	if got := fmt.Sprint(texts(1)); got != "[remora stopped: exit status 2]" {
		t.Error(got)
	}
	for _, err := range r.Logs(t.Context(), "../x", 1, false) {
		wants(t, err, "not letters and digits")
	}
}

// TestOutputBounded: whatever is written, a few megabytes are kept, and what was read takes no room.
func TestOutputBounded(t *testing.T) {
	l := newLab(t)
	dir := l.dir + "/out"
	o, err := openOutput(dir, l.options().Logger, 256<<10)
	noErr(t, err)
	defer func() { o.close() }()
	stdout, stderr, err := o.ends()
	noErr(t, err)
	defer stdout.Close()
	defer stderr.Close()
	block := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", 1000))
	for i := range 60 {
		_, err := stdout.Write(block)
		noErr(t, err)
		fmt.Fprintf(stderr, "block %d\n", i)
		o.drain()
	}
	var total int64
	for _, name := range []string{"stdout", "stderr", "log", "log.1"} {
		var st unix.Stat_t
		noErr(t, unix.Stat(filepath.Join(dir, name), &st))
		total += st.Blocks * 512
		if name == "stdout" && st.Size != 60*100000 {
			t.Errorf("the plugin's file is %d bytes long", st.Size)
		}
	}
	if total > 256<<10*3+giveBack+64<<10 {
		t.Errorf("%d bytes are kept", total)
	}
	lines, err := readLog(dir, -1)
	noErr(t, err)
	if !slices.ContainsFunc(lines, func(l Line) bool { return l.Text == "block 59" && l.Stream == Stderr }) {
		t.Error("the last line is not kept")
	}

	// Another daemon goes on where this one was.
	fmt.Fprint(stdout, "half a ")
	o.drain()
	o.close()
	fmt.Fprint(stdout, "line\nlast\n")
	o, err = openOutput(dir, l.options().Logger, 256<<10)
	noErr(t, err)
	o.drain()
	lines, err = readLog(dir, 3)
	noErr(t, err)
	if got := lines[0].Text[:1] + "; " + lines[1].Text + "; " + lines[2].Text; got != "x; half a line; last" {
		t.Error(got)
	}
}

func TestOutputHostile(t *testing.T) {
	l := newLab(t)
	o, err := openOutput(l.dir+"/out", l.options().Logger, maxLog)
	noErr(t, err)
	defer o.close()
	stdout, stderr, err := o.ends()
	noErr(t, err)
	defer stdout.Close()
	defer stderr.Close()
	last := func() string {
		o.drain()
		lines, err := readLog(o.dir, 1)
		noErr(t, err)
		return lines[0].Text
	}
	stdout.WriteString("\x1b[31mred\r\n")
	if got := last(); got != "?[31mred" {
		t.Errorf("a terminal is shown %q", got)
	}
	stdout.WriteString("\xff\xfe\n")
	if got := last(); got != "?" {
		t.Errorf("got %q", got)
	}
	stdout.WriteString(strings.Repeat("y", 3*maxLine) + "\n")
	o.drain()
	lines, _ := readLog(o.dir, -1)
	if n := len(lines); n != 5 && n != 6 || len(lines[2].Text) != maxLine {
		t.Errorf("%d lines", n)
	}
	// It may cut its file off, or make it as long as it likes.
	noErr(t, stdout.Truncate(0))
	stdout.WriteString("anew\n")
	if got := last(); got != "anew" {
		t.Errorf("got %q", got)
	}
	noErr(t, stdout.Truncate(1<<40))
	stdout.WriteString("\nfar away\n")
	begin := time.Now()
	if got := last(); got != "far away" || time.Since(begin) > 5*time.Second {
		t.Errorf("got %q after %s", got, time.Since(begin))
	}
	if !strings.Contains(l.log.String(), "bytes were written too fast, and are left out") {
		t.Error("that something was left out is not told")
	}
}

func TestExecAndTop(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "exec:latest", "A=b")
	exec := func(in string, argv ...string) (int, string, error) {
		var out, errOut syncBuffer
		status, err := r.Exec(t.Context(), p.ID, argv, Stdio{In: strings.NewReader(in), Out: &out, Err: &errOut})
		return status, out.String() + errOut.String(), err
	}
	_, _, err := exec("", "/plugin")
	wants(t, err, "does not run")
	if !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("class %v", errdefs.Class(err))
	}
	noErr(t, r.Start(t.Context(), p))
	if status, out, err := exec("", "/plugin", "tool", "env"); status != 0 || err != nil || !strings.Contains(out, "A=b\n") {
		t.Errorf("%d, %q, %v", status, out, err)
	}
	if status, out, err := exec("to and fro", "/plugin", "tool", "cat"); status != 0 || err != nil || out != "to and fro" {
		t.Errorf("%d, %q, %v", status, out, err)
	}
	if status, out, err := exec("", "/plugin", "tool", "exit", "42"); status != 42 || err != nil || out != "as told\n" {
		t.Errorf("%d, %q, %v", status, out, err)
	}
	_, _, err = exec("", "/none")
	wants(t, err, `plugin "exec:latest": exec: `, "no such file")
	_, _, err = exec("")
	wants(t, err, "no program is given")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asleep := &syncBuffer{}
	ended := make(chan error)
	go func() {
		_, err := r.Exec(ctx, p.ID, []string{"/plugin", "tool", "sleep"}, Stdio{Out: asleep})
		ended <- err
	}()
	until(t, "the program", func() bool { return asleep.String() != "" })
	top, err := r.Top(t.Context(), p.ID)
	noErr(t, err)
	if len(top.Rows) != 2 || !strings.Contains(fmt.Sprint(top), "/plugin tool sleep") || top.Titles[0] != "UID" {
		t.Errorf("top is %+v", top)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	until(t, "the program's end", func() bool {
		top, err := r.Top(t.Context(), p.ID)
		return err == nil && len(top.Rows) == 1
	})
	if left, _ := filepath.Glob(r.path(p.ID, "bundle", "exec-*")); len(left) > 0 {
		t.Errorf("left is %q", left)
	}
}
