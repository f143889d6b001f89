#!/bin/sh
# Builds plugins that others wrote and checks them, those of plugins.txt or those that are named:
#
#	test/foreign/check.sh [NAME...]
#
# It wants root, sshd, sshfs and fusermount3. Each plugin runs in a mount namespace of its own, with
# its own /run, /mnt and /var/lib. The reports are $FOREIGN/report/NAME.json; at the end there is the
# table of docs/conformance.md. Deviations are no failure of this script: they are what it is to find out.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
FOREIGN=${FOREIGN:-$HOME/.cache/remora-foreign}
export FOREIGN

if [ "${1:-}" != inside ]; then
	"$here/build.sh" "$@" || echo "foreign: going on with what there is"
	(cd "$root" && CGO_ENABLED=0 go build -o "$FOREIGN/remora" ./cmd/remora) || exit 1
	mkdir -p "$FOREIGN/report"
	while read -r name _; do
		case $name in '' | '#'*) continue ;; esac
		if [ $# -gt 0 ]; then
			wanted=
			for arg; do [ "$arg" = "$name" ] && wanted=1; done
			[ "$wanted" ] || continue
		fi
		[ -x "$FOREIGN/bin/$name" ] || continue
		rm -f "$FOREIGN/report/$name".*
		timeout 900 unshare -m --propagation private "$0" inside "$name" </dev/null
	done <"$here/plugins.txt"
	cd "$root" && go run ./test/foreign/table "$here/plugins.txt" "$FOREIGN/report"
	exit
fi

name=$2
bin=$FOREIGN/bin/$name
for dir in /run /mnt /var/lib; do mount -t tmpfs tmpfs $dir; done
mkdir -p /run/docker/plugins /run/sshd /mnt/state /mnt/volumes /var/lib/work /run/bin
work=/var/lib/work
log=$FOREIGN/report/$name.log
pids=
trap 'kill $pids 2>/dev/null; wait' EXIT

# up SOCKET COMMAND... starts a plugin and waits for its socket.
up() {
	socket=$1
	shift
	"$@" >"$log" 2>&1 &
	pids="$pids $!"
	for _ in $(seq 100); do
		[ -S "$socket" ] && return
		sleep .1
	done
	echo "foreign: $name does not listen on $socket:"
	tail -5 "$log"
	exit 1
}

# check SOCKET ARGS...
check() {
	socket=$1
	shift
	echo "foreign: checking $name"
	"$FOREIGN/remora" plugin check "$socket" --engine --timeout 60s "$@" --format json >"$FOREIGN/report/$name.json"
	echo "exit status $?"
}

plugins=/run/docker/plugins
case $name in
rclone)
	up $plugins/rclone.sock "$bin" serve docker --socket-addr $plugins/rclone.sock --base-dir $work/volumes --config $work/none.conf --cache-dir $work/cache
	mkdir -p $work/data
	check $plugins/rclone.sock --opt type=local --opt "path=$work/data/{name}" --opt vfs-cache-mode=writes
	;;
sshfs)
	ssh-keygen -q -t ed25519 -N '' -f $work/key
	ssh-keygen -q -t ed25519 -N '' -f $work/hostkey
	cp $work/key.pub $work/authorized
	cat >$work/sshd_config <<END
Port 2299
ListenAddress 127.0.0.1
HostKey $work/hostkey
AuthorizedKeysFile $work/authorized
PidFile none
StrictModes no
PermitRootLogin prohibit-password
UsePAM no
Subsystem sftp internal-sftp
END
	/usr/sbin/sshd -D -f $work/sshd_config 2>$work/sshd.log &
	pids="$pids $!"
	# The directories of the server are there before the plugin mounts them.
	real=$(command -v sshfs)
	cat >/run/bin/sshfs <<END
#!/bin/sh
for arg; do case \$arg in root@127.0.0.1:*) mkdir -p "\${arg#root@127.0.0.1:}" ;; esac; done
exec $real "\$@"
END
	chmod +x /run/bin/sshfs
	PATH=/run/bin:$PATH
	up $plugins/sshfs.sock "$bin"
	check $plugins/sshfs.sock --opt "sshcmd=root@127.0.0.1:$work/data/{name}" --opt port=2299 \
		--opt IdentityFile=$work/key --opt UserKnownHostsFile=/dev/null
	;;
local-persist)
	mkdir -p /var/lib/docker/plugin-data
	up $plugins/local-persist.sock "$bin"
	check $plugins/local-persist.sock --opt "mountpoint=$work/data/{name}"
	;;
casbin)
	cat >$work/model.conf <<END
[request_definition]
r = obj, act
[policy_definition]
p = obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.obj == p.obj && r.act == p.act
END
	printf 'p, /v1.41/_ping, GET\np, /v1.41/images/json, GET\n' >$work/policy.csv
	up $plugins/casbin-authz-plugin.sock "$bin" -model $work/model.conf -policy $work/policy.csv
	check $plugins/casbin-authz-plugin.sock
	;;
twistlock)
	echo '{"name":"all","users":[""],"actions":["container_list","image_list","docker_version","docker_ping"]}' >$work/policy.json
	up $plugins/authz-broker.sock "$bin" --policy-file $work/policy.json
	check $plugins/authz-broker.sock
	;;
opa)
	# The policy of the plugin's own tutorial.
	cat >$work/authz.rego <<END
package docker.authz

default allow := false

allow if not deny

deny if seccomp_unconfined

seccomp_unconfined if input.Body.HostConfig.SecurityOpt[_] == "seccomp=unconfined"
END
	up $plugins/opa-docker-authz.sock "$bin" -policy-file $work/authz.rego -quiet
	check $plugins/opa-docker-authz.sock --allow 'GET /containers/json' \
		--deny 'POST /containers/create {"Image":"busybox","HostConfig":{"SecurityOpt":["seccomp=unconfined"]}}'
	;;
esac
