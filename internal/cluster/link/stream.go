package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// What a stream is for.
const (
	toHost  byte = iota // its bytes are for who has the link
	toRelay             // they are for another host, whose Host follows
	relayed             // they come from another host
)

// Bounds of streams.
const (
	window     = 256 << 10 // bytes that may be under way on one
	maxStreams = 256       // on one link
	maxUnread  = 8 << 20   // bytes of all streams of a link that nobody has read
)

// Stream is a connection to a host, one of many on one link. It is a net.Conn.
type Stream struct {
	link *link
	id   uint32

	mu       sync.Mutex
	in       bytes.Buffer
	eaten    int  // of what was read, not told to the other side yet
	credit   int  // bytes that may be sent
	ended    bool // the other side sends no more
	stopped  bool // the other side reads no more
	closed   bool // this side does neither
	stopSent bool
	failed   error // the stream or its link is broken

	readable, writable chan struct{}
	rd, wr             deadline

	writing sync.Mutex    // one Write at a time, and nothing after the end
	gone    chan struct{} // closed by Close
}

func newStream(k *link, id uint32) *Stream {
	return &Stream{
		link: k, id: id, credit: window,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), rd: makeDeadline(), wr: makeDeadline(),
		gone: make(chan struct{}),
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Host is who has the other end.
func (s *Stream) Host() record.Host { return s.link.host }

// Read implements net.Conn.
func (s *Stream) Read(b []byte) (int, error) {
	for {
		n, err := s.tryRead(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		select {
		case <-s.readable:
		case <-s.rd.wait():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (s *Stream) tryRead(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rd.passed() {
		return 0, os.ErrDeadlineExceeded
	}
	if s.in.Len() > 0 && !s.closed {
		n, _ = s.in.Read(b)
		s.link.unread.Add(-int64(n))
		if s.eaten += n; s.eaten >= window/2 && !s.ended {
			s.link.giveCredit(s.id, s.eaten)
			s.eaten = 0
		}
		if s.in.Len() > 0 {
			signal(s.readable) // others may be waiting
		}
		return n, nil
	}
	switch {
	case s.closed:
		err = net.ErrClosed
	case s.ended:
		err = io.EOF
	case s.failed != nil:
		err = s.failed
	}
	if err != nil {
		signal(s.readable) // it is so for all that wait
	}
	return 0, err
}

// Write implements net.Conn. It waits while too much is under way.
func (s *Stream) Write(b []byte) (written int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for len(b) > 0 {
		n, err := s.take(min(len(b), maxData))
		if err != nil {
			return written, err
		}
		if n == 0 {
			select {
			case <-s.writable:
			case <-s.gone:
			case <-s.wr.wait():
				return written, os.ErrDeadlineExceeded
			}
			continue
		}
		f := frame{kind: frameData, stream: s.id, payload: bytes.Clone(b[:n])}
		select {
		case s.link.data <- f:
		case <-s.link.done:
			return written, s.link.err
		case <-s.gone:
			return written, net.ErrClosed
		case <-s.wr.wait():
			s.give(n)
			return written, os.ErrDeadlineExceeded
		}
		written += n
		b = b[n:]
	}
	return written, nil
}

// take takes up to n bytes of credit, 0 if there is none yet.
func (s *Stream) take(n int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.wr.passed():
		return 0, os.ErrDeadlineExceeded
	case s.closed:
		return 0, net.ErrClosed
	case s.failed != nil:
		return 0, s.failed
	case s.stopped:
		return 0, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: reads no more of the stream", s.link.host.Short())
	}
	n = min(n, s.credit)
	if s.credit -= n; s.credit > 0 {
		signal(s.writable)
	}
	return n, nil
}

func (s *Stream) give(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credit += n
	signal(s.writable)
}

// Close ends the stream in both directions. What was written before is sent, unless the link is stuck.
func (s *Stream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.link.unread.Add(-int64(s.in.Len()))
	s.in = bytes.Buffer{}
	failed, ended := s.failed, s.ended
	s.mu.Unlock()
	close(s.gone)
	signal(s.readable)
	s.writing.Lock()
	defer s.writing.Unlock()
	s.rd.stop()
	s.wr.stop()
	if failed == nil {
		t := time.NewTimer(Verdict)
		defer t.Stop()
		select {
		case s.link.data <- frame{kind: frameEnd, stream: s.id}:
		case <-s.link.done:
		case <-t.C:
			s.link.reset(s.id, Cut)
		}
	}
	if failed != nil || ended {
		s.link.forget(s)
	}
	return nil
}

// fail breaks the stream. What has come can still be read.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	if s.failed == nil {
		s.failed = err
	}
	s.mu.Unlock()
	signal(s.readable)
	signal(s.writable)
}

// receive takes a frame of the other side. An error is a breach of the protocol. It never waits.
func (s *Stream) receive(f frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch f.kind {
	case frameData:
		switch {
		case s.ended:
			return errors.New("data after the end of a stream")
		case s.closed || s.failed != nil:
			if !s.stopSent {
				s.stopSent = true
				s.link.control(frame{kind: frameStop, stream: s.id})
			}
			return nil
		case s.in.Len()+s.eaten+len(f.payload) > window:
			return errors.New("more data on a stream than there was room for")
		}
		if s.link.unread.Add(int64(len(f.payload))) > maxUnread {
			s.link.unread.Add(-int64(len(f.payload)))
			s.failed = errdefs.Errorf(errdefs.ErrUnavailable, "host %s: too much is unread", s.link.host.Short())
			s.link.reset(s.id, Busy)
			break
		}
		s.in.Write(f.payload)
	case frameCredit:
		n := int(binary.BigEndian.Uint32(f.payload))
		if n > window-s.credit {
			return fmt.Errorf("credit of %d bytes for a stream, too many", n)
		}
		s.credit += n
		signal(s.writable)
		return nil
	case frameEnd:
		s.ended = true
		if s.closed {
			s.link.forget(s)
		}
	case frameStop:
		s.stopped = true
		signal(s.writable)
	case frameReset:
		if s.failed == nil {
			s.failed = errdefs.Errorf(errdefs.ErrUnavailable, "host %s: the stream is broken: %v", s.link.host.Short(), Reason(f.payload[0]))
		}
		signal(s.writable)
		if s.closed {
			s.link.forget(s)
		}
	}
	signal(s.readable)
	return nil
}

// LocalAddr implements net.Conn.
func (s *Stream) LocalAddr() net.Addr { return Addr(s.link.l.self) }

// RemoteAddr is the host's.
func (s *Stream) RemoteAddr() net.Addr { return Addr(s.link.host) }

// Addr is a host as a net.Addr.
type Addr record.Host

// Network is "remora".
func (Addr) Network() string { return "remora" }

func (a Addr) String() string { return record.Host(a).String() }

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error {
	s.rd.set(t)
	s.wr.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.rd.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.wr.set(t)
	return nil
}
