package main

// program is what the rootfs has of a Debian package. The libraries that its programs load
// come with them, from whichever packages have them.
type program struct {
	pkg   string
	files []string // patterns of path.Match, below /
}

// programs returns what drivers and the daemon call, and what these programs read.
func programs() []program {
	return []program{
		{"busybox-static", []string{"bin/busybox"}}, // for who looks inside, and the scripts among the rest
		{"mount", []string{"bin/mount", "bin/umount", "sbin/losetup"}},
		{"util-linux", []string{"sbin/blkid", "sbin/fsck", "sbin/wipefs", "sbin/blockdev", "bin/findmnt", "bin/lsblk"}},
		{"e2fsprogs", []string{
			"sbin/mke2fs", "sbin/mkfs.ext?", "sbin/e2fsck", "sbin/fsck.ext?", "sbin/resize2fs", "sbin/tune2fs",
			"sbin/dumpe2fs", "sbin/debugfs", "usr/bin/chattr", "usr/bin/lsattr", "etc/mke2fs.conf",
		}},
		{"xfsprogs", []string{"sbin/mkfs.xfs", "sbin/xfs_repair", "sbin/fsck.xfs", "usr/sbin/xfs_growfs", "usr/sbin/xfs_io", "usr/sbin/xfs_db", "usr/sbin/xfs_admin"}},
		{"btrfs-progs", []string{"bin/btrfs", "bin/mkfs.btrfs", "bin/btrfstune", "bin/fsck.btrfs", "sbin/fsck.btrfs", "sbin/mkfs.btrfs", "sbin/btrfstune"}},
		{"fuse3", []string{"bin/fusermount3", "bin/fusermount", "sbin/mount.fuse3", "sbin/mount.fuse", "etc/fuse.conf"}},
		{"sshfs", []string{"usr/bin/sshfs", "sbin/mount.sshfs", "sbin/mount.fuse.sshfs", "usr/sbin/mount.sshfs", "usr/sbin/mount.fuse.sshfs"}},
		{"openssh-client", []string{"usr/bin/ssh", "usr/bin/ssh-keygen", "usr/bin/ssh-keyscan"}},
		{"nfs-common", []string{"sbin/mount.nfs", "sbin/mount.nfs4", "sbin/umount.nfs", "sbin/umount.nfs4"}},
		{"libtirpc-common", []string{"etc/netconfig"}},
		{"netbase", []string{"etc/protocols", "etc/services"}},
		{"cifs-utils", []string{"sbin/mount.cifs", "usr/sbin/mount.cifs", "sbin/mount.smb3", "usr/sbin/mount.smb3"}},
		{"ca-certificates", []string{"usr/share/ca-certificates/mozilla/*.crt"}},
		{"tzdata", []string{"usr/share/zoneinfo/[A-Z]*", "usr/share/zoneinfo/[A-Z]*/*", "usr/share/zoneinfo/[A-Z]*/*/*"}},
		{"libgcc-s1", []string{"lib/*/libgcc_s.so.1"}}, // which glibc loads when it ends a thread
	}
}

// applets are the commands that busybox is called by.
const applets = `[ ash awk basename cat chmod chown clear cmp cp cut date dd df dirname dmesg du echo env expr false
find free grep head hostname id ip kill less ln ls md5sum mkdir modprobe more mv nc nslookup pidof ping ps pwd readlink
realpath rm rmdir sed sh sha256sum sleep sort stat stty sync tail tar tee test top touch tr true uname uniq uptime vi wc
which xargs`

// texts are files that no package brings as they are: others make them when it is installed.
var texts = map[string]string{
	"etc/passwd":        "root:x:0:0:root:/root:/bin/sh\n",
	"etc/group":         "root:x:0:\n",
	"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
}

// dirs are directories that must be there, with their modes.
var dirs = map[string]int64{
	"dev": 0o755, "proc": 0o755, "sys": 0o755, "mnt": 0o755, "root": 0o700, "run": 0o755, "run/docker/plugins": 0o755, "tmp": 0o1777, "var/tmp": 0o1777,
	"etc/remora": 0o755, "var/lib/remora": 0o700, "host/run": 0o755,
}

// links are symbolic links, those of a file system without a /bin of its own first.
var links = map[string]string{
	"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64",
	"etc/mtab": "/proc/self/mounts", "var/run": "/run",
}
