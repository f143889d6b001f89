package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	syncLimit = 10 * time.Second // of one part of a sync
	maxSyncs  = 4                // that this host begins at a time
	batchSize = 64 << 10         // of records, as they travel
	maxFrame  = 256 << 10
)

func (g *gossip) sendRoot(h record.Host) {
	_ = g.net.Send(h, binary.BigEndian.AppendUint64([]byte{toRoot}, g.store.Root()))
}

// compare tells one neighbour the root of this host's digest.
func (g *gossip) compare() {
	if peers := g.net.Peers(); len(peers) > 0 {
		g.sendRoot(peers[rand.N(len(peers))].Host)
	}
}

// root takes the root of another host's digest. If the two hold different records, the lower host begins to sync; the
// higher one has it begin.
func (g *gossip) root(from record.Host, root uint64) {
	if root == g.store.Root() || from == g.c.self {
		return
	}
	if g.c.self.Compare(from) > 0 {
		g.sendRoot(from)
		return
	}
	g.mu.Lock()
	begin := !g.syncing[from] && len(g.syncing) < maxSyncs
	if begin {
		g.syncing[from] = true
	}
	g.mu.Unlock()
	if !begin {
		return
	}
	g.c.spawn(func() {
		news, err := g.sync(from)
		if err != nil {
			g.c.log.Debug("cannot learn from a host what this one lacks", "host", from.Short(), "err", err)
		}
		g.mu.Lock()
		delete(g.syncing, from)
		g.mu.Unlock()
		if news > few {
			g.passOn(from)
		}
	})
}

// passOn tells neighbours that there is much news here.
func (g *gossip) passOn(from record.Host) {
	peers := g.net.Peers()
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	for _, p := range peers[:min(len(peers), 4)] {
		if p.Host != from {
			g.sendRoot(p.Host)
		}
	}
}

// sync brings each of two hosts what it lacks: the digests first, then the records, of the one who answers first.
func (g *gossip) sync(h record.Host) (news int, err error) {
	ctx, cancel := context.WithTimeout(g.c.life, syncLimit)
	defer cancel()
	conn, err := g.open(ctx, h, toSync, time.Now().Add(syncLimit))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(g.c.life, func() { _ = conn.Close() })()
	if err := writeFrame(conn, g.store.Digest()); err != nil {
		return 0, err
	}
	r := bufio.NewReader(conn)
	theirs, err := readFrame(r)
	if err != nil {
		return 0, err
	}
	if news, err = g.take(conn, r); err != nil {
		return news, err
	}
	return news, g.bring(conn, theirs)
}

// answer is the other side of sync.
func (g *gossip) answer(conn net.Conn) error {
	defer context.AfterFunc(g.c.life, func() { _ = conn.Close() })()
	r := bufio.NewReader(conn)
	theirs, err := readFrame(r)
	if err != nil {
		return err
	}
	if err := writeFrame(conn, g.store.Digest()); err != nil {
		return err
	}
	if err := g.bring(conn, theirs); err != nil {
		return err
	}
	news, err := g.take(conn, r)
	if news > few {
		g.passOn(record.Host{})
	}
	return err
}

// bring writes what who has that digest may lack, and an empty frame.
func (g *gossip) bring(conn net.Conn, digest []byte) error {
	missing, err := g.store.Missing(digest)
	if err != nil {
		return err
	}
	var batch []byte
	flush := func() error {
		if err := conn.SetDeadline(time.Now().Add(syncLimit)); err != nil {
			return err
		}
		err := writeFrame(conn, batch)
		batch = batch[:0]
		return err
	}
	for _, r := range missing {
		if batch = r.Append(batch); len(batch) >= batchSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(batch) > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	return writeFrame(conn, nil)
}

// take reads records until an empty frame. What is no record ends its frame, not the stream.
func (g *gossip) take(conn net.Conn, r io.Reader) (news int, err error) {
	for {
		if err := conn.SetDeadline(time.Now().Add(syncLimit)); err != nil {
			return news, err
		}
		b, err := readFrame(r)
		if err != nil || len(b) == 0 {
			return news, err
		}
		var records []record.Record
		for len(b) > 0 {
			var one record.Record
			var bad error
			if one, b, bad = record.Decode(b); bad != nil {
				g.c.log.Debug("what another host brings is no record", "err", bad)
				break
			}
			records = append(records, one)
		}
		n, _ := g.store.Merge(records)
		news += n
	}
}

// A frame is a length, 4 bytes, and so many bytes.
func writeFrame(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "a frame of %d bytes, at most %d may be", n, maxFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}
