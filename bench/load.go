package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// client is one connection to a plugin, kept alive, with one call at a time. It does
// less than the engine's client does, so that what is measured is the server.
type client struct {
	conn net.Conn
	r    *bufio.Reader
	out  []byte
	body bytes.Buffer
}

func dial(socket string) (*client, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}, nil
}

func (c *client) close() { _ = c.conn.Close() }

// call sends a request as an engine does and reads the answer, which is good until the
// next call.
func (c *client) call(method string, request []byte) (answer []byte, err error) {
	c.out = append(c.out[:0], "POST /"...)
	c.out = append(c.out, method...)
	c.out = append(c.out, " HTTP/1.1\r\nHost: plugin.moby.localhost\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(request)), 10)
	c.out = append(c.out, "\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"...)
	c.out = append(c.out, request...)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, err
	}
	c.body.Reset()
	_, err = c.body.ReadFrom(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d: %.200s", method, resp.StatusCode, c.body.Bytes())
	}
	return c.body.Bytes(), nil
}

// volume calls a method for one volume and looks whether the answer is about it. id is
// that of a mount, or empty.
func (c *client) volume(method, name, id, want string) error {
	request := struct {
		Name string
		ID   string `json:",omitempty"`
	}{name, id}
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	answer, err := c.call("VolumeDriver."+method, b)
	if err != nil {
		return err
	}
	if !bytes.Contains(answer, []byte(want)) {
		return fmt.Errorf("%s: %q is missing in the answer %.200q", method, want, answer)
	}
	return nil
}

// crew is clients that work at the same time.
type crew []*client

func hire(socket string, n int) (crew, error) {
	cs := make(crew, 0, n)
	for range n {
		c, err := dial(socket)
		if err != nil {
			cs.close()
			return nil, err
		}
		cs = append(cs, c)
	}
	return cs, nil
}

func (cs crew) close() {
	for _, c := range cs {
		c.close()
	}
}

// limit says when a batch is over: after a time, but not before each client did its
// least, and at the latest when each did its most.
type limit struct {
	time        time.Duration
	least, most int
}

// run has every client repeat op until the limit, or until op says io.EOF. It returns
// how long each op took, and the whole batch.
func (cs crew) run(l limit, op func(worker, i int, c *client) error) (took []time.Duration, whole time.Duration, err error) {
	each := make([][]time.Duration, len(cs))
	errs := make([]error, len(cs))
	var wg sync.WaitGroup
	start := time.Now()
	for w, c := range cs {
		wg.Go(func() {
			for i := 0; i < l.most; i++ {
				before := time.Now()
				if i >= l.least && before.Sub(start) > l.time {
					return
				}
				switch err := op(w, i, c); {
				case errors.Is(err, io.EOF):
					return
				case err != nil:
					errs[w] = err
					return
				}
				each[w] = append(each[w], time.Since(before))
			}
		})
	}
	wg.Wait()
	whole = time.Since(start)
	for _, d := range each {
		took = append(took, d...)
	}
	return took, whole, errors.Join(errs...)
}
