package link

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Times of a link.
const (
	pingEvery      = time.Second
	Verdict        = 5 * time.Second // without a sign of life, and the link is closed
	handshakeLimit = 5 * time.Second
	idleAfter      = 30 * time.Second // a link that was made for a message alone
	duplicateLives = 10 * time.Second // longer than the verdict on the better one
)

// Bounds of what a link has in its queues.
const (
	packetQueue      = 256
	packetQueueBytes = 1 << 20
	dataQueue        = 16
	controlQueue     = 1024
)

// link is an established connection to a host, with frames on it. Two goroutines have it: read never waits for anybody
// but the connection, write is the only one that writes.
type link struct {
	l      *Links
	g      *greeting
	conn   net.Conn
	host   record.Host
	via    record.Host // zero if the two are connected directly
	since  time.Time
	errand atomic.Bool // made for a message, closed when idle

	ctl     sync.Mutex
	pong    []byte
	credits map[uint32]int
	frames  []frame // that go before all others
	parting Reason  // said when they have gone; then the link is closed
	wake    chan struct{}

	packets chan []byte
	queued  atomic.Int64
	data    chan frame

	mu      sync.Mutex
	streams map[uint32]*Stream
	next    uint32
	unread  atomic.Int64

	once sync.Once
	done chan struct{}
	err  error // why it is done; read after done

	used     atomic.Int64 // when, since the link was made
	pinged   atomic.Int64 // likewise
	heard    atomic.Int64 // likewise
	rtt      atomic.Int64
	counters counters
}

type counters struct {
	sentBytes, receivedBytes, sentFrames, receivedFrames, droppedOut, droppedIn atomic.Uint64
}

func newLink(l *Links, g *greeting, via record.Host, errand bool) *link {
	k := &link{
		l: l, g: g, conn: g.conn, host: g.host, via: via, since: time.Now(),
		credits: map[uint32]int{}, wake: make(chan struct{}, 1),
		packets: make(chan []byte, packetQueue), data: make(chan frame, dataQueue),
		streams: map[uint32]*Stream{}, next: 2, done: make(chan struct{}),
	}
	if g.dialed {
		k.next = 1
	}
	k.errand.Store(errand)
	return k
}

func (k *link) start() {
	k.l.running.Go(k.read)
	k.l.running.Go(k.write)
}

func (k *link) direct() bool { return k.via.IsZero() }

// fail closes the link at once.
func (k *link) fail(err error) {
	k.once.Do(func() {
		k.err = err
		close(k.done)
		_ = k.g.conn.NetConn().Close()
		k.mu.Lock()
		streams := k.streams
		k.streams = nil
		k.mu.Unlock()
		for _, s := range streams {
			s.fail(err)
		}
		k.l.remove(k)
	})
}

func (k *link) failure(reason Reason, cause error) error {
	return &RefusedError{Reason: reason, Address: k.g.address, Host: k.host, Own: k.g.own.Summary, Other: k.g.peer.Summary, Cause: cause}
}

// leave closes the link once what is in the queue of control has been sent, with the reason. One that has not started yet says so when
// it has.
func (k *link) leave(reason Reason) {
	k.ctl.Lock()
	if k.parting == 0 {
		k.parting = reason
	}
	k.ctl.Unlock()
	_ = k.conn.SetWriteDeadline(time.Now().Add(pingEvery)) // of a write that is stuck
	signal(k.wake)
}

// control puts a frame into the queue that goes first.
func (k *link) control(f frame) {
	k.ctl.Lock()
	full := len(k.frames) >= controlQueue
	if !full {
		k.frames = append(k.frames, f)
	}
	k.ctl.Unlock()
	if full {
		go k.fail(k.failure(Broken, errors.New("too much to answer"))) // the caller may hold a stream's lock
		return
	}
	signal(k.wake)
}

func (k *link) reset(stream uint32, reason Reason) {
	k.control(frame{kind: frameReset, stream: stream, payload: []byte{byte(reason)}})
}

func (k *link) giveCredit(stream uint32, n int) {
	k.ctl.Lock()
	k.credits[stream] += n
	k.ctl.Unlock()
	signal(k.wake)
}

// urgent returns what goes before all else, encoded, and whether the link is to be closed after it.
func (k *link) urgent(b []byte) ([]byte, Reason) {
	k.ctl.Lock()
	defer k.ctl.Unlock()
	if k.pong != nil {
		b = k.count(frame{kind: framePong, payload: k.pong}, b)
		k.pong = nil
	}
	for stream, n := range k.credits {
		b = k.count(frame{kind: frameCredit, stream: stream, payload: binary.BigEndian.AppendUint32(nil, uint32(n))}, b)
	}
	clear(k.credits)
	for _, f := range k.frames {
		b = k.count(f, b)
	}
	k.frames = nil
	if k.parting != 0 {
		b = k.count(frame{kind: frameBye, payload: []byte{byte(k.parting)}}, b)
	}
	return b, k.parting
}

// parts is the reason for which this side is about to close the link.
func (k *link) parts() Reason {
	k.ctl.Lock()
	defer k.ctl.Unlock()
	return k.parting
}

func (k *link) count(f frame, b []byte) []byte {
	k.counters.sentFrames.Add(1)
	k.counters.sentBytes.Add(uint64(headerSize + len(f.payload)))
	return f.append(b)
}

func (k *link) write() {
	w := bufio.NewWriterSize(k.conn, headerSize+maxData)
	ping := time.NewTimer(pingEvery)
	defer ping.Stop()
	next := time.Now()
	var b []byte
	for {
		if len(b) == 0 {
			var parting Reason
			if b, parting = k.urgent(b); parting != 0 {
				_ = k.conn.SetWriteDeadline(time.Now().Add(pingEvery))
				_, _ = w.Write(b)
				_ = w.Flush()
				k.partWith(parting)
				return
			}
		}
		if now := time.Now(); len(b) == 0 && !now.Before(next) {
			next = now.Add(pingEvery)
			b = k.ping(b)
		}
		if len(b) == 0 {
			b = k.waiting(b)
		}
		if len(b) == 0 {
			if err := k.flush(w); err != nil {
				return
			}
			ping.Reset(time.Until(next))
			select {
			case <-k.done:
				return
			case <-k.wake:
			case <-ping.C:
			case p := <-k.packets:
				b = k.packet(p, b)
			case f := <-k.data:
				b = k.count(f, b)
			}
			continue
		}
		_ = k.conn.SetWriteDeadline(time.Now().Add(Verdict))
		if _, err := w.Write(b); err != nil {
			k.failed(err)
			return
		}
		b = b[:0]
	}
}

// partWith closes the link when the other side has, which has read why by then; else after a moment. To close at once might
// make the kernel throw away what was sent.
func (k *link) partWith(reason Reason) {
	t := time.NewTimer(pingEvery)
	defer t.Stop()
	select {
	case <-k.done:
	case <-t.C:
		k.fail(k.failure(reason, nil))
	}
}

func (k *link) flush(w *bufio.Writer) error {
	_ = k.conn.SetWriteDeadline(time.Now().Add(Verdict))
	err := w.Flush()
	if err != nil {
		k.failed(err)
	}
	return err
}

// waiting returns a packet or else a piece of a stream that is in its queue.
func (k *link) waiting(b []byte) []byte {
	select {
	case p := <-k.packets:
		return k.packet(p, b)
	default:
	}
	select {
	case f := <-k.data:
		return k.count(f, b)
	default:
		return b
	}
}

func (k *link) packet(p, b []byte) []byte {
	k.queued.Add(-int64(len(p)))
	return k.count(frame{kind: framePacket, payload: p}, b)
}

// ping appends one, and closes what was made for an errand and has had none for long.
func (k *link) ping(b []byte) []byte {
	now := time.Since(k.since)
	if k.errand.Load() && now-time.Duration(k.used.Load()) > idleAfter && k.quiet() {
		k.leave(Idle)
		return b
	}
	k.pinged.Store(int64(now))
	return k.count(frame{kind: framePing, payload: binary.BigEndian.AppendUint64(nil, uint64(now))}, b)
}

func (k *link) quiet() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.streams) == 0
}

func (k *link) use() { k.used.Store(int64(time.Since(k.since))) }

// failed closes the link for an error of its connection.
func (k *link) failed(err error) {
	reason := Cut
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		reason = Silent
	}
	k.fail(k.failure(reason, err))
}

func (k *link) read() {
	r := bufio.NewReaderSize(k.conn, headerSize+maxData)
	for {
		_ = k.conn.SetReadDeadline(time.Now().Add(Verdict))
		f, err := readFrame(r)
		if err == nil {
			k.heard.Store(int64(time.Since(k.since)))
			k.counters.receivedFrames.Add(1)
			k.counters.receivedBytes.Add(uint64(headerSize + len(f.payload)))
			err = k.handle(f)
		}
		var broken *RefusedError
		switch timeout := net.Error(nil); {
		case err == nil:
			continue
		case k.parts() != 0:
			k.fail(k.failure(k.parts(), nil))
		case errors.As(err, &broken):
			k.fail(err)
		case errors.As(err, &timeout) && timeout.Timeout(), brokenOff(err):
			k.failed(err)
		default:
			k.fail(k.failure(Broken, err))
		}
		return
	}
}

// handle takes a frame. It never waits: what nobody takes is dropped or refused, and what a stream has
// no room for is a breach of the protocol.
func (k *link) handle(f frame) error {
	switch f.kind {
	case framePing:
		k.ctl.Lock()
		k.pong = f.payload
		k.ctl.Unlock()
		signal(k.wake)
	case framePong:
		if sent := binary.BigEndian.Uint64(f.payload); sent == uint64(k.pinged.Load()) {
			k.measured(time.Since(k.since) - time.Duration(sent))
		}
	case framePacket:
		k.use()
		if !k.l.deliver(Packet{Host: k.host, Body: f.payload}) {
			k.counters.droppedIn.Add(1)
		}
	case frameOpen:
		k.use()
		return k.opened(f)
	case frameBye:
		return k.failure(Reason(f.payload[0]).mirror(), nil)
	default:
		if !f.kind.known() {
			return nil
		}
		k.mu.Lock()
		s := k.streams[f.stream]
		k.mu.Unlock()
		if s != nil {
			return s.receive(f)
		}
		// It was of a stream that is over on this side.
	}
	return nil
}

// measured takes a round trip into the mean, of which it is an eighth.
func (k *link) measured(d time.Duration) {
	d = max(d, time.Microsecond)
	if old := time.Duration(k.rtt.Load()); old > 0 {
		d = old + (d-old)/8
	}
	k.rtt.Store(int64(d))
}

// opened takes a stream that the other side began.
func (k *link) opened(f frame) error {
	k.mu.Lock()
	switch _, there := k.streams[f.stream]; {
	case there || f.stream%2 == k.next%2:
		k.mu.Unlock()
		return fmt.Errorf("stream %d begins twice", f.stream)
	case len(k.streams) >= maxStreams || k.streams == nil:
		k.mu.Unlock()
		k.reset(f.stream, Busy)
		return nil
	}
	s := newStream(k, f.stream)
	k.streams[f.stream] = s
	k.mu.Unlock()
	if reason := k.l.accept(s, f.payload); reason != 0 {
		k.forget(s)
		k.reset(f.stream, reason)
	}
	return nil
}

// open begins a stream.
func (k *link) open(ctx context.Context, what ...byte) (*Stream, error) {
	k.use()
	k.mu.Lock()
	if k.streams == nil || len(k.streams) >= maxStreams {
		k.mu.Unlock()
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: too many streams", k.host.Short())
	}
	s := newStream(k, k.next)
	k.next += 2
	k.streams[s.id] = s
	k.mu.Unlock()
	select {
	case k.data <- frame{kind: frameOpen, stream: s.id, payload: what}:
		return s, nil
	case <-k.done:
		return nil, k.err
	case <-ctx.Done():
		k.forget(s)
		return nil, context.Cause(ctx)
	}
}

func (k *link) forget(s *Stream) {
	k.mu.Lock()
	delete(k.streams, s.id)
	k.mu.Unlock()
	k.use()
}

// send puts a packet into the queue, unless that is full.
func (k *link) send(b []byte) bool {
	k.use()
	if k.queued.Add(int64(len(b))) > packetQueueBytes+int64(len(b)) {
		k.queued.Add(-int64(len(b)))
		k.counters.droppedOut.Add(1)
		return false
	}
	select {
	case k.packets <- b:
		return true
	default:
		k.queued.Add(-int64(len(b)))
		k.counters.droppedOut.Add(1)
		return false
	}
}
