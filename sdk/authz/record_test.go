package authz_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/sdk"
)

// The files hold some exchanges of each sort, and none of the large.
const maxExchanges, maxRecorded = 60, 2 << 10

var recordTo = flag.String("record", "", "write what engines send to `directory`, as NAME.txtar for each test; see sdk/internal/wire/testdata")

// recorder returns p, and with -record one that writes down each exchange.
func recorder(t *testing.T, p sdk.Plugin) sdk.Plugin {
	if *recordTo == "" {
		return p
	}
	r := &recording{Plugin: p}
	t.Cleanup(func() {
		file := filepath.Join(*recordTo, "authz-"+strings.ToLower(strings.TrimPrefix(t.Name(), "Test"))+".txtar")
		if err := os.WriteFile(file, r.archive.Bytes(), 0o644); err != nil {
			t.Error(err)
		}
	})
	return r
}

type recording struct {
	sdk.Plugin
	mu      sync.Mutex
	archive bytes.Buffer
	n       int
}

func (r *recording) Methods() map[string]http.Handler {
	methods := map[string]http.Handler{}
	for name, next := range r.Plugin.Methods() {
		methods[name] = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			req.Body = io.NopCloser(bytes.NewReader(body))
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, req)
			r.mu.Lock()
			if len(body) <= maxRecorded && r.n < maxExchanges {
				r.n++
				fmt.Fprintf(&r.archive, "-- %03d %s --\n%s-- %03d answer %d --\n%s", r.n, name, body, r.n, answer.Code, answer.Body)
			}
			r.mu.Unlock()
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes()) // the engine is gone
		})
	}
	return methods
}
