package control_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
)

// A connection on which nothing was asked does not hold up a stop, nor is it an error.
func TestStopWithSilentConnection(t *testing.T) {
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- newServer(&service{}).Serve(ctx, l) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := control.NewClient(path)
	defer c.Close()
	if _, err := c.Status(ctx); err != nil { // answered on a second connection: the first was accepted
		t.Fatal(err)
	}
	stop()
	select {
	case err := <-served:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(4 * time.Second):
		t.Error("a silent connection holds up the stop")
	}
}
