package mount

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/remote/remotetest"
	"github.com/remora-plugins/remora/internal/testenv"
)

// kernelServer is a real server of what the kernel of the virtual machine can mount.
type kernelServer struct {
	port  string
	dir   string // what it serves
	start func()
	stop  func()
	// options are those of a volume, with the directory name on the server.
	options func(name string) map[string]string
	// pool is the table of a pool with such volumes.
	pool func(base string) map[string]any
}

func (s *kernelServer) mkdir(t testing.TB, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(s.dir, name), 0o755); err != nil {
		t.Fatal(err)
	}
}

// command runs a program to its end.
func command(t testing.TB, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// background starts a program that stays.
func background(t testing.TB, name string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, said.Bytes())
		}
	}
}

// nfsServer starts the kernel's own server of NFS, of which there is one in a machine.
func nfsServer(t testing.TB, kind, vers string) *kernelServer {
	t.Helper()
	testenv.Require(t, testenv.VM)
	s := &kernelServer{port: "2049", dir: t.TempDir()}
	export := s.dir
	if kind == "nfs4" {
		export = "" // what has the fsid 0 is its root
	}
	for _, args := range [][]string{
		{"modprobe", "nfsd"},
		{"mkdir", "-p", "/run/rpcbind", "/run/sendsigs.omit.d", "/var/lib/nfs/v4recovery"},
		{"sh", "-c", "mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd"},
		{"exportfs", "-o", "rw,no_root_squash,no_subtree_check,fsid=0,insecure", "127.0.0.1:" + s.dir}, //nolint:misspell // so it is called
	} {
		command(t, args[0], args[1:]...)
	}
	t.Cleanup(background(t, "rpcbind", "-f", "-w"))
	remotetest.WaitFor(t, "rpcbind answers", func() bool { return exec.Command("rpcinfo", "-p", "127.0.0.1").Run() == nil })
	t.Cleanup(background(t, "rpc.mountd", "-F"))
	s.start = func() {
		command(t, "rpc.nfsd", "--grace-time", "10", "--lease-time", "10", "4")
		// No client was there before, whose locks the server would have to wait for.
		if err := os.WriteFile("/proc/fs/nfsd/v4_end_grace", []byte("Y\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	s.stop = func() { command(t, "rpc.nfsd", "0") }
	s.start()
	t.Cleanup(func() {
		s.stop()
		command(t, "exportfs", "-ua") //nolint:misspell // so it is called
	})
	o := "addr=127.0.0.1,timeo=20," + vers
	s.options = func(name string) map[string]string {
		s.mkdir(t, name)
		return map[string]string{"type": kind, "device": ":" + export + "/" + name, "o": o}
	}
	options := []any{"timeo=20"}
	for option := range strings.SplitSeq(vers, ",") {
		options = append(options, option)
	}
	s.pool = func(base string) map[string]any {
		s.mkdir(t, base)
		return map[string]any{"type": kind, "device": "127.0.0.1:" + export + "/" + base, "options": options}
	}
	return s
}

// smbServer starts Samba.
func smbServer(t testing.TB) *kernelServer {
	t.Helper()
	testenv.Require(t, testenv.VM)
	s := &kernelServer{port: "445", dir: t.TempDir()}
	state := t.TempDir()
	config := filepath.Join(state, "smb.conf")
	text := "[global]\nserver role = standalone server\ninterfaces = lo\nbind interfaces only = yes\nsmb ports = 445\n" +
		"load printers = no\ndisable spoolss = yes\nserver min protocol = SMB3\nlog file = " + state + "/log\n"
	for _, what := range []string{"private dir", "state directory", "cache directory", "lock directory", "pid directory", "ncalrpc dir"} {
		text += what + " = " + state + "\n"
	}
	text += "[share]\npath = " + s.dir + "\nread only = no\nvalid users = root\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("smbpasswd", "-c", config, "-s", "-a", "root")
	cmd.Stdin = strings.NewReader(password + "\n" + password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("smbpasswd: %v: %s", err, out)
	}
	stop := func() {}
	s.start = func() { stop = background(t, "smbd", "-F", "--no-process-group", "-s", config) }
	s.stop = func() { stop() }
	s.start()
	t.Cleanup(func() { s.stop() })
	remotetest.WaitFor(t, "smbd listens", func() bool { return probe(t.Context(), []string{"127.0.0.1:445"}) == nil })
	secret := filepath.Join(state, "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.options = func(name string) map[string]string {
		s.mkdir(t, name)
		return map[string]string{"type": "cifs", "device": "//127.0.0.1/share/" + name, "o": "vers=3.1.1,username=root", "password": password}
	}
	s.pool = func(base string) map[string]any {
		s.mkdir(t, base)
		return map[string]any{
			"type": "cifs", "device": "//127.0.0.1/share/" + base, "options": []any{"vers=3.1.1"},
			"username": "root", "password_file": secret,
		}
	}
	return s
}

// cut has the kernel drop what goes to the server, until mend.
func (s *kernelServer) cut(t testing.TB) (mend func()) {
	t.Helper()
	rules := fmt.Sprintf("add table inet cut; add chain inet cut in { type filter hook input priority 0; }; add rule inet cut in tcp dport %s drop", s.port)
	command(t, "nft", rules)
	return func() { command(t, "nft", "delete table inet cut") }
}
