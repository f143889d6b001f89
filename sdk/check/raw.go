package check

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/client"
)

// raw is a connection of its own, for requests that an engine's client would not make, or
// not in that order.
type raw struct {
	t    *T
	conn net.Conn
	in   *bufio.Reader
}

// answer is what came back on a raw connection.
type answer struct {
	status int
	body   string
	closes bool
}

// success tells whether an engine takes the answer for one: it does so for 200 alone, and
// for a volume or network driver only without a text in Err.
func (a answer) success() bool {
	if a.status != http.StatusOK {
		return false
	}
	var e struct{ Err, Error string }
	return decode(a.body, &e) != nil || e.Err == "" && e.Error == ""
}

func (a answer) String() string { return fmt.Sprintf("status %d, %.200q", a.status, a.body) }

// dial opens a raw connection, which ends with the case.
func (t *T) dial() *raw {
	conn, err := t.c.Dial(t.ctx)
	t.must("connect", err)
	stop := context.AfterFunc(t.ctx, func() { _ = conn.SetDeadline(time.Now()) }) // of a connection that is open
	t.undo = append(t.undo, func(context.Context) { stop(); conn.Close() })
	return &raw{t: t, conn: conn, in: bufio.NewReader(conn)}
}

// send makes one request with exactly this head: a Host that is empty is sent empty. An
// error means that no answer came.
func (r *raw) send(host, method, body string, header ...string) (a answer, err error) {
	head := fmt.Sprintf("POST /%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: %d\r\n", method, host, len(body))
	if len(header) == 0 {
		header = []string{"Accept: application/vnd.docker.plugins.v1.2+json"}
	}
	start := time.Now()
	defer func() {
		if err != nil && r.t.ctx.Err() != nil {
			err = context.Cause(r.t.ctx) // says more than that the time is over
		}
		r.t.observe(client.Exchange{Method: method, Request: []byte(body), Status: a.status, Answer: []byte(a.body), Err: err, Took: time.Since(start)})
	}()
	if _, err = io.WriteString(r.conn, head+strings.Join(header, "\r\n")+"\r\n\r\n"+body); err != nil {
		return a, err
	}
	resp, err := http.ReadResponse(r.in, &http.Request{Method: http.MethodPost})
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, client.DefaultMaxAnswer))
	return answer{resp.StatusCode, string(b), resp.Close}, err
}

// once makes one request on a connection of its own.
func (t *T) once(method, body string, header ...string) (answer, error) {
	r := t.dial()
	defer r.conn.Close()
	return r.send(t.p.host, method, body, append(header, "Connection: close")...)
}

// refused wants a request not answered as if it had been carried out. No answer at all is as
// good, since an engine takes it for a failure.
func (t *T) refused(what, method, body string) {
	a, err := t.once(method, body)
	if err != nil {
		if t.ctx.Err() != nil {
			t.Fatalf("%s: no answer: %w", what, context.Cause(t.ctx))
		}
		return
	}
	if a.success() {
		t.Errorf("%s was answered as if it had been carried out: %s", what, a)
	}
}
