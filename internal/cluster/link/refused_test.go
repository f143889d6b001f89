package link

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestRefused(t *testing.T) {
	other := Summary{Cluster: record.Cluster{2}, Hosts: 1}
	for name, test := range map[string]struct {
		dialer, listener option
		here, there      Reason
		class            error
		text, hint       string
	}{
		"wrong password":        {with(wrong), with(secret), WrongPassword, WrongPassword, errdefs.ErrDenied, "do not have the same password", "with the password of the others"},
		"another cluster":       {in(other), in(cluster), OtherCluster, OtherCluster, errdefs.ErrDenied, "is in another cluster: " + cluster.Cluster.String() + ", 3 hosts, founded 2027-01-15 08:00:00; this host is in " + other.Cluster.String() + ", 1 host", "reset one"},
		"no password there":     {with(secret), with(nil), NoPassword, NeedsPassword, errdefs.ErrDenied, "the host there has no password", "or both without"},
		"no password here":      {with(nil), with(secret), NeedsPassword, NoPassword, errdefs.ErrDenied, "this one has none", "or both without"},
		"this host was removed": {knows(Member, 2), knows(Removed, 1), RemovedHere, RemovedThere, errdefs.ErrDenied, "this host was removed", "join again"},
		"that host was removed": {knows(Removed, 2), knows(Member, 1), RemovedThere, RemovedHere, errdefs.ErrDenied, "was removed from the cluster", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newHost(t, 1, test.dialer), newHost(t, 2, test.listener)
			_, err := a.Dial(t.Context(), b.address)
			wantRefused(t, err, test.here, test.class, test.text, test.hint)
			var r *RefusedError
			if !errors.As(err, &r) || r.Host != b.Self() || !strings.HasPrefix(err.Error(), b.address+": ") {
				t.Errorf("%v is not about the host at %s", err, b.address)
			}
			until(t, "the other side knows why", func() bool { return len(b.Stats().Troubles) > 0 })
			if there := b.Stats().Troubles[0]; there.Reason != test.there || there.Host != a.Self() {
				t.Errorf("there it is %d, %v, of %v", there.Reason, there.Err, there.Host)
			}
			if here := a.Stats().Troubles; len(here) != 1 || here[0].Reason != test.here || here[0].Times != 1 {
				t.Errorf("here it is %+v", here)
			}
			if a.linked(b) || b.linked(a) {
				t.Error("there is a link all the same")
			}
		})
	}
}

func wantRefused(t *testing.T, err error, reason Reason, class error, text, hint string) {
	t.Helper()
	if reasonOf(err) != reason || !errors.Is(err, class) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v: reason %d, class %s; want %d, %v, %q", err, reasonOf(err), errdefs.Class(err), reason, class, text)
	}
	if hints := strings.Join(errdefs.Hints(err), " "); !strings.Contains(hints, hint) || (hint == "") != (hints == "") {
		t.Errorf("%v: the hint is %q, want %q", err, hints, hint)
	}
}

// TestGuessing: one wrong password is counted on both sides, and the next has to wait on both.
func TestGuessing(t *testing.T) {
	a, b := newHost(t, 1, with(wrong)), newHost(t, 2)
	_, err := a.Dial(t.Context(), b.address)
	wantRefused(t, err, WrongPassword, errdefs.ErrDenied, "", "password")
	c := newHost(t, 3) // from the same address, with the right password
	_, err = c.Dial(t.Context(), b.address)
	wantRefused(t, err, TooManyWrong, errdefs.ErrDenied, "may be tried again in 1s", "")
	_, err = a.Dial(t.Context(), newHost(t, 4).address)
	wantRefused(t, err, TooManyWrong, errdefs.ErrDenied, "may be tried again in 1s", "")
	if x, y := a.Stats().WrongProofs, b.Stats().WrongProofs; x != 1 || y != 1 {
		t.Errorf("the dialer counts %d, the listener %d", x, y)
	}
	until(t, "the wait is over", func() bool { _, err := c.Dial(t.Context(), b.address); return err == nil })
	member := newHost(t, 5, knows(Member, 2))
	b.set(member.Self(), Member)
	_, _ = a.Dial(t.Context(), b.address)
	member.mustDial(t, b) // whoever is known is not kept waiting by others' guesses
}

func TestVersions(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	b.oldest, b.newest = 7, 9
	_, err := a.Dial(t.Context(), b.address)
	wantRefused(t, err, NewProtocol, errdefs.ErrUnsupported, "too new: it speaks the protocol from version 7 on, this host up to 1", "update the program on this host")
	_, err = b.Dial(t.Context(), a.address)
	wantRefused(t, err, OldProtocol, errdefs.ErrUnsupported, "too old: it speaks the protocol up to version 1", "update the program on the host there")
	b.oldest = 1
	if p := a.mustDial(t, b); p.Protocol != 1 {
		t.Errorf("they speak %d", p.Protocol)
	}
}

func TestItself(t *testing.T) {
	a := newHost(t, 1)
	_, err := a.Dial(t.Context(), a.address)
	wantRefused(t, err, Itself, errdefs.ErrInvalid, "an address of this host itself", "")
	if err := a.Send(a.Self(), nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Error(err)
	}
}

// TestCloned: a host and its copy meet, and both meet a third one.
func TestCloned(t *testing.T) {
	a, copied, b := newHost(t, 1), newHost(t, 1), newHost(t, 2)
	_, err := a.Dial(t.Context(), copied.address)
	wantRefused(t, err, Cloned, errdefs.ErrDenied, "one was copied with its state", "a key of its own")
	a.mustDial(t, b)
	copied.mustDial(t, b)
	until(t, "the later one replaces the earlier", func() bool { return !a.linked(b) })
	_, err = a.Dial(t.Context(), b.address)
	wantRefused(t, err, Cloned, errdefs.ErrDenied, "one was copied with its state", "a key of its own")
	until(t, "the third host knows", func() bool { return len(b.Stats().Troubles) > 0 })
	if troubles := b.Stats().Troubles; len(troubles) != 1 || troubles[0].Reason != Cloned || troubles[0].Host != a.Self() {
		t.Errorf("the third host sees %+v", troubles)
	}
	copied.Close()
	until(t, "the copy has gone", func() bool { return !b.linked(a) })
	a.mustDial(t, b)
}

// TestRestart: a host that comes back while its link from before seems alive takes its place.
func TestRestart(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	before := a.mustDial(t, b)
	again := newHost(t, 1)
	p := again.mustDial(t, b)
	until(t, "the old link is closed", func() bool {
		q, ok := b.Peer(again.Self())
		return ok && q.Address == p.Observed && !a.linked(b)
	})
	if before.Same(p) {
		t.Error("it is the same link")
	}
}

func TestRemoval(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	a.mustDial(t, b)
	b.set(a.Self(), Removed)
	b.Recheck()
	until(t, "the link is closed", func() bool { return !a.linked(b) && !b.linked(a) })
	_, err := a.Dial(t.Context(), b.address)
	wantRefused(t, err, RemovedHere, errdefs.ErrDenied, "this host was removed", "reset this host")
}

func TestOtherHost(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	_, err := a.dial(t.Context(), b.address, hostOfKey(key(3)), true)
	wantRefused(t, err, OtherHost, errdefs.ErrUnavailable, "answers there, not the one that was wanted", "")
}

func TestNotRemora(t *testing.T) {
	discard := slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = discard
	secure.StartTLS()
	defer secure.Close()
	// Speaks TLS, has a key of the right kind, and says something else.
	dialerTLS, listenerTLS, err := tlsConfigs(key(9))
	if err != nil {
		t.Fatal(err)
	}
	chatty := serveTest(t, func(c net.Conn) {
		s := tls.Server(c, listenerTLS)
		_, _ = s.Write([]byte("\x01\x00\x04moin, what is a hello?"))
		_, _ = s.Read(make([]byte, 1000))
		_, _ = s.Read(make([]byte, 1000))
	})
	banner := serveTest(t, func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n")); _, _ = c.Read(make([]byte, 1000)) })
	a := newHost(t, 1)
	for name, address := range map[string]string{
		"HTTP": plain.Listener.Addr().String(), "HTTPS": secure.Listener.Addr().String(), "TLS": chatty, "SSH": banner,
	} {
		_, err := a.Dial(t.Context(), address)
		if reasonOf(err) != NotRemora || !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	hangsUp := serveTest(t, func(net.Conn) {})
	_, err = a.Dial(t.Context(), hangsUp)
	wantRefused(t, err, Cut, errdefs.ErrUnavailable, hangsUp+": the connection broke", "")
	silent := serveTest(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 100)); <-t.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = a.Dial(ctx, silent)
	wantRefused(t, err, Silent, errdefs.ErrUnavailable, silent+": no answer came in time", "")
	_, err = a.Dial(t.Context(), "127.0.0.1:1")
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.HasPrefix(err.Error(), "127.0.0.1:1: ") || strings.Count(err.Error(), "127.0.0.1") != 1 {
		t.Errorf("nobody listens: %v", err)
	}
	// And whoever dials and is something else.
	for _, dial := range []func() (net.Conn, error){
		func() (net.Conn, error) { return tls.Dial("tcp", a.address, &tls.Config{InsecureSkipVerify: true}) },
		func() (net.Conn, error) { return tls.Dial("tcp", a.address, dialerTLS) },
		func() (net.Conn, error) { return net.Dial("tcp", a.address) },
	} {
		c, err := dial()
		if err != nil {
			continue
		}
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		for err == nil {
			_, err = c.Read(make([]byte, 1000))
		}
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("it is not hung up on")
		}
		c.Close()
	}
	// One that has a key and a hello, and does not name the protocol.
	nameless := dialerTLS.Clone()
	nameless.NextProtos, nameless.VerifyConnection = nil, nil
	c, err := tls.Dial("tcp", a.address, nameless)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_ = writeMessage(c, messageHello, hello{Summary: cluster, min: 1, max: 1, password: true}.encode())
	if kind, _, err := readMessage(c); err == nil {
		t.Errorf("without the protocol's name it is answered by message %d", kind)
	}
	if len(a.Peers()) > 0 {
		t.Error("there is a link")
	}
}

// serveTest answers connections in the background.
func serveTest(t *testing.T, handle func(net.Conn)) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestListen(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()
	_, err = Listen(t.Context(), address)
	if !errors.Is(err, errdefs.ErrUnavailable) || err.Error() != "listen on "+address+": bind: address already in use" || len(errdefs.Hints(err)) != 1 {
		t.Errorf("an address that is taken: %v, %q", err, errdefs.Hints(err))
	}
	if _, err := Listen(t.Context(), "nowhere"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("no address: %v", err)
	}
}
