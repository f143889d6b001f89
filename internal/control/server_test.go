package control_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func post(s *service, path, body string) *httptest.ResponseRecorder {
	return send(s, http.MethodPost, path, body)
}

func send(s *service, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	newServer(s).ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

// Scripts depend on every byte of the answers.
func TestGoldenAnswers(t *testing.T) {
	empty := &service{}
	wrong := &service{err: errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "volume \"data\": mounted by 2f73"), "stop the container")}
	for _, tt := range []struct {
		name, method, body string
		s                  *service
	}{
		{"create", "Volume.Create", `{"Pool":"fast","Name":"data","Options":{"mode":"0700"}}`, full()},
		{"list", "Volume.List", `{"Pool":"fast"}`, full()},
		{"list-empty", "Volume.List", ``, empty},
		{"inspect", "Volume.Inspect", `{"Name":"data"}`, full()},
		{"inspect-empty", "Volume.Inspect", `{"Name":"data"}`, empty},
		{"remove", "Volume.Remove", `{"Name":"data"}`, full()},
		{"mount", "Volume.Mount", `{"Name":"data","ID":"2f73"}`, full()},
		{"unmount", "Volume.Unmount", `{"Name":"data","ID":"2f73"}`, full()},
		{"path", "Volume.Path", `{"Name":"data"}`, full()},
		{"path-empty", "Volume.Path", `{"Name":"data"}`, empty},
		{"status", "Daemon.Status", `{}`, full()},
		{"reload", "Daemon.Reload", `{}`, full()},
		{"reload-empty", "Daemon.Reload", ``, empty},
		{"reconcile", "Daemon.Reconcile", `{}`, full()},
		{"reconcile-error", "Daemon.Reconcile", `{}`, wrong},
		{"clone", "Volume.Clone", `{"Name":"new","From":"data","Snapshot":"s1","Options":{"mode":"0700"}}`, full()},
		{"resize", "Volume.Resize", `{"Name":"data","By":4096}`, full()},
		{"rollback", "Volume.Rollback", `{"Name":"data","Snapshot":"s1"}`, full()},
		{"usage", "Volume.Usage", `{"Name":"data"}`, full()},
		{"usage-empty", "Volume.Usage", `{"Name":"data"}`, empty},
		{"usage-error", "Volume.Usage", `{"Name":"data"}`, wrong},
		{"protect", "Volume.Protect", `{"Name":"data","Protected":true}`, full()},
		{"snapshot-create", "Snapshot.Create", `{"Volume":"data","Labels":{"a":"b"}}`, full()},
		{"snapshot-list", "Snapshot.List", `{"Pool":"fast","Volume":"data"}`, full()},
		{"snapshot-list-empty", "Snapshot.List", ``, empty},
		{"snapshot-remove", "Snapshot.Remove", `{"Volume":"data","Name":"s1"}`, full()},
		{"snapshot-diff", "Snapshot.Diff", `{"Volume":"data","From":"s1"}`, full()},
		{"snapshot-diff-error", "Snapshot.Diff", `{"Volume":"data","From":"s1"}`, wrong},
		{"trash-list", "Trash.List", `{}`, full()},
		{"trash-list-empty", "Trash.List", ``, empty},
		{"trash-restore", "Trash.Restore", `{"ID":"18a-2f","Name":"data"}`, full()},
		{"trash-purge", "Trash.Purge", `{"Pool":"fast","ID":"18a-2f"}`, full()},
		{"schedule-list", "Schedule.List", ``, full()},
		{"schedule-list-empty", "Schedule.List", ``, empty},
		{"error", "Volume.Remove", `{"Name":"data"}`, wrong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := post(tt.s, "/"+tt.method, tt.body)
			got := fmt.Sprintf("%d %s\n%s", w.Code, w.Header().Get("Content-Type"), w.Body)
			path := filepath.Join("testdata", tt.name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusOfEachClass(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{errdefs.ErrNotFound, 404},
		{errdefs.ErrExists, 409},
		{errdefs.ErrInUse, 409},
		{errdefs.ErrInvalid, 400},
		{errdefs.ErrUnsupported, 501},
		{errdefs.ErrUnavailable, 503},
		{errdefs.ErrDenied, 403},
		{context.DeadlineExceeded, 504},
		{errors.New("disk on fire"), 500},
	} {
		if w := post(&service{err: tt.err}, "/Volume.Remove", `{"Name":"x"}`); w.Code != tt.want {
			t.Errorf("%v: status %d, want %d", tt.err, w.Code, tt.want)
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	for _, tt := range []struct {
		name, method, path, body string
		code                     int
		want                     string
	}{
		{"not POST", "GET", "/Volume.List", "", 405, "Volume.List: use POST, not \\\"GET\\\""},
		{"no such method", "POST", "/Volume.Frob", "{}", 501, "POST \\\"/Volume.Frob\\\": the daemon has no such method"},
		{"no such page", "GET", "/", "", 501, "no such method"},
		{"unknown field", "POST", "/Volume.Create", `{"Name":"x","Opts":{}}`, 400, "unknown field \\\"Opts\\\""},
		{"field of no argument", "POST", "/Daemon.Status", `{"Name":"x"}`, 400, "unknown field"},
		{"field of a stream", "POST", "/Daemon.Reconcile", `{"Name":"x"}`, 400, "Daemon.Reconcile: request is not the JSON"},
		{"wrong type", "POST", "/Volume.Create", `{"Name":3}`, 400, "Volume.Create: request is not the JSON of this method"},
		{"no JSON", "POST", "/Volume.Create", `Name=x`, 400, "request is not the JSON"},
		{"cut off", "POST", "/Volume.Create", `{"Name":"x"`, 400, "request is not the JSON"},
		{"two values", "POST", "/Volume.Create", `{"Name":"x"}{"Name":"y"}`, 400, "request has more behind its JSON object"},
		{"a brace too many", "POST", "/Volume.Create", `{"Name":"x"}}`, 400, "request has more behind its JSON object"},
		{"too large", "POST", "/Volume.Create", `{"Name":"` + strings.Repeat("x", 1<<20) + `"}`, 400, "request is larger than 1048576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := full()
			w := send(s, tt.method, tt.path, tt.body)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) || !strings.Contains(w.Body.String(), `"Class":"`) {
				t.Errorf("answer is %d %s, want %d with %q", w.Code, w.Body, tt.code, tt.want)
			}
			if s.got != nil {
				t.Errorf("it was done all the same: %+v", s.got)
			}
			if tt.code == 405 && w.Header().Get("Allow") != "POST" {
				t.Errorf("allows %q", w.Header().Get("Allow"))
			}
		})
	}
}

func TestPanicIsAnError(t *testing.T) {
	w := post(&service{panics: true}, "/Volume.Remove", `{"Name":"x"}`)
	if w.Code != 500 || !strings.Contains(w.Body.String(), "Volume.Remove: internal error") || strings.Contains(w.Body.String(), "the test wants it") {
		t.Errorf("answer is %d %s", w.Code, w.Body)
	}
}

// FuzzRequest: whatever is sent, the answer is one of ours.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"Name":"x","Pool":"y","Options":{"a":"b"}}`, `{"Name":null}`, "[]", "null", "\xff", `{"Name":"x"}{`} {
		f.Add("Volume.Create", seed)
	}
	f.Add("Volume.Mount", `{"Name":"x","ID":"y"}`)
	f.Fuzz(func(t *testing.T, method, body string) {
		s := full()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/Volume.List", strings.NewReader(body))
		if strings.HasPrefix(method, "Volume.") || strings.HasPrefix(method, "Daemon.") {
			r.URL.Path = "/" + method
		}
		newServer(s).ServeHTTP(w, r)
		ok := w.Code == http.StatusOK && s.got != nil || r.URL.Path == "/Daemon.Status" || r.URL.Path == "/Daemon.Reload" || r.URL.Path == "/Daemon.Reconcile"
		refused := s.got == nil && strings.HasPrefix(w.Body.String(), `{"Error":"`)
		moved := w.Code == http.StatusTemporaryRedirect || w.Code == http.StatusMovedPermanently // a path such as "/Volume.//x" that the mux tidies
		if !ok && !refused && !moved {
			t.Errorf("%q %q: %d %s", method, body, w.Code, w.Body)
		}
	})
}
