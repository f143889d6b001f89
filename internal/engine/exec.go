package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Command is one to run in a container.
type Command struct {
	Args []string
	// Env are "KEY=VALUE" pairs beside those of the container.
	Env []string
	// User is who runs it; empty is the container's own.
	User string
}

// Exec runs a command in a container and waits for it. It returns the end of what the command
// printed, also with an error. When ctx ends it is not waited for any more; nothing in the API
// could end it in the container.
func (e Engine) Exec(ctx context.Context, container string, cmd Command) (output string, err error) {
	var made struct {
		ID string `json:"Id"`
	}
	short, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	err = e.call(short, http.MethodPost, "/containers/"+url.PathEscape(container)+"/exec", map[string]any{
		"AttachStdout": true, "AttachStderr": true, "Cmd": cmd.Args, "Env": cmd.Env, "User": cmd.User,
	}, &made)
	if err != nil {
		return "", err
	}
	var tail Tail
	err = e.do(ctx, http.MethodPost, "/exec/"+made.ID+"/start", map[string]any{"Detach": false, "Tty": false}, func(body io.Reader) error {
		return copyStreams(&tail, body)
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return tail.String(), fmt.Errorf("engine at %s: %w", e.Socket, err)
	}
	var ended struct {
		Running  bool
		ExitCode int
	}
	for { // a command may close its output and go on, and engines hear of the end of one a moment later than of that of its output
		if err := e.Get(ctx, "/exec/"+made.ID+"/json", &ended); err != nil {
			return tail.String(), err
		}
		if !ended.Running {
			break
		}
		select {
		case <-ctx.Done():
			return tail.String(), fmt.Errorf("engine at %s: %w", e.Socket, context.Cause(ctx))
		case <-time.After(execEvery):
		}
	}
	if ended.ExitCode != 0 {
		return tail.String(), fmt.Errorf("exit status %d", ended.ExitCode)
	}
	return tail.String(), nil
}

// execEvery is how often it is asked whether a command has ended whose output has.
const execEvery = 100 * time.Millisecond

// maxFrame bounds one piece of what a command prints; an engine sends at most 32 KiB.
const maxFrame = 1 << 24

// copyStreams takes the frames apart in which standard output and standard error come: a byte
// that says which, three of zero, and the length as four (Docker's API, ContainerAttach).
func copyStreams(w io.Writer, r io.Reader) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("output: %w", err)
		}
		n := binary.BigEndian.Uint32(head[4:])
		if head[0] > 2 || n > maxFrame {
			return errors.New("output: not in frames as the API has them")
		}
		if _, err := io.CopyN(w, r, int64(n)); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
}

// maxTail bounds what is kept of what a command printed.
const maxTail = 500

// Tail keeps the end of what is written to it. The zero value is empty.
type Tail struct {
	end []byte
	cut bool
}

// Write implements [io.Writer].
func (t *Tail) Write(p []byte) (int, error) {
	t.end = append(t.end, p...)
	if over := len(t.end) - maxTail; over > 0 {
		t.end = append(t.end[:0], t.end[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// String returns the end as one line.
func (t *Tail) String() string {
	line := strings.Join(strings.Fields(strings.ToValidUTF8(string(t.end), "?")), " ")
	if t.cut {
		line = "…" + line
	}
	return line
}
