package launch

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/managed/registry/registrytest"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
)

// keys are those of a driver that is this binary: a program of the host, or in an image.
func (l *lab) keys(t *testing.T, kind Kind) Keys {
	t.Helper()
	fuse := l.dir + "/mounts/fuse"
	secret := l.dir + "/secret"
	noErr(t, os.WriteFile(secret, []byte("s3cret\n"), 0o600))
	k := Keys{
		NodeID: "node-1",
		Env:    []string{"REMORA_TEST_DRIVER=1", "FUSE_AT=" + fuse, "TOKEN=file:" + secret, "WHO=${NODE}/$${NODE}"},
	}
	if kind == Command {
		k.Command = []string{os.Args[0], "--endpoint=${CSI_ENDPOINT}", "--node=${NODE_ID}"}
		k.Env = append(k.Env, "STATE="+l.dir+"/state")
		return k
	}
	testenv.Require(t, testenv.Runc, testenv.Registry)
	noErr(t, os.MkdirAll(l.dir+"/account", 0o700))
	noErr(t, os.WriteFile(l.dir+"/account/token", []byte("of the pool"), 0o600))
	r := registrytest.Start(t, registrytest.Options{})
	k.Image = pushImage(t, r.Addr, "v1", ocispec.ImageConfig{
		Entrypoint: []string{"/driver"}, Cmd: []string{"--not-this"}, Env: []string{"OF_IMAGE=1", "NODE_ID=not this"}, WorkingDir: "/tmp",
	})
	k.Args = []string{"--endpoint=${CSI_ENDPOINT}", "--node=${NODE_ID}"}
	k.Env = append(k.Env, "STATE=/state")
	k.Binds = append(slices.Clone(hosts), l.dir+"/secret:/etc/given:ro")
	return k
}

// state is where the host has the driver's STATE.
func (l *lab) state(t *testing.T, kind Kind) string {
	t.Helper()
	if kind == Command {
		return l.dir + "/state"
	}
	roots, err := filepath.Glob(l.dir + "/lib/rootfs-*")
	noErr(t, err)
	if len(roots) != 1 {
		t.Fatalf("roots are %v", roots)
	}
	return roots[0] + "/state"
}

func TestCommand(t *testing.T) { testLife(t, Command) }
func TestImage(t *testing.T)   { testLife(t, Image) }

// testLife: a volume that is mounted, and a FUSE file system, live on while the driver is killed, the daemon closed, killed,
// and both; the driver that comes after takes the volume down. A reboot starts it from what is unpacked, with no registry.
func testLife(t *testing.T, kind Kind) {
	l := newLab(t)
	keys := l.keys(t, kind)
	p := l.start(t, keys)
	s := l.ready(t, p)
	if s.Kind != kind || s.Pid == 0 || s.Restarts != 0 || s.Error != "" || kind == Image && !strings.HasSuffix(keys.Image, s.Digest) {
		t.Errorf("state is %+v", s)
	}
	l.checkEnv(t, p, kind)
	v := l.volume(t, p)
	v.up()
	alive := func(when string) {
		t.Helper()
		if got := readFile(t, v.target+"/file"); got != "of the test" {
			t.Errorf("%s: the volume has %q", when, got)
		}
		if got := readFile(t, l.dir+"/mounts/fuse/file"); got != fuseText {
			t.Errorf("%s: the FUSE file system has %q", when, got)
		}
	}
	alive("at first")

	noErr(t, exec.Command("kill", "-9", fmt.Sprint(s.Pid)).Run())
	until(t, "a start after a kill", func() bool { n := p.State(); return n.Status == Running && n.Pid != s.Pid })
	alive("the driver was killed")
	if s = p.State(); s.Restarts != 1 {
		t.Errorf("state is %+v", s)
	}
	v.repeat() // what was up is known to the new one

	noErr(t, p.Close())
	alive("the daemon was closed")
	child := l.daemon(t, keys)
	if pid := child.ready(); pid != s.Pid {
		t.Errorf("the next daemon has process %d, want %d", pid, s.Pid)
	}
	child.kill()
	alive("the daemon was killed")
	p = l.start(t, keys)
	if n := l.ready(t, p); n.Pid != s.Pid {
		t.Errorf("process %d was not taken over: %+v", s.Pid, n)
	}

	noErr(t, p.Close())
	noErr(t, exec.Command("kill", "-9", fmt.Sprint(s.Pid)).Run())
	alive("both are gone")
	p = l.start(t, keys)
	until(t, "a start after both were gone", func() bool { n := p.State(); return n.Status == Running && n.Pid != s.Pid })
	alive("both were killed")
	v.p = p
	v.down()
	if mounts, err := mount.List(l.dir + "/mounts"); err != nil || len(mounts) != 2 { // itself and FUSE
		t.Errorf("mounts %v, %v", mounts, err)
	}
	v.up()

	// A reboot: nothing runs, nothing is mounted, /run is empty. The registry is gone as well.
	noErr(t, p.Stop(t.Context()))
	alive("the driver was stopped")
	noErr(t, p.Close())
	l.unmount(t)
	noErr(t, os.RemoveAll(l.dir+"/run"))
	if kind == Image {
		noErr(t, os.RemoveAll(l.dir+"/lib/store"))
	}
	p = l.start(t, keys)
	l.ready(t, p)
	v.p = p
	v.repeat()
	alive("the host was started again")
	v.down()
	lines, err := p.Logs(t.Context(), -1)
	if err != nil || !slices.ContainsFunc(lines, func(l Line) bool { return strings.HasPrefix(l.Text, "driver of [--endpoint=unix:///") }) {
		t.Errorf("its log: %v, %v", lines, err)
	}
	if log := l.log.String(); !strings.Contains(log, `msg="CSI driver ended, and is started again" pool=fast`) || strings.Contains(log, "s3cret") {
		t.Errorf("the daemon's log: %s", log)
	}
}

func (l *lab) checkEnv(t *testing.T, p *Process, kind Kind) {
	t.Helper()
	data := readFile(t, l.state(t, kind)+"/env")
	env := strings.Split(data, "\n")
	endpoint := "unix:///csi/csi.sock"
	want := []string{"TOKEN=s3cret", "NODE_ID=node-1", "KUBERNETES_SERVICE_HOST=127.0.0.1", "WHO=node-1/${NODE}", "--node=node-1"}
	if kind == Image {
		want = append(want, "OF_IMAGE=1", "/driver")
	} else {
		endpoint = "unix://" + l.dir + "/run/" + idOf(l.dir+"/run") + "/s/csi.sock"
	}
	for _, w := range append(want, "CSI_ENDPOINT="+endpoint, "--endpoint="+endpoint) {
		if !slices.Contains(env, w) {
			t.Errorf("the driver has not %q, but %q", w, env)
		}
	}
	if slices.Contains(env, "--not-this") || slices.Contains(env, "NODE_ID=not this") {
		t.Errorf("the driver has %q", env)
	}
	if kind == Image {
		pid := p.State().Pid
		if got := readFile(t, fmt.Sprintf("/proc/%d/root/etc/given", pid)); got != "s3cret\n" {
			t.Errorf("what is bound is %q", got)
		}
		if got := readFile(t, fmt.Sprintf("/proc/%d/root/var/run/secrets/kubernetes.io/serviceaccount/token", pid)); got != "of the pool" {
			t.Errorf("its account has %q", got)
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/etc/given", pid), nil, 0o600); err == nil {
			t.Error("what is bound to read only was written")
		}
	}
	// The secret is in no file that outlives the start.
	out, _ := exec.Command("grep", "-rlI", "--exclude=env", "--exclude=secret", "s3cret", l.dir+"/run", l.dir+"/lib/log").CombinedOutput()
	if len(out) > 0 {
		t.Errorf("the secret is in %s", out)
	}
}

// volume is one that is brought up and down by the driver's own calls.
type volume struct {
	t               *testing.T
	p               *Process
	id              string
	context         map[string]string
	staging, target string
}

func (l *lab) volume(t *testing.T, p *Process) *volume {
	t.Helper()
	noErr(t, os.MkdirAll(l.dir+"/mounts/v/s", 0o755))
	return &volume{t: t, p: p, staging: l.dir + "/mounts/v/s", target: l.dir + "/mounts/v/t"}
}

var capability = &csi.VolumeCapability{
	AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
}

func (v *volume) with(f func(ctx context.Context, d *conn.Driver)) {
	v.t.Helper()
	d := conn.Open(conn.Config{Node: v.p.Endpoint()})
	defer d.Close()
	ctx, cancel := context.WithTimeout(v.t.Context(), 30*time.Second)
	defer cancel()
	f(ctx, d)
}

func (v *volume) up() {
	v.t.Helper()
	v.repeat()
	noErr(v.t, os.WriteFile(v.target+"/file", []byte("of the test"), 0o600))
}

func (v *volume) repeat() {
	v.t.Helper()
	v.with(func(ctx context.Context, d *conn.Driver) {
		made, err := d.Controller().CreateVolume(ctx, &csi.CreateVolumeRequest{Name: "v", VolumeCapabilities: []*csi.VolumeCapability{capability}})
		noErr(v.t, err)
		v.id, v.context = made.Volume.VolumeId, made.Volume.VolumeContext
		_, err = d.Node().NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: v.id, VolumeContext: v.context, StagingTargetPath: v.staging, VolumeCapability: capability,
		})
		noErr(v.t, err)
		_, err = d.Node().NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: v.id, VolumeContext: v.context, StagingTargetPath: v.staging, TargetPath: v.target, VolumeCapability: capability,
		})
		noErr(v.t, err)
	})
}

func (v *volume) down() {
	v.t.Helper()
	v.with(func(ctx context.Context, d *conn.Driver) {
		_, err := d.Node().NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: v.target})
		noErr(v.t, err)
		_, err = d.Node().NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: v.staging})
		noErr(v.t, err)
	})
}

// daemon is the process that a test kills: it starts a driver, and says which process that is.
func daemon(config string) {
	var c Config
	err := json.Unmarshal([]byte(config), &c)
	if err == nil {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("pool", c.Pool)
		var p *Process
		if p, err = Start(context.Background(), c); err == nil {
			if err = p.Ready(context.Background()); err == nil {
				fmt.Println(p.State().Pid)
				select {}
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

type child struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
}

func (l *lab) daemon(t *testing.T, keys Keys) *child {
	t.Helper()
	c := l.config(keys)
	c.Log = nil
	data, err := json.Marshal(c)
	noErr(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stderr = append(os.Environ(), "REMORA_TEST_DAEMON="+string(data)), l.log
	out, err := cmd.StdoutPipe()
	noErr(t, err)
	noErr(t, cmd.Start())
	return &child{t, cmd, bufio.NewReader(out)}
}

func (c *child) ready() (pid int) {
	c.t.Helper()
	if _, err := fmt.Fscan(c.out, &pid); err != nil {
		c.t.Fatal("the daemon says nothing")
	}
	return pid
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}
