package check

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// found returns the finding about something.
func found(t *testing.T, r *Report, check string) Finding {
	t.Helper()
	for _, f := range r.Host {
		if f.Check == check {
			return f
		}
	}
	t.Errorf("nothing about %q: %+v", check, r.Host)
	return Finding{}
}

func TestRun(t *testing.T) {
	testenv.Require(t, testenv.Root)
	m := csitest.Start(t, csitest.All())
	r, err := Run(t.Context(), Options{Endpoint: "unix://" + m.Endpoint, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if r.Driver.Name != "csitest.remora.example" || r.Driver.Process != os.Getpid() || r.Node.ID != "node-1" || !r.Usable() {
		t.Errorf("%+v", r)
	}
	for _, a := range r.Can {
		if !a.Can {
			t.Errorf("of a driver that can do everything: %+v", a)
		}
	}
	for rpc, n := range m.Calls() {
		if !slices.Contains([]string{
			"GetPluginInfo", "Probe", "GetPluginCapabilities", "ControllerGetCapabilities", "GroupControllerGetCapabilities", "NodeGetCapabilities", "NodeGetInfo",
		}, rpc) || n != 1 {
			t.Errorf("%s was called %d times", rpc, n)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	for _, o := range []Options{{Endpoint: "tcp://a"}, {Endpoint: "/a", Controller: "b"}, {Endpoint: "/a", Quirks: []string{"x"}}} {
		if _, err := Run(t.Context(), o); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := Run(t.Context(), Options{Endpoint: "/nowhere"}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("of no socket: %v", err)
	}
}

func TestAbilities(t *testing.T) {
	can := func(f conn.Facts) (all []string) {
		for _, a := range abilities(f) {
			if a.Text == "" || strings.HasSuffix(a.Text, ".") {
				t.Errorf("%s: %q", a.What, a.Text)
			}
			if a.Can {
				all = append(all, a.What)
			}
		}
		return all
	}
	for name, tt := range map[string]struct {
		f    conn.Facts
		want []string
	}{
		"nothing":   {conn.Facts{}, nil},
		"announces": {conn.Facts{Controller: conn.ControllerCaps{csi.ControllerServiceCapability_RPC_EXPAND_VOLUME: true}}, []string{"expand online", "expand offline"}},
		"offline": {conn.Facts{
			Controller: conn.ControllerCaps{csi.ControllerServiceCapability_RPC_EXPAND_VOLUME: true},
			Expansion:  conn.ExpansionCaps{csi.PluginCapability_VolumeExpansion_OFFLINE: true},
		}, []string{"expand offline"}},
		"node alone": {conn.Facts{Node: conn.NodeCaps{csi.NodeServiceCapability_RPC_EXPAND_VOLUME: true}}, []string{"expand online", "expand offline"}},
		"group without the service": {conn.Facts{
			Group: conn.GroupCaps{csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT: true},
		}, nil},
	} {
		if got := can(tt.f); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestQuirksOfTheHost looks at what the table wants of a host that has none of it.
func TestQuirksOfTheHost(t *testing.T) {
	testenv.Require(t, testenv.Root)
	for driver, want := range map[string]Finding{
		"driver.longhorn.io":       {"kubernetes", Fail, "the driver keeps its volumes as objects of Kubernetes, and cannot be used without a cluster", ""},
		"disk.csi.azure.com":       {"two hosts", Warn, "an attach takes a disk from the host that has it, without asking", ""},
		"ru.yandex.s3.csi":         {"programs", Warn, "the driver does not find geesefs", ""},
		"org.democratic-csi.nfs-x": {"programs", Warn, "the driver does not find lsblk, rsync", ""},
	} {
		t.Run(driver, func(t *testing.T) {
			t.Setenv("PATH", t.TempDir())
			m := csitest.Start(t, csitest.Options{Name: driver, Process: driver == "ru.yandex.s3.csi" || strings.HasPrefix(driver, "org.")})
			r, err := Run(t.Context(), Options{Endpoint: m.Endpoint, Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			got := found(t, r, want.Check)
			if got.Result != want.Result || got.Text != want.Text || got.Mend == "" {
				t.Errorf("%+v", got)
			}
			if r.Usable() != (want.Result != Fail) {
				t.Errorf("usable: %t", r.Usable())
			}
		})
	}
}

func TestModules(t *testing.T) {
	root := t.TempDir()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"sys/module/rbd/refcnt": "0", "proc/filesystems": "nodev\tsysfs\n\text4\nnodev\tnfs\n",
		"lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/modules.dep":     "kernel/drivers/block/iscsi-tcp.ko.zst: kernel/lib/a.ko\n",
		"lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/modules.builtin": "kernel/drivers/md/dm-mod.ko\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"rbd": true, "nfs": true, "iscsi_tcp": true, "dm_mod": true, "cifs": false, "nodev": false, "a": false, "scini": false} {
		if got := hasModule(root, name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
	var r Report
	r.modules(root, []string{"nfs", "scini"})
	if f := found(t, &r, "kernel"); f.Result != Fail || f.Text != "this kernel lacks scini" {
		t.Errorf("%+v", f)
	}
}

func TestRights(t *testing.T) {
	testenv.Require(t, testenv.Root)
	run := func(caps string) process {
		cmd := exec.CommandContext(t.Context(), "setpriv", "--bounding-set", caps, "sh", "-c", "echo; exec sleep 60")
		return begin(t, cmd)
	}
	f := conn.Facts{Node: conn.NodeCaps{csi.NodeServiceCapability_RPC_EXPAND_VOLUME: true}}
	for caps, want := range map[string]struct{ result, text string }{
		"-sys_admin":    {Fail, "CAP_SYS_ADMIN"},
		"-sys_resource": {Warn, "CAP_SYS_RESOURCE"},
	} {
		var r Report
		r.rights(run(caps), f)
		if got := found(t, &r, "process"); got.Result != want.result || !strings.Contains(got.Text, want.text) || got.Mend == "" {
			t.Errorf("%s: %+v", caps, got)
		}
	}
}

// begin starts a process that prints a line when it is ready, and ends with the test.
func begin(t *testing.T, cmd *exec.Cmd) process {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return process(cmd.Process.Pid)
}

// TestMountsOfAnother looks from a mount namespace into another one.
func TestMountsOfAnother(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	for _, err := range []error{mount.Mount(dir, dir, "", unix.MS_BIND, ""), mount.Mount("", dir, "", unix.MS_SHARED, "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for propagation, want := range map[string]string{"unchanged": OK, "private": Warn, "slave": Warn} {
		p := begin(t, exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", propagation, "sh", "-c", "echo; exec sleep 60"))
		var r Report
		r.mounts(p, filepath.Join(dir, "csi"))
		if f := found(t, &r, "mounts"); f.Result != want {
			t.Errorf("%s: %+v", propagation, f)
		}
	}
	var r Report
	r.mounts(process(os.Getpid()), dir)
	if f := found(t, &r, "mounts"); f.Result != OK {
		t.Errorf("of our own: %+v", f)
	}
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // where everybody may go
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	for _, tt := range []struct {
		dir, socket os.FileMode
		want        int
	}{{0o755, 0o777, 1}, {0o700, 0o777, 0}, {0o755, 0o660, 0}} {
		if err := errors.Join(os.Chmod(dir, tt.dir), os.WriteFile(path, nil, 0o600), os.Chmod(path, tt.socket)); err != nil {
			t.Fatal(err)
		}
		var r Report
		r.socket(path)
		if len(r.Host) != tt.want {
			t.Errorf("%s in %s: %+v", tt.socket, tt.dir, r.Host)
		}
	}
}

// TestDriverThatFails still says who it is, and what is known of it.
func TestDriverThatFails(t *testing.T) {
	r := report(t.Context(), Options{Endpoint: "/nowhere", Dir: t.TempDir()}, conn.Facts{Name: "disk.csi.azure.com", Quirks: quirk.For("disk.csi.azure.com", "")},
		errdefs.Hint(errors.New("disk.csi.azure.com: NodeGetInfo: it failed"), "do this"))
	if f := found(t, r, "driver"); f.Result != Fail || f.Text != "NodeGetInfo: it failed" || f.Mend != "do this" || r.Usable() || len(r.Can) > 0 || len(r.Quirks) < 3 {
		t.Errorf("%+v", r)
	}
	if f := found(t, r, "process"); f.Result != Warn {
		t.Errorf("%+v", f)
	}
}

func TestMain(m *testing.M) {
	if csitest.Main() {
		return
	}
	os.Exit(m.Run())
}
