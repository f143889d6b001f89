package testenv

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The needs of this project's tests. A test adds one here rather than looking for
// itself, so that its name can be required.
var (
	// Root is the user root, with the right to mount.
	Root = Need{"root", sync.OnceValue(root)}
	// Dockerd is the programs of an engine that a test starts for itself; it does
	// not mean that one is running.
	Dockerd = Need{"dockerd", programs("docker.io", "dockerd", "containerd", "runc")}
	// Runc is what runs containers, and the right to have it do so.
	Runc = Need{"runc", programs("docker.io or runc", "runc")}
	// DockerCLI is the command docker.
	DockerCLI = Need{"docker-cli", programs("docker.io", "docker")}
	// Compose is docker-compose.
	Compose = Need{"compose", programs("docker-compose", "docker-compose")}
	// Registry is Debian's docker-registry, which a test starts for itself.
	Registry = Need{"registry", programs("docker-registry", "docker-registry")}
	// Apt is a package manager that can fetch packages of Debian.
	Apt = Need{"apt", programs("apt and dpkg, on Debian", "apt-get", "dpkg-deb")}
	// Podman is the command podman.
	Podman = Need{"podman", programs("podman", "podman")}
	// Netavark is a Podman that has plugins of netavark, in a tree of its own. [NetavarkTree] says where it is.
	Netavark = Need{"netavark", func() error { _, err := NetavarkTree(); return err }}
	// Netns is the right to make network and mount namespaces, and the commands ip
	// and unshare to do it with.
	Netns = Need{"netns", sync.OnceValue(netns)}
	// Nftables is the commands nft and iptables, the latter of both kinds, by which a test looks at rules and breaks them.
	Nftables = Need{"nftables", programs("nftables and iptables", "nft", "iptables-nft", "iptables-legacy", "ip6tables-legacy")}
	// Networkd is systemd's program that configures interfaces, which a test starts for itself.
	Networkd = Need{"networkd", programs("systemd", "/lib/systemd/systemd-networkd")}
	// Systemd is a machine that systemd started.
	Systemd = Need{"systemd", systemd}
	// Btrfs is a kernel that can mount a btrfs from an image, and the program that makes
	// one.
	Btrfs = Need{"btrfs", sync.OnceValue(btrfs)}
	// SQLite is the command sqlite3.
	SQLite = Need{"sqlite", programs("sqlite3", "sqlite3")}
	// Loop is loop devices, ext4, xfs and btrfs in the kernel, and the programs that make
	// and look after these file systems.
	Loop = Need{"loop", sync.OnceValue(loop)}
	// Busybox is a busybox that needs no shared library, of which a test makes an
	// image without a registry. [BusyboxPath] says where it is.
	Busybox = Need{"busybox", func() error { _, err := BusyboxPath(); return err }}
	// Sshfs is the command sshfs with what it stands on, and a server to try it on, which
	// a test starts for itself.
	Sshfs = Need{"sshfs", sync.OnceValue(sshfs)}
	// Sshd is an SSH server that a test starts for itself.
	Sshd = Need{"sshd", programs("openssh-server", "sshd", "ssh-keygen")}
	// S3 is an S3 server that a test starts for itself.
	S3 = Need{"s3", programs("it by: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0", "versitygw")}
	// Rclone is the command rclone, which can mount here.
	Rclone = Need{"rclone", sync.OnceValue(fuse("rclone and fuse3", "rclone", "fusermount3"))}
	// Davfs is the helper of mount(8) for WebDAV.
	Davfs = Need{"davfs", sync.OnceValue(fuse("davfs2", "/usr/sbin/mount.davfs"))}
	// S3fs is the command s3fs.
	S3fs = Need{"s3fs", sync.OnceValue(fuse("s3fs", "s3fs"))}
	// Strace is the command strace, with which a process is killed at one system call of its own.
	Strace = Need{"strace", programs("strace", "strace")}
	// Glusterfs is the helper of mount(8) for GlusterFS, and a server that a test starts for itself.
	Glusterfs = Need{"glusterfs", sync.OnceValue(fuse("glusterfs-server and glusterfs-client", "/usr/sbin/mount.glusterfs", "/usr/sbin/glusterd", "gluster"))}
	// Ceph is the daemons of a Ceph that a test starts for itself, its commands, and the way to
	// the data of an image: rbd-fuse and loop devices.
	Ceph = Need{"ceph", sync.OnceValue(ceph)}
	// OpenStack is a Keystone and a Cinder that a test starts for itself, with all they need.
	OpenStack = Need{"openstack", sync.OnceValue(openstack)}
	// Immutable is the right to set the immutable flag, and a temporary directory on a file
	// system that has it.
	Immutable = Need{"immutable", sync.OnceValue(immutableFlag)}
)

// All returns every need there is.
func All() []Need {
	return []Need{Root, Dockerd, Runc, DockerCLI, Compose, Podman, Netns, Systemd, Btrfs, SQLite, Busybox, Sshfs, Loop, Sshd, S3, Rclone, Davfs, S3fs, Registry, Glusterfs, Ceph, OpenStack, Immutable, VM, Apt, Strace, Nftables, Netavark, Networkd}
}

func root() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("runs as user %d, not as root", uid)
	}
	return probe("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt")
}

func netns() error {
	if err := programs("iproute2 and util-linux", "ip", "unshare")(); err != nil {
		return err
	}
	return probe("unshare", "--net", "--mount", "ip", "link", "set", "lo", "up")
}

// sshfs looks in /usr/sbin for the server, whatever is in PATH: it must be started by an
// absolute path.
func sshfs() error {
	if err := programs("sshfs and openssh-client", "sshfs", "ssh", "ssh-keygen")(); err != nil {
		return err
	}
	return fuse("openssh-server", "/usr/sbin/sshd")()
}

// fuse returns a check that programs are there, and that a FUSE file system can be served.
func fuse(pkg string, names ...string) func() error {
	return func() error {
		if err := programs(pkg, names...)(); err != nil {
			return err
		}
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return f.Close()
	}
}

func loop() error {
	for _, need := range []func() error{
		root,
		programs("e2fsprogs", "mkfs.ext4", "e2fsck", "debugfs"),
		programs("xfsprogs", "mkfs.xfs"),
		programs("btrfs-progs", "mkfs.btrfs"),
		programs("mount", "losetup"),
	} {
		if err := need(); err != nil {
			return err
		}
	}
	f, err := os.Open("/dev/loop-control")
	if err != nil {
		return err
	}
	_ = f.Close()
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	for _, name := range []string{"ext4", "xfs", "btrfs"} {
		if !slices.Contains(strings.Fields(string(known)), name) {
			return fmt.Errorf("no %s in /proc/filesystems; modprobe %s", name, name)
		}
	}
	return nil
}

func ceph() error {
	if testing.Testing() && testing.Short() {
		return errors.New("with -short none is started; make cloud does")
	}
	if err := loop(); err != nil {
		return err
	}
	return fuse("ceph-mon, ceph-mgr, ceph-osd, ceph-common, rbd-fuse and rbd-nbd", "ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "rbd", "rbd-fuse", "rbd-nbd", "ceph-authtool", "monmaptool")()
}

func openstack() error {
	for _, need := range []func() error{
		ceph,
		SQLite.Check,
		programs("nfs-common", "mount.nfs"),
		programs("qemu-utils", "qemu-img"),
		programs("keystone and uwsgi-plugin-python3", "keystone-manage", "keystone-wsgi-public", "uwsgi_python3"),
		programs("cinder-api, cinder-scheduler and cinder-volume", "cinder-api", "cinder-scheduler", "cinder-volume"),
		programs("rabbitmq-server", "epmd", "/usr/lib/rabbitmq/bin/rabbitmq-server"),
		programs("util-linux", "unshare"),
		programs("sudo", "sudo"),
	} {
		if err := need(); err != nil {
			return err
		}
	}
	return nil
}

func immutableFlag() error {
	if err := programs("e2fsprogs", "chattr", "lsattr")(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "immutable-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(dir) }()
	if err := probe("chattr", "+i", dir); err != nil {
		return err
	}
	return probe("chattr", "-i", dir)
}

// systemd looks where sd_booted(3) does.
func systemd() error {
	if fi, err := os.Stat("/run/systemd/system"); err != nil || !fi.IsDir() {
		return errors.New("systemd did not start this machine")
	}
	return programs("systemd", "systemctl")()
}

func btrfs() error {
	if err := root(); err != nil {
		return err
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	// A kernel that has it as a module knows it when it is first used.
	if !strings.Contains(string(known), "btrfs\n") && probe("modprobe", "btrfs") != nil {
		return errors.New("this kernel has no btrfs")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return errors.New("this machine has no loop devices")
	}
	return programs("btrfs-progs", "mkfs.btrfs", "btrfs")()
}

// BusyboxPath returns the path of a static busybox, or says what to install.
func BusyboxPath() (string, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", errors.New("no busybox in PATH; install busybox-static")
	}
	f, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s needs shared libraries; install busybox-static", path)
		}
	}
	return path, nil
}

// NetavarkTree returns the directory in which test/setup.sh unpacked a Podman of a later Debian, or says what to do.
func NetavarkTree() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	tree := filepath.Join(cache, "remora-tools", "netavark", "tree")
	if _, err := os.Stat(filepath.Join(tree, "usr", "lib", "podman", "netavark")); err != nil {
		return "", fmt.Errorf("no Podman of Debian 13 in %s; run test/setup.sh", tree)
	}
	return tree, nil
}

// programs returns a check that each of names is in PATH.
func programs(pkg string, names ...string) func() error {
	return func() error {
		for _, name := range names {
			if _, err := exec.LookPath(name); err != nil {
				return fmt.Errorf("no %s in PATH; install %s", name, pkg)
			}
		}
		return nil
	}
}

// probe runs a command that changes nothing outside its own namespaces.
func probe(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a machine may be busy
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}
