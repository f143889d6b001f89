package conn

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// want holds an error to one line, its class and a hint.
func want(t *testing.T, err error, text string, class error) {
	t.Helper()
	if err == nil || err.Error() != text {
		t.Errorf("got  %q\nwant %q", err, text)
	}
	if !errors.Is(err, class) {
		t.Errorf("%v: class %s, want %v", err, errdefs.Name(err), class)
	}
	if hints := errdefs.Hints(err); len(hints) != 1 {
		t.Errorf("%v: hints %q", err, hints)
	}
	if OutcomeOf(err) != Unknown || Sent(err) {
		t.Errorf("%v: outcome %s, sent %t", err, OutcomeOf(err), Sent(err))
	}
}

func create(ctx context.Context, d *Driver) error {
	_, err := d.Controller().CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name:               "v",
		CapacityRange:      &csi.CapacityRange{RequiredBytes: 1 << 20},
		VolumeCapabilities: []*csi.VolumeCapability{capability()},
	})
	return err
}

func capability(flags ...string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: flags}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(dir, "gone")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: gone, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	datagrams := filepath.Join(dir, "datagrams")
	p, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: datagrams, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	web := filepath.Join(dir, "web")
	l, err = net.ListenUnix("unix", &net.UnixAddr{Name: web, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	docker := &http.Server{ReadHeaderTimeout: time.Second}
	go func() { _ = docker.Serve(l) }()
	defer func() { _ = docker.Close() }()

	for path, tt := range map[string]struct {
		text  string
		class error
	}{
		filepath.Join(dir, "none"): {"there is no socket PATH", errdefs.ErrUnavailable},
		file:                       {"PATH is not a socket", errdefs.ErrUnavailable},
		dir:                        {"PATH is not a socket", errdefs.ErrUnavailable},
		filepath.Join(file, "in"):  {"there is no socket PATH", errdefs.ErrUnavailable},
		gone:                       {"nobody listens at the socket PATH", errdefs.ErrUnavailable},
		datagrams:                  {"PATH is a socket of another kind", errdefs.ErrUnavailable},
		web:                        {"what listens at the socket PATH does not speak gRPC", errdefs.ErrInvalid},
	} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			d := open(t, Config{Node: "unix://" + path, Name: "a.example.org"})
			for range 2 { // the second finds a connection that has failed before
				began := time.Now()
				want(t, create(t.Context(), d), "a.example.org: GetPluginInfo: "+strings.ReplaceAll(tt.text, "PATH", path), tt.class)
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("it took %s", took)
				}
			}
		})
	}
}

func TestSilent(t *testing.T) {
	silent := filepath.Join(t.TempDir(), "silent")
	l, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	d := open(t, Config{Node: silent, Timeouts: map[string]time.Duration{"GetPluginInfo": 300 * time.Millisecond}})
	_, err = d.Facts(t.Context())
	want(t, err, silent+": GetPluginInfo: nobody answers at the socket "+silent, errdefs.ErrUnavailable)
}

// TestDriversClockFirst: a driver may end a call a moment before its caller does, and gRPC says "canceled" of that.
func TestDriversClockFirst(t *testing.T) {
	limit := 150 * time.Millisecond
	m := csitest.Start(t, csitest.Options{Latency: map[string]time.Duration{"CreateVolume": limit - early/2}})
	d := open(t, Config{Node: m.Endpoint, Timeouts: map[string]time.Duration{"CreateVolume": limit}})
	m.Faults.Set("CreateVolume", csitest.After, csitest.Code(codes.Canceled), 1)
	err := create(t.Context(), d)
	if err == nil || err.Error() != "csitest.remora.example: CreateVolume: no answer in 150ms" || CodeOf(err) != codes.DeadlineExceeded || OutcomeOf(err) != Unknown {
		t.Errorf("at its limit: %v (%s, %s)", err, CodeOf(err), OutcomeOf(err))
	}
	m.Faults.Set("CreateVolume", csitest.Before, csitest.Code(codes.Canceled), 1)
	if err := create(t.Context(), d); CodeOf(err) != codes.Canceled {
		t.Errorf("long before its limit: %v (%s)", err, CodeOf(err))
	}
}

func TestHangs(t *testing.T) {
	m := csitest.Start(t, csitest.Options{})
	d := open(t, Config{Node: m.Endpoint, Timeouts: map[string]time.Duration{"Probe": 100 * time.Millisecond, "CreateVolume": 100 * time.Millisecond}})
	m.Faults.Set("Probe", csitest.Before, csitest.Hang, 1)
	_, err := d.Facts(t.Context())
	want(t, err, "csitest.remora.example: Probe: no answer in 100ms", errdefs.ErrUnavailable)
	if _, err := d.Facts(t.Context()); err != nil {
		t.Fatalf("after it has recovered: %v", err)
	}
	m.Faults.Set("CreateVolume", csitest.After, csitest.Hang, 1)
	err = create(t.Context(), d)
	if err == nil || err.Error() != "csitest.remora.example: CreateVolume: no answer in 100ms" || OutcomeOf(err) != Unknown || !Sent(err) {
		t.Errorf("of one that hangs: %v (%s)", err, OutcomeOf(err))
	}
	m.Faults.Set("CreateVolume", csitest.After, csitest.Hang, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := create(ctx, d); !errors.Is(err, context.DeadlineExceeded) || OutcomeOf(err) != Unknown {
		t.Errorf("whose caller waits no longer: %v (%s)", err, errdefs.Name(err))
	}
	m.Faults.Set("CreateVolume", csitest.After, csitest.Hang, 1)
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := create(ctx, d); !errors.Is(err, context.Canceled) || OutcomeOf(err) != Unknown || strings.Count(err.Error(), "cancel") > 0 {
		t.Errorf("that is given up: %v (%s)", err, errdefs.Name(err))
	}
	for err = create(t.Context(), d); OutcomeOf(err) == Pending; err = create(t.Context(), d) {
		time.Sleep(time.Millisecond) // the driver has yet to see that nobody waits
	}
	if err != nil {
		t.Errorf("in the end: %v", err)
	}
}

func TestEndsInTheMiddle(t *testing.T) {
	m := csitest.Start(t, csitest.Options{Process: true})
	d := open(t, Config{Node: m.Endpoint})
	if _, err := d.Facts(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Faults.Set("CreateVolume", csitest.After, csitest.Crash, 1)
	err := create(t.Context(), d)
	if err == nil || !strings.HasPrefix(err.Error(), "csitest.remora.example: CreateVolume: it ended in the middle of the call: ") || OutcomeOf(err) != Unknown || !Sent(err) {
		t.Errorf("got %v (%s)", err, OutcomeOf(err))
	}
	if err := create(t.Context(), d); Sent(err) || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("when it is gone: %v", err)
	}
	m.Restart()
	if err := create(t.Context(), d); err != nil {
		t.Errorf("at once when it is back: %v", err)
	}
	if n := len(m.Volumes()); n != 1 {
		t.Errorf("%d volumes", n)
	}
}

// lost waits until a connection is known to be lost.
func lost(d *Driver) {
	for d.node.live() {
		time.Sleep(time.Millisecond)
	}
}

func TestReconnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first := &server{name: "a.example.org", version: "1.0.0", nodeID: "n1"}
	stop := serve(t, path, first)
	d := open(t, Config{Node: path})
	if f, err := d.Facts(t.Context()); err != nil || f.Version != "1.0.0" {
		t.Fatalf("%+v, %v", f, err)
	}
	stop()
	lost(d)
	if _, err := d.Facts(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("while it is gone: %v", err)
	}
	if f, ok := d.Last(); !ok || f.NodeID != "n1" {
		t.Errorf("what is remembered: %+v", f)
	}
	stop = serve(t, path, &server{name: "a.example.org", version: "2.0.0", nodeID: "n2", caps: []csi.ControllerServiceCapability_RPC_Type{9}})
	f, err := d.Facts(t.Context())
	for range 3 { // a dial that began before may fail yet
		if err != nil {
			f, err = d.Facts(t.Context())
		}
	}
	if err != nil || f.Version != "2.0.0" || f.NodeID != "n2" || !f.Controller.Has(9) {
		t.Errorf("of the new one: %+v, %v", f, err)
	}
	stop()
	lost(d)

	// Another driver takes its place: nothing is asked of it.
	asked := false
	serve(t, path, &server{name: "b.example.org", create: func(context.Context, *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
		asked = true
		return nil, nil
	}})
	d.conf.Name = "a.example.org"
	want(t, create(t.Context(), d), path+`: GetPluginInfo: the driver there is "b.example.org", and not "a.example.org"`, errdefs.ErrInvalid)
	if asked {
		t.Error("another driver was asked for a volume")
	}
}

func TestSplit(t *testing.T) {
	o := csitest.All()
	o.Split = true
	m := csitest.Start(t, o)
	d := open(t, Config{Node: m.Endpoint, Controller: m.Controller})
	f, err := d.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !f.Node.Has(csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) || !f.Controller.Has(csi.ControllerServiceCapability_RPC_CLONE_VOLUME) {
		t.Errorf("%+v", f)
	}
	other := filepath.Join(t.TempDir(), "s")
	serve(t, other, &server{name: "b.example.org"})
	d = open(t, Config{Node: m.Endpoint, Controller: other})
	_, err = d.Facts(t.Context())
	want(t, err, other+`: GetPluginInfo: the driver there is "b.example.org", and that at `+m.Endpoint+` is "csitest.remora.example"`, errdefs.ErrInvalid)
}

func TestNotReady(t *testing.T) {
	d := start(t, &server{name: "a.example.org", probe: func(context.Context) (*csi.ProbeResponse, error) { return &csi.ProbeResponse{Ready: no()}, nil }}, Config{})
	_, err := d.Facts(t.Context())
	want(t, err, "a.example.org: Probe: it is not ready yet", errdefs.ErrUnavailable)
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{"", "a b", "a\nb", "-a", strings.Repeat("a", 64)} {
		d := start(t, &server{name: name}, Config{})
		if _, err := d.Facts(t.Context()); !errors.Is(err, errdefs.ErrInvalid) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCheckSocket(t *testing.T) {
	for endpoint, ok := range map[string]bool{
		"/run/csi.sock": true, "unix:///run/csi.sock": true, "unix:/run/csi.sock": true,
		"tcp://127.0.0.1:1": false, "csi.sock": false, "": false, "unix://csi.sock": false, "/" + strings.Repeat("a", 107): false,
	} {
		if err := CheckSocket(endpoint); (err == nil) != ok {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}
