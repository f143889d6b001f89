package wire_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var recordCaptures = flag.Bool("record", false, "let the tests on real engines write testdata anew")

// recording is a plugin that answers from a table and remembers each exchange as it went
// over the wire. It uses nothing of this project to do so.
type recording struct {
	answer func(method string, body []byte) (status int, answer string)

	mu sync.Mutex
	b  bytes.Buffer
	n  int
}

// listen serves r on a socket until the test ends.
func (r *recording) listen(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(c)
		}
	}()
}

func (r *recording) serve(c net.Conn) {
	defer c.Close()
	var raw bytes.Buffer
	in := bufio.NewReader(io.TeeReader(c, &raw)) // engines do not send a request before the answer to the last
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		status, text := r.answer(strings.TrimPrefix(req.URL.Path, "/"), body)
		answer := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: application/vnd.docker.plugins.v1.2+json\r\nContent-Length: %d\r\n\r\n%s\n",
			status, http.StatusText(status), len(text)+1, text)
		r.mu.Lock()
		r.n++
		fmt.Fprintf(&r.b, "-- %03d request --\n%s", r.n, raw.Bytes())
		if !bytes.HasSuffix(raw.Bytes(), []byte("\n")) {
			r.b.WriteByte('\n') // of the archive; Content-Length tells it from the body
		}
		fmt.Fprintf(&r.b, "-- %03d answer --\n%s", r.n, answer)
		r.mu.Unlock()
		raw.Reset()
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

// note writes a command that is about to be run into the capture.
func (r *recording) note(command string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.b, "-- $ %s --\n", command)
}

// check holds package wire to the capture, as TestCaptures does to those of testdata.
// With -record the capture becomes one of them.
func (r *recording) check(t *testing.T, file, comment string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	dir := t.TempDir()
	if *recordCaptures && !t.Failed() {
		dir = "testdata"
	}
	file = filepath.Join(dir, file)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte(comment+"\n"), r.b.Bytes()...), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d exchanges", file, r.n)
	for _, x := range captures(t, file) {
		x.recode(t)
		x.checkHeader(t)
	}
}

// field returns a string of the JSON object body.
func field(body []byte, name string) string {
	var object map[string]any
	_ = json.Unmarshal(body, &object) // an empty body has no fields
	s, _ := object[name].(string)
	return s
}

// volumes answers as a volume plugin whose volumes are directories below dir, which the
// engine sees as seen. It refuses to create a volume called "refused".
func volumes(dir, seen string) func(string, []byte) (int, string) {
	var mu sync.Mutex
	known := map[string]bool{}
	return func(method string, body []byte) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		name := field(body, "Name")
		info := fmt.Sprintf(`{"Name":%q,"Mountpoint":%q`, name, seen+"/"+name)
		missing := fmt.Sprintf(`{"Err":"volume \"%s\": no such volume"}`, name)
		switch _, verb, _ := strings.Cut(method, "."); verb {
		case "Activate":
			return 200, `{"Implements":["VolumeDriver"]}`
		case "Capabilities":
			return 200, `{"Capabilities":{"Scope":"local"},"Err":""}`
		case "Create":
			if name == "refused" {
				return 500, `{"Err":"volume \"refused\": no space left"}`
			}
			if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
				return 500, `{"Err":"no directory"}`
			}
			known[name] = true
			return 200, `{"Err":""}`
		case "Get":
			if !known[name] {
				return 500, missing
			}
			return 200, `{"Volume":` + info + `,"CreatedAt":"2026-01-02T03:04:05Z","Status":{"files":3,"pool":"capture"}},"Err":""}`
		case "List":
			list := []string{}
			for _, name := range []string{"v1", "v2"} {
				if known[name] {
					list = append(list, fmt.Sprintf(`{"Name":%q,"Mountpoint":%q}`, name, seen+"/"+name))
				}
			}
			return 200, `{"Volumes":[` + strings.Join(list, ",") + `],"Err":""}`
		case "Mount", "Path":
			return 200, fmt.Sprintf(`{"Mountpoint":%q,"Err":""}`, seen+"/"+name)
		case "Unmount":
			return 200, `{"Err":""}`
		case "Remove":
			if !known[name] {
				return 500, missing
			}
			delete(known, name)
			return 200, `{"Err":""}`
		}
		return 404, `{"Err":"no such method"}`
	}
}

// networks answers as a network and IPAM plugin. link makes the interface that is moved
// into a container and returns its name. wantsMAC is for RequiresMACAddress.
func networks(link func(endpoint string) string, wantsMAC bool) func(string, []byte) (int, string) {
	var mu sync.Mutex
	bases := map[string]string{}    // the first three numbers of each pool
	gateways := map[string]string{} // by network
	return func(method string, body []byte) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		switch method {
		case "Plugin.Activate":
			return 200, `{"Implements":["NetworkDriver","IpamDriver"]}`
		case "NetworkDriver.GetCapabilities":
			return 200, `{"Scope":"local","ConnectivityScope":"local"}`
		case "NetworkDriver.CreateNetwork":
			var r struct {
				NetworkID string
				IPv4Data  []struct{ Gateway string }
			}
			if json.Unmarshal(body, &r) == nil && len(r.IPv4Data) > 0 {
				gateways[r.NetworkID], _, _ = strings.Cut(r.IPv4Data[0].Gateway, "/")
			}
			return 200, `{"Err":""}`
		case "NetworkDriver.CreateEndpoint":
			return 200, `{"Interface":{"Address":"","AddressIPv6":"","MacAddress":""}}`
		case "NetworkDriver.Join":
			gateway := gateways[field(body, "NetworkID")]
			route := strings.Replace(gateway, "10.", "172.", 1) + "/32" // one that no other network has
			return 200, fmt.Sprintf(`{"InterfaceName":{"SrcName":%q,"DstPrefix":"eth"},"Gateway":%q,"StaticRoutes":[{"Destination":%q,"RouteType":1}],"DisableGatewayService":true}`,
				link(field(body, "EndpointID")), gateway, route)
		case "NetworkDriver.EndpointOperInfo":
			return 200, `{"Value":{}}`
		case "IpamDriver.GetCapabilities":
			return 200, fmt.Sprintf(`{"RequiresMACAddress":%t,"RequiresRequestReplay":%t}`, wantsMAC, wantsMAC)
		case "IpamDriver.GetDefaultAddressSpaces":
			return 200, `{"LocalDefaultAddressSpace":"capture-local","GlobalDefaultAddressSpace":"capture-global"}`
		case "IpamDriver.RequestPool":
			pool := field(body, "Pool")
			if pool == "" {
				pool = "10.96.0.0/24"
			}
			id := fmt.Sprintf("pool%d", len(bases)+1)
			bases[id] = strings.TrimSuffix(pool, "0/24")
			return 200, fmt.Sprintf(`{"PoolID":%q,"Pool":%q,"Data":{}}`, id, pool)
		case "IpamDriver.RequestAddress":
			address := field(body, "Address")
			if address == "" {
				address = bases[field(body, "PoolID")] + "2"
				if strings.Contains(string(body), "com.docker.network.gateway") {
					address = bases[field(body, "PoolID")] + "1"
				}
			}
			return 200, fmt.Sprintf(`{"Address":%q,"Data":{}}`, address+"/24")
		case "IpamDriver.ReleasePool", "IpamDriver.ReleaseAddress":
			return 200, `{}`
		}
		return 200, `{"Err":""}`
	}
}

// authorizer answers as an authorization plugin that denies a volume called "forbidden".
func authorizer(method string, body []byte) (int, string) {
	switch {
	case method == "Plugin.Activate":
		return 200, `{"Implements":["authz"]}`
	case field(body, "RequestBody") == "eyJEcml2ZXIiOiJsb2NhbCIsIk5hbWUiOiJmb3JiaWRkZW4ifQo=":
		return 200, `{"Allow":false,"Msg":"no volume of that name"}`
	}
	return 200, `{"Allow":true}`
}
