package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
)

const (
	memory = "2G" // that the machine may use; it takes what it touches
	cpus   = "2"
	// grace is what starting and stopping may take beyond the time of the tests.
	grace = 90 * time.Second
)

// here runs the binary where we are.
func here(ctx context.Context, args []string) int {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "testvm:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// boot runs the binary in a machine and returns its exit status. An error says that there is
// none, with the last that the kernel said.
func boot(ctx context.Context, m testenv.Machine, args []string) (status int, err error) {
	dir, err := os.MkdirTemp("", "testvm")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	initrd, console, result := dir+"/initrd", dir+"/console", dir+"/status"
	j := job{Modules: m.Modules, Args: args, Env: append(os.Environ(), testenv.InVM+"=1")}
	if j.Dir, err = os.Getwd(); err != nil {
		return 0, err
	}
	if j.Args[0], err = filepath.Abs(j.Args[0]); err != nil {
		return 0, err
	}
	image, err := initramfs(m.Modules, j)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(initrd, image, 0o600); err != nil {
		return 0, err
	}
	stop, err := share(ctx, m.Virtiofsd, dir+"/fs")
	if err != nil {
		return 0, err
	}
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeout(args)+grace)
	defer cancel()
	// Where this host is busy a kernel takes a timer that is late for one that does not work, and panics: it is
	// not to look (no_timer_check).
	cmd := exec.CommandContext(ctx, m.Qemu, "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", cpus, "-m", memory,
		"-object", "memory-backend-memfd,id=memory,share=on,size="+memory, "-numa", "node,memdev=memory",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", m.Kernel, "-initrd", initrd, "-append", "console=ttyS0 panic=-1 mitigations=off no_timer_check",
		"-chardev", "file,id=console,path="+console, "-serial", "chardev:console",
		"-chardev", "socket,id=fs,path="+dir+"/fs", "-device", "vhost-user-fs-pci,chardev=fs,tag="+hostTag,
		"-device", "virtio-serial-pci",
		"-chardev", "stdio,id=output,signal=off", "-device", "virtserialport,chardev=output,name="+outputPort,
		"-chardev", "file,id=status,path="+result, "-device", "virtserialport,chardev=status,name="+statusPort)
	var complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = os.Stdout, &complaints
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if _, err := cmd.StdinPipe(); err != nil { // at its end the port would be closed, both ways
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = cmd.Wait()
	text, rerr := os.ReadFile(result)
	if status, serr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && serr == nil {
		return status, nil
	}
	said, _ := os.ReadFile(console)
	if err = errors.Join(err, rerr); err == nil {
		err = errors.New("it stopped by itself")
	}
	return 0, fmt.Errorf("the machine ended without a result: %w\n%s\n%s", err, complaints.Bytes(), tail(said, 4<<10))
}

// share serves the root of this host to the machine.
func share(ctx context.Context, program, socket string) (stop func(), err error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, program, "--fd=3", "-f", "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot")
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}

// timeout is what go test has given the binary.
func timeout(args []string) time.Duration {
	for _, arg := range args {
		if text, ok := strings.CutPrefix(arg, "-test.timeout="); ok {
			if d, err := time.ParseDuration(text); err == nil && d > 0 {
				return d
			}
		}
	}
	return 10 * time.Minute
}

func tail(text []byte, n int) []byte { return text[max(0, len(text)-n):] }
