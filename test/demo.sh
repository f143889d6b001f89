#!/usr/bin/env bash
# Remora in a minute, on a real engine: a container writes to a volume, the daemon is
# killed and started again, another container reads what was written. Every step is
# checked. Everything lies below one scratch folder and is cleaned up; a Remora or an
# engine that is running already is not disturbed.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
	echo "demo: mounts and engines need root; asking sudo" >&2
	exec sudo --preserve-env=PATH "$0" "$@"
fi
[ -x bin/remora ] || { echo "demo: no bin/remora; run \"make demo\", which builds it" >&2; exit 1; }
test/setup.sh docker

pool=remora-demo
volume=demo
room=$(mktemp -d /tmp/remora-demo.XXXXXX) # short: a socket's path has 107 bytes
socket=/run/docker/plugins/$pool.sock
daemon='' engine='' image='' created=''

cleanup() {
	local rc=$?
	set +e
	trap - EXIT INT TERM
	[ -z "$created" ] || docker volume rm -f "$volume" >/dev/null 2>&1
	[ -z "$image" ] || docker image rm -f "$image" >/dev/null 2>&1
	[ -z "$daemon" ] || { kill "$daemon"; wait "$daemon"; } 2>/dev/null
	[ -z "$engine" ] || { kill "$engine"; wait "$engine"; } 2>/dev/null
	if [ $rc != 0 ]; then
		for log in "$room"/*.log; do
			[ -s "$log" ] && { echo "--- the end of ${log##*/}" && tail -n 8 "$log"; } >&2
		done
	fi
	# What is mounted below the room would be deleted with it.
	while read -r mounted; do umount "$mounted"; done < <(awk -v d="$room/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | sort -r)
	rm -rf --one-file-system "$room"
	exit $rc
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() { echo "demo: $*" >&2; exit 1; }

# show types a command, runs it and stops the demo where it fails.
show() {
	printf '$ %s\n' "$(words "$@")"
	"$@" || fail "\"$(words "$@")\" failed"
}

# words quotes a command as one would type it.
words() {
	local out='' w
	for w in "$@"; do
		case $w in
		*[!A-Za-z0-9_./:=@%+,-]* | '') w="'$w'" ;;
		esac
		out+="${out:+ }$w"
	done
	printf '%s' "$out"
}

# expect shows a command and stops the demo where it does not print what is wanted.
expect() {
	local want=$1 got
	shift
	printf '$ %s\n' "$(words "$@")"
	got=$("$@") || fail "\"$(words "$@")\" failed"
	printf '%s\n' "$got"
	[[ $got == *"$want"* ]] || fail "\"$want\" is not in what \"$(words "$@")\" printed"
}

# until_true waits at most 30 seconds for a command to succeed, while process $2 lives.
until_true() {
	local what=$1 process=$2 i
	shift 2
	for ((i = 0; i < 300; i++)); do
		"$@" >/dev/null 2>&1 && return
		kill -0 "$process" 2>/dev/null || fail "$what: it has ended"
		sleep 0.1
	done
	fail "$what: not within 30 seconds"
}

# fresh succeeds when the socket is another one than $1 was about.
fresh() { [ -S "$socket" ] && [ "$(stat -c '%i %z' "$socket")" != "$1" ]; }

start_daemon() {
	local before
	before=$(stat -c '%i %z' "$socket" 2>/dev/null || true)
	printf '$ bin/remora daemon --config %s &\n' "$room/remora.toml"
	bin/remora daemon --config "$room/remora.toml" >>"$room/remora.log" 2>&1 &
	daemon=$!
	until_true "the daemon's socket $socket" "$daemon" fresh "$before"
}

[ ! -S "$socket" ] || ! grep -q " $socket\$" /proc/net/unix || fail "another demo is running: $socket is in use"

# An engine: the one that is running, or one of our own that touches nothing.
if docker info >/dev/null 2>&1; then
	echo "# using the Docker engine that is running"
else
	echo "# no Docker engine is running; starting one below $room"
	dockerd --data-root "$room/docker" --exec-root "$room/exec" --pidfile "$room/docker.pid" \
		-H "unix://$room/docker.sock" --bridge=none --iptables=false >"$room/dockerd.log" 2>&1 &
	engine=$!
	export DOCKER_HOST=unix://$room/docker.sock
	until_true "the engine" "$engine" docker version
fi

# An image without a registry: a static busybox and nothing else.
mkdir -p "$room/root/bin"
cp "$(command -v busybox)" "$room/root/bin/busybox"
ln -s busybox "$room/root/bin/sh"
ln -s busybox "$room/root/bin/cat"
tar -C "$room/root" -c . | docker import - remora-demo:latest >/dev/null || fail "docker import"
image=remora-demo:latest
if docker volume inspect "$volume" >/dev/null 2>&1; then volume=demo-$$; fi

cat >"$room/remora.toml" <<TOML
version = 1
run_dir = "$room/run"
state_dir = "$room/state"

[pool.$pool]
driver = "dir"
path = "$room/volumes"
TOML
mkdir -p "$room/volumes"

start_daemon
show docker volume create -d "$pool" "$volume"
created=yes
expect "$volume" docker volume ls --filter "driver=$pool"
show docker run --rm --network none -v "$volume:/data" "$image" sh -c 'echo bye > /data/hello'
echo "# the daemon dies without a word"
printf '$ kill -9 %s\n' "$daemon"
{ kill -9 "$daemon" && wait "$daemon"; } 2>/dev/null || true
start_daemon
expect bye docker run --rm --network none -v "$volume:/data" "$image" cat /data/hello
expect "\"$pool\"" docker volume inspect "$volume"
show docker volume rm "$volume"
created=''
if docker volume ls -q --filter "driver=$pool" | grep -q .; then fail "a volume is left after rm"; fi
printf '# done in %d s: the data outlived the daemon\n' $SECONDS
