package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// answerIn is how long the process may take for one question.
const answerIn = 5 * time.Second

// process is a device that a process of ours serves, over its socket: WireGuard's own cross-platform
// interface (wireguard.com/xplatform), line by line.
type process struct{ path string }

func socketPath(o Options) string { return filepath.Join(o.Dir, o.Name+".sock") }

// start runs the process and waits until it serves. It has no file of ours but the pipe on which it says so,
// and a group of its own, so that no signal from a terminal that is meant for us reaches it. In a session of its own
// a scheduler that shares the processors among sessions would let it wait for those that it works for.
func start(ctx context.Context, o Options) (Tunnel, error) {
	said, say, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer said.Close()
	args := append(slices.Clone(o.Command[1:]), o.Name, socketPath(o), strconv.Itoa(o.MTU))
	cmd := exec.CommandContext(context.WithoutCancel(ctx), o.Command[0], args...)
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{say}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	_ = say.Close()
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "interface %q: %w", o.Name, err)
	}
	go func() { _ = cmd.Wait() }()
	if err := said.SetReadDeadline(time.Now().Add(answerIn)); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(said, 1<<10))
	switch {
	case err != nil:
		_ = cmd.Process.Kill()
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "interface %q: the tunnel's process does not start: %w", o.Name, err)
	case string(text) != ready:
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "interface %q: %s", o.Name, errdefs.OneLine(string(text)))
	}
	return &process{path: socketPath(o)}, nil
}

func (*process) Kind() string { return "process" }

func (*process) Close() error { return nil }

// ask sends one operation and returns the lines of its answer.
func (t *process) ask(question string) ([]byte, error) {
	conn, err := net.DialTimeout("unix", t.path, answerIn) //nolint:noctx // has a limit of its own
	if err != nil {
		return nil, errdefs.As(errdefs.ErrUnavailable, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerIn)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, question); err != nil {
		return nil, err
	}
	var answer bytes.Buffer
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("tunnel: the answer ends early: %w", err)
		}
		if line == "\n" {
			break
		}
		answer.WriteString(line)
	}
	_, errno, _ := bytes.Cut(answer.Bytes(), []byte("errno="))
	if n := strings.TrimSpace(string(errno)); n != "0" {
		return nil, fmt.Errorf("tunnel: the process refuses it: errno %s", n)
	}
	return answer.Bytes(), nil
}

func (t *process) State() (State, error) {
	answer, err := t.ask("get=1\n\n")
	if err != nil {
		return State{}, err
	}
	return parseState(answer)
}

// parseState reads what the process answers to get=1.
func parseState(answer []byte) (State, error) {
	s := State{Seen: map[Key]Seen{}}
	s.Peers = map[Key]Peer{}
	var key Key
	var peer Peer
	var seen Seen
	var secs, nanos int64
	inPeer := false
	done := func() {
		if !inPeer {
			return
		}
		if secs != 0 || nanos != 0 {
			seen.Handshake = time.Unix(secs, nanos)
		}
		slices.SortFunc(peer.Allowed, netip.Prefix.Compare)
		seen.LastEndpoint = peer.Endpoint
		s.Peers[key], s.Seen[key] = peer, seen
		peer, seen, secs, nanos = Peer{}, Seen{}, 0, 0
	}
	for line := range bytes.Lines(answer) {
		name, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), "=")
		var err error
		switch name {
		case "private_key":
			s.Private, err = parseKey(value)
		case "listen_port":
			var port uint64
			port, err = strconv.ParseUint(value, 10, 16)
			s.Port = uint16(port)
		case "public_key":
			done()
			inPeer = true
			key, err = parseKey(value)
		case "preshared_key":
			peer.Shared, err = parseKey(value)
		case "endpoint":
			peer.Endpoint, err = netip.ParseAddrPort(value)
		case "persistent_keepalive_interval":
			var n int
			n, err = strconv.Atoi(value)
			peer.Keepalive = time.Duration(n) * time.Second
		case "allowed_ip":
			var p netip.Prefix
			p, err = netip.ParsePrefix(value)
			peer.Allowed = append(peer.Allowed, p)
		case "last_handshake_time_sec":
			secs, err = strconv.ParseInt(value, 10, 64)
		case "last_handshake_time_nsec":
			nanos, err = strconv.ParseInt(value, 10, 64)
		case "rx_bytes":
			seen.Received, err = strconv.ParseInt(value, 10, 64)
		case "tx_bytes":
			seen.Sent, err = strconv.ParseInt(value, 10, 64)
		}
		if err != nil {
			return State{}, fmt.Errorf("tunnel: the process answers %q badly", name)
		}
	}
	done()
	return s, nil
}

func parseKey(text string) (k Key, err error) {
	if len(text) != hex.EncodedLen(len(k)) {
		return Key{}, errors.New("not a key")
	}
	if _, err := hex.Decode(k[:], []byte(text)); err != nil {
		return Key{}, errors.New("not a key")
	}
	return k, nil
}

func (t *process) set(e edits) error {
	_, err := t.ask(e.text())
	return err
}

func (e edits) text() string {
	var b strings.Builder
	b.WriteString("set=1\n")
	if e.private != nil {
		fmt.Fprintf(&b, "private_key=%x\n", *e.private)
	}
	if e.port != nil {
		fmt.Fprintf(&b, "listen_port=%d\n", *e.port)
	}
	for _, p := range e.peers {
		fmt.Fprintf(&b, "public_key=%x\n", p.key)
		if p.remove {
			b.WriteString("remove=true\n")
			continue
		}
		if p.shared {
			fmt.Fprintf(&b, "preshared_key=%x\n", p.Shared)
		}
		if p.Endpoint.IsValid() {
			fmt.Fprintf(&b, "endpoint=%s\n", p.Endpoint)
		}
		if p.allowed {
			b.WriteString("replace_allowed_ips=true\n")
			for _, a := range p.Allowed {
				fmt.Fprintf(&b, "allowed_ip=%s\n", a)
			}
		}
		// Last, for it sends a packet at once, which should go where the lines before say.
		if p.keepalive {
			fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", int(p.Keepalive/time.Second))
		}
	}
	b.WriteString("\n")
	return b.String()
}
