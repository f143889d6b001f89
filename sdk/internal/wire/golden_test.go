package wire_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// shape is what a method is asked and answered; a nil request is none.
type shape struct{ request, answer func() any }

func of[T any]() any { return new(T) }

// shapes has every method of the protocol that package wire knows.
var shapes = map[string]shape{
	wire.ActivateMethod: {nil, of[wire.ActivateResponse]},

	wire.VolumeCreate:       {of[wire.VolumeCreateRequest], of[wire.Error]},
	wire.VolumeRemove:       {of[wire.VolumeRequest], of[wire.Error]},
	wire.VolumeMount:        {of[wire.VolumeMountRequest], of[wire.VolumeMountResponse]},
	wire.VolumeUnmount:      {of[wire.VolumeMountRequest], of[wire.Error]},
	wire.VolumePath:         {of[wire.VolumeRequest], of[wire.VolumeMountResponse]},
	wire.VolumeGet:          {of[wire.VolumeRequest], of[wire.VolumeGetResponse]},
	wire.VolumeList:         {of[struct{}], of[wire.VolumeListResponse]},
	wire.VolumeCapabilities: {of[struct{}], of[wire.VolumeCapabilitiesResponse]},

	wire.NetworkGetCapabilities:  {nil, of[wire.NetworkCapabilitiesResponse]},
	wire.NetworkGwAllocCheck:     {of[wire.GwAllocCheckRequest], of[wire.GwAllocCheckResponse]},
	wire.NetworkAllocate:         {of[wire.AllocateNetworkRequest], of[wire.AllocateNetworkResponse]},
	wire.NetworkFree:             {of[wire.NetworkRequest], of[wire.Error]},
	wire.NetworkCreate:           {of[wire.CreateNetworkRequest], of[wire.Error]},
	wire.NetworkDelete:           {of[wire.NetworkRequest], of[wire.Error]},
	wire.NetworkCreateEndpoint:   {of[wire.CreateEndpointRequest], of[wire.CreateEndpointResponse]},
	wire.NetworkDeleteEndpoint:   {of[wire.EndpointRequest], of[wire.Error]},
	wire.NetworkEndpointOperInfo: {of[wire.EndpointRequest], of[wire.EndpointOperInfoResponse]},
	wire.NetworkJoin:             {of[wire.JoinRequest], of[wire.JoinResponse]},
	wire.NetworkLeave:            {of[wire.EndpointRequest], of[wire.Error]},
	wire.NetworkProgramExternal:  {of[wire.ProgramExternalRequest], of[wire.Error]},
	wire.NetworkRevokeExternal:   {of[wire.EndpointRequest], of[wire.Error]},
	wire.NetworkDiscoverNew:      {of[wire.DiscoveryRequest], of[wire.Error]},
	wire.NetworkDiscoverDelete:   {of[wire.DiscoveryRequest], of[wire.Error]},

	wire.IpamGetCapabilities:         {nil, of[wire.IpamCapabilitiesResponse]},
	wire.IpamGetDefaultAddressSpaces: {nil, of[wire.AddressSpacesResponse]},
	wire.IpamRequestPool:             {of[wire.RequestPoolRequest], of[wire.RequestPoolResponse]},
	wire.IpamReleasePool:             {of[wire.ReleasePoolRequest], of[wire.IpamEmptyResponse]},
	wire.IpamRequestAddress:          {of[wire.RequestAddressRequest], of[wire.RequestAddressResponse]},
	wire.IpamReleaseAddress:          {of[wire.ReleaseAddressRequest], of[wire.IpamEmptyResponse]},

	wire.AuthZReq: {of[wire.AuthZRequest], of[wire.AuthZResponse]},
	wire.AuthZRes: {of[wire.AuthZRequest], of[wire.AuthZResponse]},
}

// exchange is one call as it was captured.
type exchange struct {
	file, number string
	method       string
	header       http.Header
	host         string
	request      []byte
	status       int
	answer       []byte
}

var section = regexp.MustCompile(`(?m)^-- (\d+|\$) (.+) --\n`)

// captures reads all exchanges of the files that match a pattern.
func captures(t testing.TB, pattern string) (all []exchange) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures %s: %v", pattern, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		heads := section.FindAllSubmatchIndex(content, -1)
		var x exchange
		for i, head := range heads {
			end := len(content)
			if i+1 < len(heads) {
				end = heads[i+1][0]
			}
			number, kind := string(content[head[2]:head[3]]), string(content[head[4]:head[5]])
			in := bufio.NewReader(bytes.NewReader(content[head[1]:end]))
			switch {
			case number == "$":
			case kind == "request":
				r, err := http.ReadRequest(in)
				if err != nil {
					t.Fatalf("%s: %s: %v", file, number, err)
				}
				x = exchange{file: file, number: number, header: r.Header, host: r.Host, method: strings.TrimPrefix(r.RequestURI, "/")}
				if r.Method != http.MethodPost {
					t.Errorf("%s: %s: %s", file, number, r.Method)
				}
				if x.request, err = io.ReadAll(r.Body); err != nil {
					t.Fatalf("%s: %s: %v", file, number, err)
				}
			case kind == "answer":
				r, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatalf("%s: %s: %v", file, number, err)
				}
				x.status = r.StatusCode
				if x.answer, err = io.ReadAll(r.Body); err != nil {
					t.Fatalf("%s: %s: %v", file, number, err)
				}
				r.Body.Close()
				all = append(all, x)
			}
		}
	}
	return all
}

// TestCaptures decodes what real engines sent, and what they were answered, and encodes
// it again byte for byte.
func TestCaptures(t *testing.T) {
	seen := map[string]int{}
	for _, x := range captures(t, "testdata/*-*/*.txtar") {
		seen[x.method]++
		x.recode(t)
	}
	// Swarm alone, or engines newer than these, send the others.
	rare := map[string]bool{
		wire.VolumePath: true, wire.NetworkGwAllocCheck: true, wire.NetworkAllocate: true, wire.NetworkFree: true,
		wire.NetworkDiscoverNew: true, wire.NetworkDiscoverDelete: true,
	}
	for method := range shapes {
		if (seen[method] == 0) != rare[method] {
			t.Errorf("%s was captured %d times", method, seen[method])
		}
	}
}

// podman tells whose call it is.
func (x exchange) podman() bool { return strings.Contains(x.file, "podman") }

// recode decodes the request and the answer and encodes both again.
func (x exchange) recode(t *testing.T) {
	t.Helper()
	s, ok := shapes[x.method]
	if !ok {
		t.Errorf("%s: %s: method %s is not known", x.file, x.number, x.method)
		return
	}
	switch {
	case len(x.request) == 0:
		// Podman leaves out a body that would have nothing in it.
		if s.request != nil && !(x.podman() && x.method == wire.VolumeList) {
			t.Errorf("%s: %s: %s without a body", x.file, x.number, x.method)
		}
	case s.request == nil:
		t.Errorf("%s: %s: %s with a body: %s", x.file, x.number, x.method, x.request)
	case x.podman() && x.method == wire.VolumeCreate && !bytes.Contains(x.request, []byte("Opts")):
		again(t, x, x.request, new(struct{ Name string }))
	default:
		again(t, x, x.request, s.request())
	}
	v := s.answer()
	if x.status != http.StatusOK {
		v = new(wire.Error)
	}
	again(t, x, x.answer, v)
}

// again decodes body into v and compares what v is encoded to. Podman's bodies do not
// end with a newline.
func again(t *testing.T, x exchange, body []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(body, v); err != nil {
		t.Errorf("%s: %s: %s: %v", x.file, x.number, x.method, err)
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSuffix(string(body), "\n"), string(b)); diff != "" {
		t.Errorf("%s: %s: %s (-captured +ours):\n%s", x.file, x.number, x.method, diff)
	}
}

// TestCapturedHeaders holds what docs/protocol says of requests to the captures.
func TestCapturedHeaders(t *testing.T) {
	for _, x := range captures(t, "testdata/*-*/*.txtar") {
		x.checkHeader(t)
	}
}

func (x exchange) checkHeader(t *testing.T) {
	t.Helper()
	want := http.Header{"User-Agent": {"Go-http-client/1.1"}, "Content-Length": x.header["Content-Length"]}
	host := ""
	if x.podman() {
		host = "plugin"
		want.Set("Content-Type", "application/vnd.docker.plugins.v1.1+json")
	} else {
		want.Set("Accept", wire.MediaType)
	}
	if x.host != host || !cmp.Equal(x.header, want) {
		t.Errorf("%s: %s: host %q, header %v; want %q, %v", x.file, x.number, x.host, x.header, host, want)
	}
	if len(x.request) > 0 && bytes.HasSuffix(x.request, []byte("\n")) == x.podman() {
		t.Errorf("%s: %s: body %q: dockerd ends it with a newline, podman does not", x.file, x.number, x.request)
	}
}
