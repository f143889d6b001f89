package csitest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
)

// raise mounts the data of a volume.
func (d *driver) raise(v *Volume, path string) error {
	if d.o.FUSE {
		return mountFUSE(d.s.data(v.Key), path, d.s.daemon(v.Key, d.o.NodeID))
	}
	return mount.Mount(d.s.data(v.Key), path, "", unix.MS_BIND, "")
}

// daemon is the file with the number of the process that serves a volume on a node.
func (s *storage) daemon(key, node string) string {
	return filepath.Join(s.dir, "daemons", key+"."+node)
}

// sftpServer is where Debian has it.
const sftpServer = "/usr/lib/openssh/sftp-server"

// mountFUSE has sshfs mount a directory of this host, over two pipes and no network. Both processes outlive this one, as those of a
// good driver do.
func mountFUSE(dir, path, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	toServer, fromClient, err := os.Pipe()
	if err != nil {
		return err
	}
	toClient, fromServer, err := os.Pipe()
	if err != nil {
		return errors.Join(err, toServer.Close(), fromClient.Close())
	}
	server := exec.Command(sftpServer)
	server.Stdin, server.Stdout = toServer, fromServer
	client := exec.Command("sshfs", "-f", "-o", "passive", ":"+dir, path)
	client.Stdin, client.Stdout = toClient, fromClient
	for _, cmd := range []*exec.Cmd{server, client} {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if serr := cmd.Start(); serr != nil {
			err = errors.Join(err, serr)
			continue
		}
		go func() { _ = cmd.Wait() }()
	}
	err = errors.Join(err, toServer.Close(), fromClient.Close(), toClient.Close(), fromServer.Close())
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(client.Process.Pid)), 0o600); err != nil {
		return err
	}
	for began := time.Now(); !mounted(path); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			return fmt.Errorf("sshfs does not mount %s", path)
		}
	}
	return nil
}

// KillFUSE kills the process that serves a volume on this node. It tells whether there was one.
func (m *Mock) KillFUSE(id string) bool {
	v, ok := m.Volume(id)
	if !ok {
		return false
	}
	s := m.s
	if s == nil {
		s = &storage{dir: filepath.Join(m.dir, "storage")}
	}
	text, err := os.ReadFile(s.daemon(v.Key, m.Options.NodeID))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return false
	}
	// The number may be another's by now.
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(args), s.data(v.Key)) {
		return false
	}
	return syscall.Kill(pid, syscall.SIGKILL) == nil
}
