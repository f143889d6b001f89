package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the machine and its host call the things between them.
const (
	hostTag    = "host"
	outputPort = "output"
	statusPort = "status"
)

// guest is the first process of the machine. Whatever comes of it, the machine is off then.
func guest(ctx context.Context) {
	if err := work(ctx); err != nil {
		tell(err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// tell puts an error on the console, by way of the kernel's log.
func tell(err error) {
	if log, lerr := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); lerr == nil {
		_, _ = fmt.Fprintln(log, "testvm:", err)
		_ = log.Close()
	}
}

func work(ctx context.Context) error {
	text, err := os.ReadFile("/" + jobName)
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	for _, step := range []func(job) error{mountKernel, loadModules, enterHost, settle} {
		if err := step(j); err != nil {
			return err
		}
	}
	status, err := run(ctx, j)
	if err != nil {
		return err
	}
	port, err := openPort(statusPort)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(port, status); err != nil {
		return err
	}
	return port.Close()
}

// mountpoint is one mount.
type mountpoint struct{ source, target, kind, data string }

func mountAll(list ...mountpoint) error {
	for _, m := range list {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

func mountKernel(job) error {
	return mountAll(mountpoint{"proc", "/proc", "proc", ""}, mountpoint{"sys", "/sys", "sysfs", ""}, mountpoint{"dev", "/dev", "devtmpfs", ""})
}

func loadModules(job) error {
	paths, err := filepath.Glob("/" + modulesDir + "/*")
	if err != nil {
		return err
	}
	for _, path := range paths { // in order, by their names
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		flags := 0
		if !strings.HasSuffix(path, ".ko") {
			flags = unix.MODULE_INIT_COMPRESSED_FILE
		}
		err = unix.FinitModule(int(f.Fd()), "", flags)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

// enterHost makes the file system of the host the root, with a layer above it for what is
// written.
func enterHost(j job) error {
	err := unix.Mount(hostTag, "/host", "virtiofs", unix.MS_RDONLY, "")
	if err != nil {
		return fmt.Errorf("mount the host's file system: %w", err)
	}
	if err := mountAll(mountpoint{"layer", "/layer", "tmpfs", ""}); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir("/layer/upper", 0o755), os.Mkdir("/layer/work", 0o755)); err != nil {
		return err
	}
	if err := mountAll(mountpoint{"root", "/root", "overlay", "lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work"}); err != nil {
		return err
	}
	modules := "/root/usr/lib/modules/" + filepath.Base(j.Modules)
	if err := os.MkdirAll(modules, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/host"+j.Modules, modules, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("modules: %w", err)
	}
	for _, dir := range []string{"/dev", "/sys", "/proc"} {
		if err := unix.Mount(dir, "/root"+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	return errors.Join(unix.Chdir("/root"), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/"))
}

// settle does what the system of a usual machine does before anybody logs in.
func settle(job) error {
	err := mountAll(mountpoint{"run", "/run", "tmpfs", "mode=0755"}, mountpoint{"pts", "/dev/pts", "devpts", ""},
		mountpoint{"shm", "/dev/shm", "tmpfs", "mode=1777"}, mountpoint{"cgroup", "/sys/fs/cgroup", "cgroup2", ""})
	if err != nil {
		return err
	}
	if err := os.Mkdir(scratch, 0o777|os.ModeSticky); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("testvm")); err != nil {
		return err
	}
	return loopbackUp()
}

// scratch is where tests write. The layer above the host's files is no place for that: not
// all can be done on it that can be done on a file system of a usual kind.
const scratch = "/run/scratch"

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// run starts the binary and waits for it. Processes that lost their parent are this one's
// children, and are waited for as well.
func run(ctx context.Context, j job) (status int, err error) {
	out, err := openPort(outputPort)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, j.Args[0], j.Args[1:]...)
	cmd.Dir, cmd.Env = j.Dir, append(j.Env, "TMPDIR="+scratch)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case pid == cmd.Process.Pid && ws.Exited():
			return ws.ExitStatus(), nil
		case pid == cmd.Process.Pid:
			return 0, fmt.Errorf("%s: %v", j.Args[0], ws.Signal())
		}
	}
}

// openPort opens the port of a name (Documentation/ABI/testing/sysfs-class… has "name").
func openPort(name string) (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, path := range names {
		if is, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(is)) == name {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_WRONLY, 0)
		}
	}
	return nil, fmt.Errorf("no port is called %s", name)
}
