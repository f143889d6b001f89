package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestWrongInput gives the daemon, by way of the engine, what a person can get wrong. Each
// answer is one line that says what to do; nothing is lost.
func TestWrongInput(t *testing.T) {
	t.Parallel()
	h := newLab(t, engine...).Host(t, "h1")
	h.Write("/etc/remora/remora.toml", `version = 1
[pool.remora]
driver = "dir"
[pool.small]
driver = "dir"
path = "/run/small"
[pool.readonly]
driver = "dir"
path = "/run/readonly"
[pool.away]
driver = "dir"
path = "/run/away"
`)
	h.Must("mkdir", "-p", "/run/small", "/run/readonly", "/run/away")
	h.Must("mount", "-t", "tmpfs", "away", "/run/away")
	h.Must("mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=64", "small", "/run/small")
	h.Must("mount", "-t", "tmpfs", "ro", "/run/readonly")
	r := h.Remora("")
	h.Dockerd()
	h.MustDocker("volume", "create", "-d", "readonly", "before")
	h.Must("mount", "-o", "remount,ro", "/run/readonly")

	for _, tt := range []struct {
		name string
		args []string
		says []string
	}{
		{"name with a slash", []string{"volume", "create", "-d", "remora", "a/b"}, []string{`a/b`, "want letters"}},
		{"name that climbs", []string{"volume", "create", "-d", "remora", "../etc"}, []string{"want letters"}},
		{"name too long", []string{"volume", "create", "-d", "remora", strings.Repeat("x", 256)}, []string{"longer than 255 bytes"}},
		{"unknown option", []string{"volume", "create", "-d", "remora", "-o", "moed=0700", "a"}, []string{`unknown option "moed"`, "did you mean", "mode", "uid"}},
		{"bad value", []string{"volume", "create", "-d", "remora", "-o", "mode=rwx", "a"}, []string{`"rwx"`, "octal"}},
		{"read-only pool", []string{"volume", "create", "-d", "readonly", "a"}, []string{`volume "a"`, "read-only"}},
		{"unknown driver", []string{"volume", "create", "-d", "remoar", "a"}, []string{"remoar"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := h.Fails("docker", tt.args...)
			want(t, text, tt.says...)
			is(t, "lines of the answer", strings.Count(text, "\n"), 0)
		})
	}
	t.Run("disk full", func(t *testing.T) {
		var text string
		made := 0
		for i := range 100 {
			_, err := h.Docker("volume", "create", "-d", "small", fmt.Sprintf("v%d", i))
			if err != nil {
				text = err.Error()
				break
			}
			made++
		}
		want(t, text, "no space left")
		is(t, "volumes", len(strings.Fields(h.MustCli("volume", "ls", "-q", "--pool", "small"))), made)
		h.MustDocker("volume", "rm", "v0")
		h.MustCli("trash", "empty", "--yes", "--pool", "small") // who waits a minute or two need not
		h.MustDocker("volume", "create", "-d", "small", "again")
	})
	t.Run("pool path gone", func(t *testing.T) {
		h.MustDocker("volume", "create", "-d", "away", "kept", "--label", "a=b")
		h.Must("umount", "/run/away")
		// The disk is away: nothing may be written to the directory below, and the engine
		// must not believe that the volume is gone.
		want(t, h.Fails("docker", "volume", "create", "-d", "away", "other"), "away")
		want(t, h.Fails("docker", "run", "--rm", "--network=none", "-v", "kept:/data", "bb:1", "true"), "kept")
		want(t, h.MustDocker("volume", "inspect", "kept"), `"a": "b"`)
		is(t, "what was written below", h.Must("ls", "-A", "/run/away"), "")
		h.MustCli("status")
	})
	select {
	case <-r.Exited():
		t.Fatal("the daemon ended")
	default:
	}
}

// TestRoughCallers calls the plugin socket as no engine would.
func TestRoughCallers(t *testing.T) {
	h := newLab(t).Host(t, "h1")
	r := h.Remora("")
	socket := h.Path("/run/docker/plugins/remora.sock")
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			// The listen queue is bounded; a caller that finds it full comes again.
			for {
				c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
				if err == nil || ctx.Err() != nil {
					return c, err
				}
				time.Sleep(time.Millisecond)
			}
		},
	}}
	call := func(method, body string) (int, string, error) {
		resp, err := client.Post("http://x/VolumeDriver."+method, "", strings.NewReader(body))
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	t.Run("10,000 at once", func(t *testing.T) {
		var limit syscall.Rlimit
		noErr(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
		if limit.Cur < 20000 {
			limit.Cur = limit.Max
			noErr(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
		}
		var wg sync.WaitGroup
		var failed atomic.Int64
		for i := range 10000 {
			wg.Go(func() {
				status, body, err := call("Get", fmt.Sprintf(`{"Name":"none%d"}`, i))
				if err != nil || status != http.StatusInternalServerError || !strings.Contains(body, "no such volume") {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		is(t, "calls with another answer", failed.Load(), 0)
	})
	t.Run("100 MB body", func(t *testing.T) {
		status, body, err := call("Create", `{"Name":"x","Opts":{"a":"`+strings.Repeat("y", 100<<20)+`"}}`)
		if err == nil { // the server may hang up before it has read the rest
			is(t, "status", status, http.StatusRequestEntityTooLarge)
			want(t, body, "larger than")
		}
	})
	t.Run("garbage", func(t *testing.T) {
		for _, body := range []string{"\x00\xff\xfe", "{", "[]", `"x"`, `{"Name":5}`, ""} {
			status, text, err := call("Create", body)
			noErr(t, err)
			is(t, "status", status, http.StatusBadRequest)
			want(t, text, `"Err":"VolumeDriver.Create: `)
		}
		c, err := net.Dial("unix", socket)
		noErr(t, err)
		_, err = c.Write([]byte("\x16\x03\x01 this is no HTTP\r\n\r\n"))
		noErr(t, err)
		noErr(t, c.Close())
	})
	t.Run("hang up", func(t *testing.T) {
		for range 200 {
			c, err := net.Dial("unix", socket)
			noErr(t, err)
			_, err = io.WriteString(c, "POST /VolumeDriver.Create HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"Name\":")
			noErr(t, err)
			noErr(t, c.Close())
		}
		is(t, "volumes", h.MustCli("volume", "ls", "-q"), "")
	})
	select {
	case <-r.Exited():
		t.Fatal("the daemon ended")
	default:
		h.MustCli("status")
	}
}
