package link

import (
	"io"
	"testing"

	"github.com/remora-plugins/remora/internal/cluster/password"
)

// BenchmarkLink is what it takes from Dial until the link is there, over loopback.
func BenchmarkLink(b *testing.B) {
	for _, how := range []string{"password", "known"} {
		b.Run(how, func(b *testing.B) {
			x, y := newHost(b, 1), newHost(b, 2)
			if how == "known" {
				x.set(y.Self(), Member)
				y.set(x.Self(), Member)
			}
			for b.Loop() {
				if _, err := x.Dial(b.Context(), y.address); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				x.best(y.Self()).fail(io.EOF)
				for y.linked(x) || x.linked(y) {
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkLaunch is the same with what the password costs once.
func BenchmarkLaunch(b *testing.B) {
	y := newHost(b, 2)
	for b.Loop() {
		if _, err := password.Derive("correct horse battery staple"); err != nil {
			b.Fatal(err)
		}
		x := newHost(b, 1)
		if _, err := x.Dial(b.Context(), y.address); err != nil {
			b.Fatal(err)
		}
		x.Close()
	}
}

// BenchmarkStream is bytes through one stream.
func BenchmarkStream(b *testing.B) {
	for _, way := range []string{"direct", "relayed"} {
		b.Run(way, func(b *testing.B) {
			x, y := newHost(b, 1), newHost(b, 2)
			if way == "direct" {
				x.mustDial(b, y)
			} else {
				m := newHost(b, 3)
				x.mustDial(b, m)
				y.mustDial(b, m)
			}
			s, err := x.OpenStream(b.Context(), y.Self())
			if err != nil {
				b.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, <-y.Streams()) }()
			piece := make([]byte, 64<<10)
			b.SetBytes(int64(len(piece)))
			for b.Loop() {
				if _, err := s.Write(piece); err != nil {
					b.Fatal(err)
				}
			}
			_ = s.Close()
		})
	}
}

// BenchmarkMessage is a message there and back.
func BenchmarkMessage(b *testing.B) {
	x, y := newHost(b, 1), newHost(b, 2)
	x.mustDial(b, y)
	done := b.Context().Done()
	go func() {
		for {
			select {
			case p := <-y.Packets():
				_ = y.Send(p.Host, p.Body)
			case <-done:
				return
			}
		}
	}()
	m := make([]byte, 200)
	for b.Loop() {
		if err := x.Send(y.Self(), m); err != nil {
			b.Fatal(err)
		}
		<-x.Packets()
	}
}
