package registry

import (
	"log/slog"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/remora-plugins/remora/internal/managed/store"
)

// A registry that is given a certificate while the daemon runs is spoken to with TLS from then on.
func TestBecomesSafe(t *testing.T) {
	c := client(t)
	l := newLiar(t)
	l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, []byte(config)), l.add(store.MediaTypeLayer, []byte("x"))))
	addr := "127.0.0.1:0"
	for _, safe := range []bool{false, false, true} {
		s := httptest.NewUnstartedServer(l)
		_ = s.Listener.Close() // it is another's
		s.Listener = must[net.Listener](t)(net.Listen("tcp", addr))
		addr = s.Listener.Addr().String()
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		if safe {
			s.StartTLS()
		} else {
			s.Start()
		}
		if _, err := c.Privileges(t.Context(), ref(t, addr+"/p:v1"), Auth{}); err != nil {
			t.Errorf("with TLS %v: %v", safe, err)
		}
		s.CloseClientConnections()
		s.Close()
	}
}
