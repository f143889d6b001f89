package trace

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk"
)

// raw serves each connection by hand, until the test ends.
func raw(t *testing.T, socket string, serve func(net.Conn)) {
	t.Helper()
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
}

// skipHead reads the head of a request.
func skipHead(c net.Conn) bool {
	r := bufio.NewReaderSize(c, 16)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == "\r\n" {
			return true
		}
	}
}

// TestNobodyReads: a call does not wait for a terminal that is held.
func TestNobodyReads(t *testing.T) {
	socket := place(t)
	start(t, socket, `{}`)
	held, c := make(chan struct{}), &calls{}
	o := c.options()
	show := o.Show
	o.Show = func(c Call) { <-held; show(c) }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, socket, o) }()
	until(t, "the trace begins", func() bool { return traced(socket) })
	const n = waiting + 10
	answered := make(chan error, 1)
	go func() {
		for range n {
			if _, err := call(t, socket, "Echo.Say", `{}`); err != nil {
				answered <- err
				return
			}
		}
		answered <- nil
	}()
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(15 * time.Second):
		t.Error("calls wait for what is shown of them")
	}
	close(held)
	until(t, "all but a few are shown", func() bool { all, _ := c.list(); return len(all) >= waiting })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, said := c.list(); !strings.Contains(fmt.Sprint(said), "calls are not shown") {
		t.Errorf("that some are left out is not said: %q", said)
	}
	clean(t, socket, "p.sock")
}

// TestNoDescriptor: a plugin that cannot be looked at has not gone, and keeps its name.
func TestNoDescriptor(t *testing.T) {
	socket := place(t)
	start(t, socket, `{}`)
	_, stop := run(t, socket)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := was
	none.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * lookEvery)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, socket, "Echo.Say", `{}`); err != nil {
		t.Errorf("the plugin has lost its name: %v", err)
	}
	stop()
	clean(t, socket, "p.sock")
}

// TestCutOff: half an answer is not shown as a whole one.
func TestCutOff(t *testing.T) {
	socket := place(t)
	raw(t, socket, func(c net.Conn) {
		if skipHead(c) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
		}
	})
	c, stop := run(t, socket)
	if got, err := call(t, socket, "Echo.Say", ``); err == nil {
		t.Errorf("the caller gets %q", got)
	}
	stop()
	if all, _ := c.list(); len(all) != 1 || all[0].Error != "the answer was cut off" {
		t.Errorf("calls are %+v", all)
	}
}

// TestNoHTTP: what a plugin says that is no answer may hold a secret, too.
func TestNoHTTP(t *testing.T) {
	socket := place(t)
	raw(t, socket, func(c net.Conn) {
		if skipHead(c) {
			fmt.Fprint(c, "password=hunter2\r\n\r\n")
		}
	})
	c, stop := run(t, socket)
	if got, err := call(t, socket, "Echo.Say", ``); err == nil {
		t.Errorf("the caller gets %q", got)
	}
	stop()
	if all, _ := c.list(); len(all) != 1 || all[0].Error == "" || strings.Contains(all[0].Error, "hunter2") {
		t.Errorf("calls are %+v", all)
	}
}

// TestEarlyAnswer: a plugin answers while it is still being sent the request.
func TestEarlyAnswer(t *testing.T) {
	socket := place(t)
	raw(t, socket, func(c net.Conn) {
		if skipHead(c) {
			fmt.Fprint(c, "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}")
			_, _ = io.Copy(io.Discard, c)
		}
	})
	c, stop := run(t, socket)
	in, out := io.Pipe()
	go func() {
		for range 200 { // more comes while the answer does
			time.Sleep(50 * time.Microsecond)
			if _, err := out.Write([]byte(strings.Repeat(" ", 100))); err != nil {
				break
			}
		}
		_ = out.Close()
	}()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	if resp, err := client.Post("http://plugin/Echo.Say", "", in); err == nil {
		_ = resp.Body.Close()
	}
	stop()
	if all, _ := c.list(); len(all) != 1 || all[0].Status != http.StatusInternalServerError {
		t.Errorf("calls are %+v", all)
	}
}

// TestEndWaits: at the end a person is told what is waited for.
func TestEndWaits(t *testing.T) {
	socket := place(t)
	hang := make(chan struct{})
	raw(t, socket, func(c net.Conn) {
		if skipHead(c) {
			<-hang
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		}
	})
	c := &calls{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, socket, c.options()) }()
	until(t, "the trace begins", func() bool { return traced(socket) })
	answered := make(chan error, 1)
	go func() {
		_, err := call(t, socket, "Echo.Say", `{}`)
		answered <- err
	}()
	time.Sleep(3 * lookEvery)
	cancel()
	until(t, "it is said", func() bool {
		_, said := c.list()
		return strings.Contains(fmt.Sprint(said), "calls that are under way")
	})
	clean(t, socket, ".remora-trace", "p.sock")
	close(hang)
	if err := <-answered; err != nil {
		t.Errorf("the call: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	clean(t, socket, "p.sock")
}

// TestDirectoryCleared: an engine clears away the directory of a managed plugin, and makes it anew for the next start.
func TestDirectoryCleared(t *testing.T) {
	dir := filepath.Join(filepath.Dir(place(t)), "id")
	socket := filepath.Join(dir, "p.sock")
	end := start(t, socket, `{"Answer":1}`)
	c, stop := run(t, socket)
	end()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	start(t, socket, `{"Answer":2}`)
	until(t, "it is traced again", func() bool { return traced(socket) })
	if got, err := call(t, socket, "Echo.Say", ``); got != `{"Answer":2}` {
		t.Errorf("the new plugin says %q, %v", got, err)
	}
	stop()
	if all, _ := c.list(); len(all) != 1 {
		t.Errorf("calls are %+v", all)
	}
	clean(t, socket, "p.sock")
}

// TestEndsSoon: nothing is waited for at the end where no call is under way.
func TestEndsSoon(t *testing.T) {
	socket := place(t)
	start(t, socket, `{}`)
	o := new(calls).options()
	o.Guard = []string{os.Args[0], asGuard}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, socket, o) }()
	until(t, "the trace begins", func() bool { return traced(socket) })
	began := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the end takes %s", took)
	}
	clean(t, socket, "p.sock")
}
