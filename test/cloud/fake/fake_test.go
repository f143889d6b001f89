package fake

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestManualClockCallsInOrderAndInTurn(t *testing.T) {
	clock := NewManual(start)
	var got []string
	note := func(what string) func() {
		return func() { got = append(got, what+" "+clock.Now().Sub(start).String()) }
	}
	clock.AfterFunc(3*time.Second, note("third"))
	clock.AfterFunc(time.Second, func() {
		note("first")()
		clock.AfterFunc(time.Second, note("second"))
		clock.AfterFunc(time.Hour, note("never"))
	})
	clock.Advance(3 * time.Second)
	if diff := cmp.Diff([]string{"first 1s", "second 2s", "third 3s"}, got); diff != "" {
		t.Error(diff)
	}
}

// served is a server with one kind of call, and how often it had an effect.
func served(t *testing.T) (calls *Calls, get func() string, effects *int) {
	calls, effects = &Calls{}, new(int)
	style := Style{
		Fail:     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusServiceUnavailable) },
		Throttle: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "slower", http.StatusTooManyRequests) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Serve(w, r, "thing.get", style, func(w http.ResponseWriter, r *http.Request) {
			*effects++
			io.WriteString(w, "fine")
		})
	}))
	t.Cleanup(srv.Close)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return calls, func() string {
		resp, err := client.Get(srv.URL)
		if err != nil {
			return "cut"
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return strings.TrimSpace(string(body))
	}, effects
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault Fault
		want  []string
		// effects are those of all calls.
		effects int
		count   Count
	}{
		{"fail", Fault{What: Fail, Times: 1}, []string{"broken", "fine"}, 1, Count{Calls: 2, Failed: 1}},
		{"lose", Fault{What: Lose, Times: 1}, []string{"cut", "fine"}, 2, Count{Calls: 2}},
		{"throttle", Fault{What: Throttle, Times: 2}, []string{"slower", "slower", "fine"}, 1, Count{Calls: 3, Throttled: 2}},
		{"skip", Fault{What: Fail, Skip: 1, Times: 1}, []string{"fine", "broken", "fine"}, 2, Count{Calls: 3, Failed: 1}},
		{"for ever", Fault{What: Fail}, []string{"broken", "broken", "broken"}, 0, Count{Calls: 3, Failed: 3}},
		{"of another kind", Fault{Call: "thing.put", What: Fail}, []string{"fine"}, 1, Count{Calls: 1}},
		{"hang", Fault{What: Hang, Times: 1, For: 0.01}, []string{"fine", "fine"}, 2, Count{Calls: 2}},
		{"errored is for the cloud", Fault{What: Errored}, []string{"fine"}, 1, Count{Calls: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls, get, effects := served(t)
			calls.Add(c.fault)
			var got []string
			for range c.want {
				got = append(got, get())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if *effects != c.effects {
				t.Errorf("%d effects, want %d", *effects, c.effects)
			}
			if diff := cmp.Diff(map[string]Count{"thing.get": c.count}, calls.Counts()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHangWhileTheCallerGoesAway(t *testing.T) {
	for what, effects := range map[string]int{Hang: 0, HangAfter: 1} {
		calls, _, _ := served(t)
		calls.Add(Fault{What: what})
		done, got := make(chan struct{}), 0
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(done)
			calls.Serve(w, r, "thing.get", Style{}, func(http.ResponseWriter, *http.Request) { got++ })
		}))
		client := &http.Client{Timeout: 50 * time.Millisecond}
		if resp, err := client.Get(srv.URL); err == nil {
			resp.Body.Close()
			t.Errorf("%s: an answer came", what)
		}
		<-done
		if got != effects {
			t.Errorf("%s: %d effects, want %d", what, got, effects)
		}
		srv.Close()
	}
}

func TestWindow(t *testing.T) {
	w := Window{Limit: 2, Per: time.Minute}
	var got []bool
	for _, at := range []time.Duration{0, 1, 2, 60, 61, 62} {
		got = append(got, w.Take(start.Add(at*time.Second)))
	}
	if diff := cmp.Diff([]bool{true, true, false, true, true, false}, got); diff != "" {
		t.Error(diff)
	}
}

func TestLagged(t *testing.T) {
	var l Lagged[string]
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	l.Set("a", "a1", at(1))
	l.Set("b", "b1", at(2))
	l.Set("a", "a2", at(3))
	l.Delete("b", at(4))
	for _, c := range []struct {
		at   int
		want []string
	}{
		{0, []string{}},
		{1, []string{"a1"}},
		{2, []string{"a1", "b1"}},
		{3, []string{"a2", "b1"}},
		{4, []string{"a2"}},
		{9, []string{"a2"}},
	} {
		if diff := cmp.Diff(c.want, l.At(at(c.at))); diff != "" {
			t.Errorf("at %d: %s", c.at, diff)
		}
	}
}

func TestFilesAreSparseAndCopied(t *testing.T) {
	files := Files(t.TempDir())
	const size = 1 << 30
	if err := files.Create("a", size); err != nil {
		t.Fatal(err)
	}
	if err := files.Create("a", size); err == nil {
		t.Error("a second file of the same name was made")
	}
	f, err := os.OpenFile(files.Path("a"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := bytes.Repeat([]byte("remora"), 10000)
	for _, off := range []int64{0, 500 << 20, size - int64(len(data))} {
		if _, err := f.WriteAt(data, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Copy("b", "a", 2*size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("changed"), 0); err != nil {
		t.Fatal(err)
	}
	b, err := os.Open(files.Path("b"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, off := range []int64{0, 500 << 20, size - int64(len(data))} {
		got := make([]byte, len(data))
		if _, err := b.ReadAt(got, off); err != nil || !bytes.Equal(got, data) {
			t.Errorf("at %d the copy differs (%v)", off, err)
		}
	}
	if info, _ := b.Stat(); info.Size() != 2*size {
		t.Errorf("the copy has %d bytes", info.Size())
	}
	if used := files.Used("b"); used > 1<<20 {
		t.Errorf("the copy takes %d bytes on disk", used)
	}
}

func TestControl(t *testing.T) {
	calls, get, _ := served(t)
	clock := NewManual(start)
	srv := httptest.NewServer(Control(calls, clock))
	defer srv.Close()
	do := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, strings.TrimSpace(string(text))
	}
	for _, bad := range []string{`{"what":"explode"}`, `{"what":"fail","call":"x","until":3}`, `no`} {
		if status, _ := do("POST", "/faults", bad); status != http.StatusBadRequest {
			t.Errorf("fault %s: status %d", bad, status)
		}
	}
	do("POST", "/faults", `{"what":"fail"}`)
	if got := get(); got != "broken" {
		t.Errorf("with a fault the answer is %q", got)
	}
	do("DELETE", "/faults", "")
	if got := get(); got != "fine" {
		t.Errorf("without it the answer is %q", got)
	}
	if _, got := do("GET", "/counts", ""); got != `{"thing.get":{"calls":2,"failed":1}}` {
		t.Errorf("counts %s", got)
	}
	do("DELETE", "/counts", "")
	if n := calls.Total(); n != 0 {
		t.Errorf("%d calls after the counters were reset", n)
	}
	do("POST", "/advance?by=90s", "")
	if got := clock.Now().Sub(start); got != 90*time.Second {
		t.Errorf("advanced by %v", got)
	}
	if status, _ := do("POST", "/advance?by=long", ""); status != http.StatusBadRequest {
		t.Errorf("advanced by nonsense: %d", status)
	}
}
