package cluster

import (
	"bufio"
	"context"
	"net"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// callLimit bounds one question with its answer.
const callLimit = 10 * time.Second

// Ask asks another host something, which Config.Answer answers there. One that cannot be reached, or that does not
// answer in time, is ErrUnavailable.
func (c *Cluster) Ask(ctx context.Context, h record.Host, question []byte) ([]byte, error) {
	c.mu.Lock()
	g := c.gossip
	c.mu.Unlock()
	if g == nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: this host is in no cluster", h.Short())
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	until, _ := ctx.Deadline() // there is one
	conn, err := g.open(ctx, h, toQuestion, until)
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: %w", h.Short(), err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := writeFrame(conn, question); err != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: %w", h.Short(), err)
	}
	answer, err := readFrame(bufio.NewReader(conn))
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: %w", h.Short(), err)
	}
	return answer, nil
}

// asked answers a question of another host.
func (c *Cluster) asked(from record.Host, conn net.Conn) error {
	question, err := readFrame(bufio.NewReader(conn))
	if err != nil || c.cfg.Answer == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.life, callLimit)
	defer cancel()
	return writeFrame(conn, c.cfg.Answer(ctx, from, question))
}
