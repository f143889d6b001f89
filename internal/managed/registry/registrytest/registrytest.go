// Package registrytest starts a registry for a test: the docker-registry of Debian, on the loopback
// interface, with a proxy before it that writes down what is asked of it and can break things.
// A test asks for testenv.Registry first.
package registrytest

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"testing"
	"time"
)

// User and Password are those of a registry that asks for them.
const User, Password = "user", "secret"

// hashed is Password as htpasswd has it.
const hashed = "$2a$04$sxQd1MXO3czDdLU7Zd53DuxNH.LVpMlLT9cMSktasrsbYFtat9TG."

// Options say what kind of registry it is.
type Options struct {
	// TLS is with a certificate that nobody trusts.
	TLS bool
	// Login lets in nobody but User.
	Login bool
}

// Registry is one that runs until the test ends.
type Registry struct {
	// Addr is its host and port.
	Addr string
	// Break, where it is set, sees each request first, and says whether it answered it.
	Break func(http.ResponseWriter, *http.Request, http.Handler) bool

	mu  sync.Mutex
	log []string
}

// Start starts a registry.
func Start(t testing.TB, o Options) *Registry {
	t.Helper()
	dir := t.TempDir()
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s/data}\n  delete: {enabled: true}\nhttp: {addr: 127.0.0.1:0}\n", dir)
	if o.Login {
		conf += fmt.Sprintf("auth:\n  htpasswd: {realm: test, path: %s/users}\n", dir)
		write(t, dir+"/users", User+":"+hashed+"\n")
	}
	r := &Registry{}
	back := r.serve(t, dir, conf)
	errors := slog.NewLogLogger(slog.NewTextHandler(t.Output(), nil), slog.LevelInfo)
	proxy := &httputil.ReverseProxy{FlushInterval: -1, ErrorLog: errors, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(&url.URL{Scheme: "http", Host: back})
		// The registry names itself as the client sees it.
		p.Out.Host = p.In.Host
		p.Out.Header.Set("X-Forwarded-Proto", map[bool]string{false: "http", true: "https"}[o.TLS])
	}}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.log = append(r.log, req.Method+" "+short(req))
		r.mu.Unlock()
		if r.Break == nil || !r.Break(w, req, proxy) {
			proxy.ServeHTTP(w, req)
		}
	}))
	front.Config.ErrorLog = errors
	if o.TLS {
		front.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		front.StartTLS()
	} else {
		front.Start()
	}
	t.Cleanup(front.Close)
	r.Addr = front.Listener.Addr().String()
	return r
}

// serve starts the program and returns its address.
func (r *Registry) serve(t testing.TB, dir, conf string) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/config.yml", string(bytes.ReplaceAll([]byte(conf), []byte("127.0.0.1:0"), []byte(addr))))
	cmd := exec.Command("docker-registry", "serve", dir+"/config.yml")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get("http://" + addr + "/v2/"); err == nil {
			_ = resp.Body.Close()
			return addr
		}
		select {
		case <-ended:
			t.Fatalf("docker-registry ended: %s", said.String())
		default:
		}
	}
	t.Fatal("docker-registry does not answer")
	return ""
}

// Asked returns what was asked since the last call: the method and what is after the repository's name,
// digests shortened.
func (r *Registry) Asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := r.log
	r.log = nil
	return log
}

var (
	repository = regexp.MustCompile(`^/v2/.*?/(manifests|blobs)/`)
	upload     = regexp.MustCompile(`uploads/.+`)
	digest     = regexp.MustCompile(`sha256:([0-9a-f]{6})[0-9a-f]{58}`)
)

func short(r *http.Request) string {
	path := repository.ReplaceAllString(r.URL.Path, "$1/")
	return digest.ReplaceAllString(upload.ReplaceAllString(path, "uploads/ID"), "$1")
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
