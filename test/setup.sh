#!/usr/bin/env bash
# Installs what the tests and the demo need and this machine lacks, and says so. It
# starts nothing: the tests run engines of their own.
#
#   test/setup.sh            all that the tests need
#   test/setup.sh docker     what the demo needs
#   test/setup.sh cloud      all that the tests need, and what those of test/cloud do: a Ceph
#                            and an OpenStack, 600 MB
set -euo pipefail

missing=()
need() { # PACKAGE COMMAND...
	local pkg=$1
	shift
	for cmd in "$@"; do
		command -v "$cmd" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$cmd" >/dev/null || {
			missing+=("$pkg")
			return
		}
	done
}

command -v go >/dev/null || { echo "setup: no go in PATH; install Go 1.26 or later from https://go.dev/dl" >&2; exit 1; }

need docker.io dockerd containerd runc
# A static busybox is all there is in the tests' images, as no registry may be in reach.
if ! command -v busybox >/dev/null || ldd "$(command -v busybox)" >/dev/null 2>&1; then
	missing+=(busybox-static)
fi
if [ "${1:-}" != docker ]; then
	need podman podman
	need docker-compose docker-compose
	need docker-registry docker-registry
	need iproute2 ip
	need nftables nft
	need iptables iptables-nft iptables-legacy
	need util-linux unshare nsenter
	need btrfs-progs mkfs.btrfs btrfs
	need sqlite3 sqlite3
	need sshfs sshfs
	need openssh-client ssh ssh-keygen
	need openssh-server sshd
	need e2fsprogs mkfs.ext4 e2fsck debugfs chattr lsattr
	need xfsprogs mkfs.xfs
	need mount losetup
	need rclone rclone
	need fuse3 fusermount3
	need davfs2 mount.davfs
	need s3fs s3fs
	need strace strace
	need "glusterfs-server glusterfs-client" glusterd mount.glusterfs
	need systemd systemd-analyze # verifies the units
	# A small virtual machine (internal/testvm), and what its tests serve and mount in it.
	need qemu-system-x86 qemu-system-x86_64
	need kmod modprobe depmod
	need nfs-kernel-server rpc.nfsd exportfs
	need nfs-common mount.nfs
	need rpcbind rpcbind rpcinfo
	need samba smbd smbpasswd
	need cifs-utils mount.cifs
	need "gcc libc6-dev" gcc # the race detector
	# Repositories in S3. It is in no distribution.
	if ! command -v versitygw >/dev/null && [ "$(id -u)" = 0 ]; then
		GOBIN=/usr/local/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
	fi
fi
if [ "${1:-}" = cloud ]; then
	need ceph-mon ceph-mon
	need ceph-mgr ceph-mgr
	need ceph-osd ceph-osd
	need ceph-common ceph rbd ceph-authtool monmaptool
	need rbd-fuse rbd-fuse
	need rbd-nbd rbd-nbd
	need keystone keystone-manage keystone-wsgi-public
	need uwsgi-plugin-python3 uwsgi_python3
	need cinder-api cinder-api
	need cinder-scheduler cinder-scheduler
	need cinder-volume cinder-volume
	need rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server
	need qemu-utils qemu-img
	need sudo sudo # with which Cinder becomes the root that it is
fi
# Newer releases have the command in a package of its own.
if ! command -v docker >/dev/null; then
	if apt-cache show docker-cli >/dev/null 2>&1; then missing+=(docker-cli); else missing+=(docker.io); fi
fi

# The kernel of the virtual machine (internal/testvm) is unpacked beside other tools and
# not installed: this host goes on to boot what it boots.
kernels=${XDG_CACHE_HOME:-$HOME/.cache}/remora-tools/kernel
kernel=
if [ "${1:-}" != docker ] && [ "$(uname -m)" = x86_64 ] && ! compgen -G "$kernels/*/lib/modules/*/modules.dep" >/dev/null; then
	kernel=yes
fi

[ ${#missing[@]} -gt 0 ] || [ -n "$kernel" ] || exit 0
# shellcheck disable=SC2206 # an entry may be two packages
missing=(${missing[@]})

if ! command -v apt-get >/dev/null; then
	echo "setup: no apt-get here; install by hand what Debian calls: ${missing[*]}" >&2
	exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || { echo "setup: run as root, or install by hand: ${missing[*]}" >&2; exit 1; }
	as_root=(sudo)
fi

echo "setup: installing ${missing[*]}${kernel:+ (a kernel for a virtual machine)}" >&2
# A package that is installed starts its service, unless this file says no
# (invoke-rc.d(8)). One that is there already is somebody's decision and stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
	"${as_root[@]}" chmod 755 "$policy"
	trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
log=$(mktemp)
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" >>"$log" 2>&1; }
fail() {
	tail -n 20 "$log" >&2
	echo "setup: could not install $1; the whole log is in $log" >&2
	exit 1
}
apt update || fail "${missing[*]}"
[ ${#missing[@]} -eq 0 ] || apt install -y --no-install-recommends "${missing[@]}" || fail "${missing[*]}"

fetch_kernel() {
	local pkg
	pkg=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
	[ -n "$pkg" ] || return
	mkdir -p "$kernels/.new" && cd "$kernels/.new" || return
	apt-get -q download "$pkg" || return
	dpkg-deb -x "$pkg"_*.deb "$pkg" || return
	[ -e "$pkg/lib" ] || ln -s usr/lib "$pkg/lib" || return
	PATH=$PATH:/usr/sbin:/sbin depmod -b "$pkg" "${pkg#linux-image-}" || return
	mv -T "$pkg" "../$pkg" && rm -rf "$kernels/.new"
}
if [ -n "$kernel" ]; then
	rm -rf "$kernels/.new"
	(fetch_kernel) >>"$log" 2>&1 || fail "the kernel of linux-image-cloud-amd64"
fi
rm -f "$log"
