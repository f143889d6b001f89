package link

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/password"
	"github.com/remora-plugins/remora/internal/cluster/record"
)

// greeting is what a handshake came to.
type greeting struct {
	conn       *tls.Conn
	host       record.Host
	own, peer  hello
	dialed     bool
	proved     bool   // by the password
	conclusion []byte // what the listener has to send yet, a message
	address    string // as it was dialled, or whence it came
	remote     netip.AddrPort
	took       time.Duration
}

// errHave says that a link to the host, which is returned with it, is there already.
var errHave = errors.New("there is a link already")

// greet runs the handshake on a connection, within Verdict and ctx. The dialer is through with it when it returns, the
// listener has to send the conclusion, once it knows that it takes the link. want, if not zero, is who must be there.
func (l *Links) greet(ctx context.Context, raw net.Conn, g greeting, want record.Host) (*greeting, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	deadline, _ := ctx.Deadline()
	_ = raw.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	err := l.greetWithin(ctx, raw, &g, want)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return &g, l.explain(ctx, &g, err)
	}
	_ = raw.SetDeadline(time.Time{})
	g.took = time.Since(start)
	return &g, nil
}

func (l *Links) greetWithin(ctx context.Context, raw net.Conn, g *greeting, want record.Host) (err error) {
	if g.dialed {
		g.conn = tls.Client(raw, l.tlsDialer)
	} else {
		g.conn = tls.Server(raw, l.tlsListener)
	}
	// The deadline does what ctx would have done with one more goroutine.
	if err := g.conn.HandshakeContext(context.WithoutCancel(ctx)); err != nil {
		return &strangeError{err}
	}
	if g.host, err = hostOf(g.conn.ConnectionState()); err != nil {
		return &strangeError{err}
	}
	if g.dialed {
		if !want.IsZero() && want != g.host {
			return l.refuse(g, OtherHost)
		}
		if l.fresh(g.host) {
			return errHave
		}
	}
	if err := l.hellos(g); err != nil {
		return err
	}
	if reason := judge(g.own, g.peer, g.host == l.self); reason != 0 {
		_ = writeMessage(g.conn, messageRefuse, refusal(reason, 0))
		return l.refuse(g, reason)
	}
	if needsProof(g.own, g.peer) {
		return l.prove(g)
	}
	if !g.dialed {
		g.conclusion = []byte{byte(messageWelcome), 0, 0}
		return nil
	}
	_, err = l.read(g, messageWelcome)
	return err
}

func (l *Links) hellos(g *greeting) error {
	g.own = hello{
		min: l.oldest, max: l.newest, Summary: l.cfg.Cluster(), instance: l.instance,
		password: l.cfg.Password() != nil, standing: l.cfg.Standing(g.host), observed: g.remote,
	}
	if g.dialed {
		g.own.dial = l.dials.Add(1)
		if err := writeMessage(g.conn, messageHello, g.own.encode()); err != nil {
			return err
		}
	}
	body, err := l.read(g, messageHello)
	if err != nil {
		return err
	}
	if g.peer, err = decodeHello(body); err != nil {
		return &strangeError{err}
	}
	if g.dialed {
		return nil
	}
	if apart(g.own, g.peer) && l.cfg.Yields != nil && l.cfg.Yields(g.peer.Summary) {
		g.own.Summary = Summary{} // as it will be once the other has proved to know the password
	}
	return writeMessage(g.conn, messageHello, g.own.encode())
}

// read reads a message of the type that has to come now, or the other side's refusal.
func (l *Links) read(g *greeting, want messageType) ([]byte, error) {
	kind, body, err := readMessage(g.conn)
	switch {
	case err != nil:
		return nil, err
	case kind == messageRefuse:
		reason, wait := readRefusal(body)
		err := l.refusal(g, reason.mirror())
		err.Wait = wait
		return nil, err.hinted()
	case kind != want:
		return nil, &strangeError{fmt.Errorf("a message of type %d where %d was to come", kind, want)}
	}
	return body, nil
}

// prove runs the proof of the password. Whoever has to look at a confirmation counts it if it is wrong.
func (l *Links) prove(g *greeting) error {
	key := l.cfg.Password()
	if key == nil { // it was taken away just now
		return l.refuse(g, NeedsPassword)
	}
	state := g.conn.ConnectionState()
	exporter, err := state.ExportKeyingMaterial("EXPORTER-remora-password", nil, 32)
	if err != nil {
		return err
	}
	ch := password.Channel{Exporter: exporter, Dialer: l.self[:], Listener: g.host[:]}
	if !g.dialed {
		ch.Dialer, ch.Listener = ch.Listener, ch.Dialer
	}
	// Who made too many wrong ones is not worth the arithmetic, and who dials would give the other a guess.
	if wait := l.limiter.Wait(g.remote.Addr()); wait > 0 {
		return l.tooMany(g, wait)
	}
	e := key.Start(ch, g.dialed)
	if g.dialed {
		if err := writeMessage(g.conn, messageShare, e.Share()); err != nil {
			return err
		}
	}
	share, err := l.read(g, messageShare)
	if err != nil {
		return err
	}
	if err := e.Receive(share); err != nil {
		return &strangeError{err}
	}
	if !g.dialed {
		if err := writeMessage(g.conn, messageShare, e.Share()); err != nil {
			return err
		}
	} else if err := writeMessage(g.conn, messageConfirm, e.Confirm()); err != nil {
		return err
	}
	confirm, err := l.read(g, messageConfirm)
	if err != nil {
		if g.dialed && reasonOf(err) == WrongPassword {
			l.limiter.Attempt(g.remote.Addr(), func() bool { return false })
		}
		return err
	}
	right, wait := l.limiter.Attempt(g.remote.Addr(), func() bool { return e.Check(confirm) })
	switch {
	case wait > 0:
		return l.tooMany(g, wait)
	case !right:
		_ = writeMessage(g.conn, messageRefuse, refusal(WrongPassword, 0))
		return l.refuse(g, WrongPassword)
	}
	g.proved = true
	if !g.dialed {
		g.conclusion = append([]byte{byte(messageConfirm), 0, password.ConfirmSize}, e.Confirm()...)
	}
	return nil
}

func (l *Links) tooMany(g *greeting, wait time.Duration) error {
	_ = writeMessage(g.conn, messageRefuse, refusal(TooManyWrong, wait))
	err := l.refusal(g, TooManyWrong)
	err.Wait = wait
	return err.hinted()
}

// refusal is the body of a messageRefuse: the reason as the sender sees it, and how many seconds to wait.
func refusal(reason Reason, wait time.Duration) []byte {
	return binary.BigEndian.AppendUint16([]byte{byte(reason)}, uint16(min((wait+time.Second-1)/time.Second, 0xffff)))
}

func readRefusal(b []byte) (Reason, time.Duration) {
	if len(b) < 3 {
		return Broken, 0
	}
	return Reason(b[0]), time.Duration(binary.BigEndian.Uint16(b[1:])) * time.Second
}

func (l *Links) refusal(g *greeting, reason Reason) *RefusedError {
	return &RefusedError{
		Reason: reason, Address: g.address, Host: g.host,
		Own: g.own.Summary, Other: g.peer.Summary, oldest: g.peer.min, newest: g.peer.max,
	}
}

func (l *Links) refuse(g *greeting, reason Reason) error { return l.refusal(g, reason).hinted() }

// strangeError is an error of somebody who speaks something else, unless the connection broke under it.
type strangeError struct{ error }

func (e *strangeError) Unwrap() error { return e.error }

// explain makes of whatever ended a handshake one line that says what is wrong.
func (l *Links) explain(ctx context.Context, g *greeting, err error) error {
	var refused *RefusedError
	if errors.Is(err, errHave) || errors.As(err, &refused) {
		return err
	}
	r := l.refusal(g, Cut)
	r.Cause = err
	var other *strangeError
	switch timeout := net.Error(nil); {
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		r.Reason = Silent
	case errors.As(err, &other) && !brokenOff(err):
		r.Reason = NotRemora
	}
	return r.hinted()
}

// brokenOff reports whether it was the connection that failed.
func brokenOff(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		// crypto/tls makes one of the other side's alert, too.
		return op.Op != "remote error"
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed)
}
