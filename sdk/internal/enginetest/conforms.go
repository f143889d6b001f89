package enginetest

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/client"
)

// Conforms fails the test unless the plugin at a socket passes all cases of package check
// that are about it, those that replay an engine too.
func Conforms(t *testing.T, socket string) {
	t.Helper()
	for end := time.Now().Add(startTime); ; time.Sleep(10 * time.Millisecond) {
		c, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
		if err == nil {
			_ = c.Close() // somebody listens
			break
		}
		if time.Now().After(end) {
			t.Fatalf("nobody listens: %v", err)
		}
	}
	r, err := check.Run(t.Context(), client.Endpoint{Name: filepath.Base(socket), Addr: "unix://" + socket}, check.Options{Engine: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != check.Conforms || len(r.Left()) > 0 || r.Count(check.Pass) < 20 {
		t.Errorf("%s, left %q", r.Summary(), r.Left())
	}
	for _, f := range r.Failed() {
		t.Errorf("%s: %q, %v", f.ID, f.Reasons, f.Evidence)
	}
}
