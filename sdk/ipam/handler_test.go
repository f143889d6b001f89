package ipam

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// script is a driver that answers what the test says and remembers what it gave back.
type script struct {
	pool     Pool
	address  Address
	err      error
	delay    time.Duration
	got      AddressRequest
	released []string
}

func (s *script) DefaultAddressSpaces(context.Context) (local, global string, err error) {
	return "l", "g", s.err
}

func (s *script) RequestPool(context.Context, PoolRequest) (Pool, error) {
	time.Sleep(s.delay)
	return s.pool, s.err
}

func (s *script) ReleasePool(_ context.Context, id string) error {
	s.released = append(s.released, id)
	return s.err
}

func (s *script) RequestAddress(_ context.Context, r AddressRequest) (Address, error) {
	time.Sleep(s.delay)
	s.got = r
	return s.address, s.err
}

func (s *script) ReleaseAddress(_ context.Context, id string, a netip.Addr) error {
	s.released = append(s.released, id+" "+a.String())
	return s.err
}

func post(t *testing.T, d Driver, method, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	NewHandler(d, Options{}).Methods()[method].ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/"+method, strings.NewReader(body)))
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, strings.TrimSpace(string(b))
}

func TestAnswersOnTheWire(t *testing.T) {
	good := &script{
		pool:    Pool{ID: "p1", Prefix: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParsePrefix("10.0.0.1/24"), Data: map[string]string{"a": "b"}},
		address: Address{Prefix: netip.MustParsePrefix("10.0.0.2/24")},
	}
	down := &script{err: errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "server\nis down"), "start it")}
	gone := &script{err: errdefs.ErrNotFound}
	for _, tt := range []struct {
		d            Driver
		method, body string
		status       int
		want         string
	}{
		{good, wire.IpamGetCapabilities, ``, 200, `{"RequiresMACAddress":false,"RequiresRequestReplay":false}`},
		{good, wire.IpamGetDefaultAddressSpaces, ``, 200, `{"LocalDefaultAddressSpace":"l","GlobalDefaultAddressSpace":"g"}`},
		{good, wire.IpamRequestPool, `{"AddressSpace":"l","Options":{}}`, 200, `{"PoolID":"p1","Pool":"10.0.0.0/24","Data":{"a":"b","com.docker.network.gateway":"10.0.0.1/24"}}`},
		{good, wire.IpamRequestPool, `{"AddressSpace":"l","Pool":"10.0.0.7/24"}`, 200, `{"PoolID":"p1","Pool":"10.0.0.0/24","Data":{"a":"b","com.docker.network.gateway":"10.0.0.1/24"}}`},
		{good, wire.IpamRequestAddress, `{"PoolID":"p1","Address":"","Options":null}`, 200, `{"Address":"10.0.0.2/24","Data":{}}`},
		{good, wire.IpamReleaseAddress, `{"PoolID":"p1","Address":"10.0.0.2"}`, 200, `{}`},
		{good, wire.IpamReleasePool, `{"PoolID":"p1"}`, 200, `{}`},
		// Where the engine looks for the text depends on the status; so it is in both places.
		{down, wire.IpamRequestAddress, `{"PoolID":"p1"}`, 500, `{"Error":"pool \"p1\": server; is down; start it","Err":"pool \"p1\": server; is down; start it"}`},
		{down, wire.IpamReleasePool, `{"PoolID":"p1"}`, 500, `{"Error":"pool \"p1\": server; is down; start it","Err":"pool \"p1\": server; is down; start it"}`},
		{down, wire.IpamGetDefaultAddressSpaces, ``, 500, `{"Error":"server; is down; start it","Err":"server; is down; start it"}`},
		{gone, wire.IpamReleasePool, `{"PoolID":"p1"}`, 200, `{}`},
		{gone, wire.IpamReleaseAddress, `{"PoolID":"p1","Address":"10.0.0.2/24"}`, 200, `{}`},
		{gone, wire.IpamReleaseAddress, `{"PoolID":"p1","Address":"ten"}`, 500, `{"Error":"address \"ten\": not an address","Err":"address \"ten\": not an address"}`},
	} {
		status, got := post(t, tt.d, tt.method, tt.body)
		if status != tt.status || got != tt.want {
			t.Errorf("%s %s:\n got %d %s\nwant %d %s", tt.method, tt.body, status, got, tt.status, tt.want)
		}
	}
}

func TestAddressRequest(t *testing.T) {
	s := &script{address: Address{Prefix: netip.MustParsePrefix("10.0.0.2/24")}}
	post(t, s, wire.IpamRequestAddress, `{"PoolID":"p1","Address":"10.0.0.2","Options":{"com.docker.network.endpoint.macaddress":"02:42:fa:56:c2:4b","com.docker.network.endpoint.name":"web"}}`)
	if s.got.MAC.String() != "02:42:fa:56:c2:4b" || s.got.Endpoint != "web" || s.got.Gateway || s.got.Address.String() != "10.0.0.2" {
		t.Errorf("request %+v", s.got)
	}
	post(t, s, wire.IpamRequestAddress, `{"PoolID":"p1","Options":{"RequestAddressType":"com.docker.network.gateway"}}`)
	if !s.got.Gateway || s.got.MAC != nil || s.got.Address.IsValid() {
		t.Errorf("gateway's request %+v", s.got)
	}
}

func TestMistakesOfTheDriverAreUndone(t *testing.T) {
	p := netip.MustParsePrefix
	for _, tt := range []struct {
		name         string
		s            script
		method, body string
		want         string
		released     []string
	}{
		{"no ID", script{pool: Pool{Prefix: p("10.0.0.0/24")}}, wire.IpamRequestPool, `{}`, "a pool without an ID", nil},
		{"no prefix", script{pool: Pool{ID: "p"}}, wire.IpamRequestPool, `{}`, "is no pool", []string{"p"}},
		{"host part", script{pool: Pool{ID: "p", Prefix: p("10.0.0.1/24")}}, wire.IpamRequestPool, `{}`, "is no pool", []string{"p"}},
		{"family", script{pool: Pool{ID: "p", Prefix: p("10.0.0.0/24")}}, wire.IpamRequestPool, `{"V6":true}`, "not of the family", []string{"p"}},
		{"another pool", script{pool: Pool{ID: "p", Prefix: p("10.0.0.0/24")}}, wire.IpamRequestPool, `{"Pool":"10.1.0.0/24"}`, "10.0.0.0/24 in the place of 10.1.0.0/24", []string{"p"}},
		{"far gateway", script{pool: Pool{ID: "p", Prefix: p("10.0.0.0/24"), Gateway: p("10.1.0.1/24")}}, wire.IpamRequestPool, `{}`, "not in pool", []string{"p"}},
		{"no address", script{}, wire.IpamRequestAddress, `{"PoolID":"p"}`, "no address", nil},
		{"another address", script{address: Address{Prefix: p("10.0.0.3/24")}}, wire.IpamRequestAddress, `{"PoolID":"p","Address":"10.0.0.2"}`, "10.0.0.3 in the place of 10.0.0.2", []string{"p 10.0.0.3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, got := post(t, &tt.s, tt.method, tt.body)
			if status != 500 || !strings.Contains(got, tt.want) {
				t.Errorf("%d %s, want %q", status, got, tt.want)
			}
			if !slices.Equal(tt.s.released, tt.released) {
				t.Errorf("released %q, want %q", tt.s.released, tt.released)
			}
		})
	}
}

func TestHangUpIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{
			delay: 10 * time.Second, pool: Pool{ID: "p", Prefix: netip.MustParsePrefix("10.0.0.0/24")},
			address: Address{Prefix: netip.MustParsePrefix("10.0.0.2/24")},
		}
		h := NewHandler(s, Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.requestPool(ctx, &wire.RequestPoolRequest{}); err == nil {
			t.Error("RequestPool succeeded")
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.requestAddress(ctx, &wire.RequestAddressRequest{PoolID: "p"}); err == nil {
			t.Error("RequestAddress succeeded")
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"p", "p 10.0.0.2"}; !slices.Equal(s.released, want) {
			t.Errorf("released %q, want %q", s.released, want)
		}
	})
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte(`{"AddressSpace":"l","Pool":"10.0.0.0/8","SubPool":"10.1.0.0/16","V6":false}`))
	f.Add([]byte(`{"PoolID":"p","Address":"::ffff:10.0.0.1","Options":{"com.docker.network.endpoint.macaddress":"02:42:fa:56:c2:4b"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p wire.RequestPoolRequest
		if json.Unmarshal(b, &p) == nil {
			if r, err := poolRequestFromWire(&p); err == nil && r.SubPool.IsValid() && !within(r.Pool, r.SubPool) {
				t.Errorf("range %s of pool %s", r.SubPool, r.Pool)
			}
		}
		var a wire.RequestAddressRequest
		if json.Unmarshal(b, &a) == nil {
			if r, err := addressRequestFromWire(&a); err == nil && r.Address.Is4In6() {
				t.Errorf("address %s is of two families", r.Address)
			}
		}
	})
}
