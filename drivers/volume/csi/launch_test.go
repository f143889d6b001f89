package csi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/csi/kubeshim"
	"github.com/remora-plugins/remora/internal/csi/launch"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// launched is this binary as a CSI driver that a pool starts.
func launched() bool {
	dir := os.Getenv("REMORA_TEST_LAUNCHED")
	if dir == "" {
		return false
	}
	o := csitest.All()
	o.NodeID = os.Getenv("NODE_ID")
	if err := csitest.Serve(o, dir, strings.TrimPrefix(os.Getenv("CSI_ENDPOINT"), "unix://"), ""); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	return true
}

// TestLaunched: a pool starts its CSI driver, whose death and whose pool's end no mount notices, and takes it over.
func TestLaunched(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir, err := os.MkdirTemp("", "csi") // the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	noErr := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("REMORA_TEST_KEY", "s3cret")
	noErr(os.MkdirAll(dir+"/at/v", 0o755))
	noErr(os.Mkdir(dir+"/mock", 0o755))
	h := &host{t: t, dir: dir, c: config{
		Keys:    launch.Keys{Command: []string{os.Args[0]}, Env: []string{"REMORA_TEST_LAUNCHED=" + dir + "/mock"}, NodeID: "node-1"},
		Options: kubeshim.Options{Shim: true, Labels: map[string]string{"zone": "a"}, SecretData: map[string]string{"ns/creds/key": "env:REMORA_TEST_KEY"}},
		Name:    "csitest.remora.example", Namespace: "test", Size: 64 << 20, Reclaim: "delete", Detach: time.Hour, Wait: time.Second,
	}}
	d := h.open(t)
	t.Cleanup(func() {
		last := h.open(t)
		noErr(last.run.Stop(context.WithoutCancel(t.Context())))
		_ = last.Close()
		noErr(last.unprepare())
		left, err := mount.List(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left are the mounts %v, %v", left, err)
			return
		}
		noErr(os.RemoveAll(dir))
	})
	noErr(d.run.Ready(t.Context()))
	noErr(d.Ping(t.Context()))
	noErr(d.Create(t.Context(), "v", nil))
	at, err := d.Mount(t.Context(), "v", dir+"/at/v")
	noErr(err)
	noErr(os.WriteFile(at+"/file", []byte("data"), 0o600))
	first := d.run.State().Pid
	noErr(d.checkAPI(first))
	noErr(d.Close())
	d = h.open(t)
	noErr(d.run.Ready(t.Context()))
	if pid := d.run.State().Pid; pid != first {
		t.Errorf("the driver %d was not taken over: %d", first, pid)
	}
	noErr(d.checkAPI(first)) // the API is where it was
	noErr(syscall.Kill(first, syscall.SIGKILL))
	noErr(d.Unmount(t.Context(), "v", dir+"/at/v")) // though the driver is only just being started again
	if at, err = d.Mount(t.Context(), "v", dir+"/at/v"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(at + "/file"); err != nil || string(data) != "data" {
		t.Errorf("the volume has %q, %v", data, err)
	}
	if pid := d.run.State().Pid; pid == first {
		t.Errorf("process %d was killed", pid)
	}
	noErr(d.Unmount(t.Context(), "v", dir+"/at/v"))
	noErr(d.Remove(t.Context(), "v"))
}

// checkAPI asks the Kubernetes API that a process was told of in its environment.
func (d *driver) checkAPI(pid int) error {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return err
	}
	env := map[string]string{}
	for e := range strings.SplitSeq(string(data), "\x00") {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(d.kube.Account() + "/ca.crt")
	if err != nil || !pool.AppendCertsFromPEM(pem) || env["KUBECONFIG"] != d.kube.Account()+"/kubeconfig" {
		return fmt.Errorf("account %s: %w", env["KUBECONFIG"], err)
	}
	token, err := os.ReadFile(d.kube.Account() + "/token")
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	for path, want := range map[string]string{"/api/v1/nodes/node-1": `"zone":"a"`, "/api/v1/namespaces/ns/secrets/creds": `"key":"czNjcmV0"`} {
		req, err := http.NewRequest(http.MethodGet, "https://"+env["KUBERNETES_SERVICE_HOST"]+":"+env["KUBERNETES_SERVICE_PORT"]+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+string(token))
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !strings.Contains(string(body), want) {
			return fmt.Errorf("%s is %s, %w", path, body, err)
		}
	}
	return nil
}

// TestNotLaunched: a pool whose CSI driver does not come is there all the same, and says why.
func TestNotLaunched(t *testing.T) {
	testenv.Require(t, testenv.Root)
	h := newHost(t, csitest.All(), func(c *config) {
		c.Keys = launch.Keys{Command: []string{"/no/such/program"}}
	})
	d := h.open(t)
	t.Cleanup(func() {
		_ = d.run.Stop(context.WithoutCancel(t.Context()))
		_ = d.Close()
		_ = d.unprepare()
	})
	for end := time.Now().Add(20 * time.Second); d.run.State().Error == ""; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is said")
		}
	}
	err := d.Ping(t.Context())
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "the CSI driver does not run: /no/such/program: there is no such program") {
		t.Error(err)
	}
	if _, err := (config{Keys: launch.Keys{Endpoint: "/x"}, Namespace: "n", Options: kubeshim.Options{Shim: true}}).check(); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), `key "kubeshim": only a CSI driver that the daemon starts`) {
		t.Error(err)
	}
	if _, err := Driver().Open(t.Context(), map[string]any{"image": "x", "endpoint": "/y"}, catalog.Env{PoolName: strconv.Itoa(1), StateDir: t.TempDir(), RunDir: t.TempDir()}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Error(err)
	}
}
