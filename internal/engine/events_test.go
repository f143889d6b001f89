package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The events are those of Docker 20.10, cut down.
func TestEvents(t *testing.T) {
	e := answering(t, 200, `{"status":"start","id":"8dfa","from":"bb:1","Type":"container","Action":"start","Actor":{"ID":"8dfa","Attributes":{"image":"bb:1","name":"web"}},"scope":"local","time":1,"timeNano":2}
{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{"container":"8dfb","name":"blue","type":"bridge"}}}
{"Type":"network","Action":"create","Actor":{"ID":"n2","Attributes":{"name":"red"}}}`+"\n")
	var got []string
	begun := 0
	err := e.Events(t.Context(), []string{"container"}, func() { begun++ }, func(ev Event) { got = append(got, ev.Action+" "+ev.Container()) })
	if diff := cmp.Diff([]string{"start 8dfa", "connect 8dfb", "create "}, got); diff != "" || begun != 1 {
		t.Errorf("begun %d times (-want +got):\n%s", begun, diff)
	}
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("at the end: %v", err)
	}
	e = answering(t, http.StatusBadRequest, `{"message":"bad filter"}`)
	if err := e.Events(t.Context(), nil, func() { t.Error("has begun") }, nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("refused: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := answering(t, 0, "").Events(ctx, nil, func() {}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
}

func TestAttached(t *testing.T) {
	got, err := answering(t, 200, `{"Id":"8dfa","Name":"/web","State":{"Running":true},"Config":{"Hostname":"box","Domainname":"lan","Labels":{"a":"b"}},
		"NetworkSettings":{"Networks":{"blue":{"NetworkID":"n1","IPAddress":"10.32.0.2","GlobalIPv6Address":"","Aliases":["www"],"DNSNames":null}}}}`).Attached(t.Context(), "web")
	want := Attached{ID: "8dfa", Name: "web", Hostname: "box", Domain: "lan", Running: true, Labels: map[string]string{"a": "b"}, Networks: map[string]Endpoint{
		"blue": {NetworkID: "n1", IPAddress: "10.32.0.2", Aliases: []string{"www"}},
	}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestNetworks(t *testing.T) {
	got, err := answering(t, 200, `[{"Name":"blue","Id":"n1","Driver":"remora:latest","Options":{"o":"p"},"Labels":null}]`).Networks(t.Context())
	if diff := cmp.Diff([]Network{{ID: "n1", Name: "blue", Driver: "remora:latest", Options: map[string]string{"o": "p"}}}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// TestConnect: addresses that are not chosen are left out, since an engine takes an empty one for a wrong one.
func TestConnect(t *testing.T) {
	var got []string
	socket := filepath.Join(t.TempDir(), "e.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.Path+" "+string(body))
	})}
	go func() { _ = s.Serve(l) }()
	e := Engine{Socket: socket}
	for _, err := range []error{
		e.Connect(t.Context(), "n1", "c1", netip.MustParseAddr("10.0.0.9"), netip.Addr{}),
		e.Connect(t.Context(), "n1", "c1", netip.Addr{}, netip.Addr{}),
		e.Disconnect(t.Context(), "n1", "c1"),
		s.Close(),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{
		`POST /networks/n1/connect {"Container":"c1","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.0.0.9"}}}`,
		`POST /networks/n1/connect {"Container":"c1","EndpointConfig":{"IPAMConfig":{}}}`,
		`POST /networks/n1/disconnect {"Container":"c1"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// endless is one event that does not end.
type endless struct{ begun bool }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	if !e.begun && len(p) > 0 {
		p[0], e.begun = '"', true
	}
	return len(p), nil
}

func TestEndlessEvent(t *testing.T) {
	if err := decodeEvents(new(endless), func(Event) { t.Error("an event") }); err == nil {
		t.Error("no error")
	}
}

func FuzzDecodeEvents(f *testing.F) {
	f.Add(`{"Type":"container","Action":"die","Actor":{"ID":"x","Attributes":{"container":"y"}}}`)
	f.Add(`{"Type":"network"}{`)
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		if err := decodeEvents(strings.NewReader(text), func(ev Event) { _ = ev.Container(); n++ }); err == nil || n > len(text) {
			t.Errorf("%d events, %v", n, err)
		}
	})
}
