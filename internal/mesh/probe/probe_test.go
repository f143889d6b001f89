package probe

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
)

func TestPing(t *testing.T) {
	testenv.Require(t, testenv.Root)
	p, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, to := range []string{"127.0.0.1", "::1"} {
		for _, size := range []int{0, Least, 1280, 1423, 9000} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if rtt, ok := p.Ping(ctx, netip.MustParseAddr(to), size); !ok || rtt <= 0 {
				t.Errorf("%s, %d bytes: %v, %v", to, size, rtt, ok)
			}
			cancel()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, ok := p.Ping(ctx, netip.MustParseAddr("240.0.0.1"), 100); ok {
		t.Error("an address that nobody has answers")
	}
	if len(p.waiting) > 0 {
		t.Errorf("%d are still waited for", len(p.waiting))
	}
}

func TestLargest(t *testing.T) {
	for real := 1200; real <= 1500; real++ {
		asked := 0
		got := Largest(1280, 1420, func(size int) bool { asked++; return size <= real })
		want := min(max(real, 1280), 1420)
		if got > want || want-got > step {
			t.Errorf("%d fit: found %d", real, got)
		}
		if asked > 8 {
			t.Errorf("%d fit: asked %d times", real, asked)
		}
	}
}
