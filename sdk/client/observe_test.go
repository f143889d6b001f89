package client

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	if strings.Contains(string(b), "gone") {
		w.WriteHeader(http.StatusInternalServerError)
	}
	fmt.Fprintf(w, `{"Err":%q}`, r.URL.Path+" "+strings.TrimSpace(string(b)))
}

func TestObserve(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(echo))
	defer s.Close()
	var seen []Exchange
	c, err := New(Endpoint{Name: "x", Addr: s.URL}, Options{Observe: func(x Exchange) { seen = append(seen, x) }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Activate(t.Context())
	_ = c.Volume().Remove(t.Context(), "gone")
	s.Close()
	_ = c.Volume().Remove(t.Context(), "later")
	if len(seen) != 3 {
		t.Fatalf("%d exchanges: %+v", len(seen), seen)
	}
	for i, want := range []struct {
		method, request, answer string
		status                  int
	}{
		{"Plugin.Activate", "", `{"Err":"/Plugin.Activate "}`, 200},
		{"VolumeDriver.Remove", `{"Name":"gone"}` + "\n", `{"Err":"/VolumeDriver.Remove {\"Name\":\"gone\"}"}`, 500},
		{"VolumeDriver.Remove", `{"Name":"later"}` + "\n", "", 0},
	} {
		x := seen[i]
		if x.Method != want.method || string(x.Request) != want.request || string(x.Answer) != want.answer || x.Status != want.status || x.Took <= 0 || (x.Err == nil) != (want.status > 0) {
			t.Errorf("%d: %+v", i, x)
		}
	}
}

func TestDial(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(echo))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(echo))
	defer secure.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(ca, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, addr string
		tls        *TLSConfig
		fails      bool
	}{
		{"http", plain.URL, nil, false},
		{"tcp", strings.Replace(plain.URL, "http", "tcp", 1), nil, false},
		{"https", secure.URL, &TLSConfig{CAFile: ca}, false},
		{"https, unchecked", secure.URL, &TLSConfig{InsecureSkipVerify: true}, false},
		{"https, not trusted", secure.URL, nil, true},
		{"nobody", "unix:///nonexistent/x.sock", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := New(Endpoint{Name: "x", Addr: tt.addr, TLS: tt.tls}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			conn, err := c.Dial(t.Context())
			if (err != nil) != tt.fails {
				t.Fatalf("Dial: %v", err)
			}
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "POST /X.Y HTTP/1.1\r\nHost: \r\nContent-Length: 2\r\n\r\n{}"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != `{"Err":"/X.Y {}"}` {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}
