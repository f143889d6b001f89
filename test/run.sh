#!/usr/bin/env bash
# Runs parts of the tests and ends with the line that counts them.
#
#   test/run.sh PART...      lint golangci docs unit storage vm e2e cloud fuzz vuln
#
# The exit status is 1 where a test failed or a skip was forbidden
# (REMORA_TEST_MUST_RUN, see internal/testenv).
set -uo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
report=$scratch/testreport
go build -o "$report" ./internal/testreport || exit 1

say() { printf '==> %s\n' "$*" >&2; }

# gotest runs go test and says so where it failed before it could report anything. A test that failed is
# run once more, alone: the report tells a flaky one from a broken one, and counts both.
gotest() {
	local pkg name events flags=()
	events=$(mktemp "$scratch/events.XXXXXX") # parts may run beside each other
	go test -json "$@" | tee "$events" ||
		printf '{"Action":"command-failed","Output":"go test %s"}\n' "${*//\"/}"
	for name in "$@"; do # flags come before packages, which are paths
		case $name in ./* | github.com/*) break ;; esac
		flags+=("$name")
	done
	"$report" failed <"$events" | while read -r pkg name; do
		printf '{"Action":"rerun","Package":"%s","Test":"%s"}\n' "$pkg" "$name"
		go test -json "${flags[@]}" -run "^$name\$" "$pkg" </dev/null || :
	done
}

step() { "$report" step "$@"; }

# tool prints where a tool of tools/go.mod is. Building one takes minutes, so it is
# kept for this Go and this go.sum.
tool() {
	local dir
	dir=${XDG_CACHE_HOME:-$HOME/.cache}/remora-tools/$(cat tools/go.sum <(go version) | sha256sum | cut -c1-16)
	if [ ! -x "$dir/$1" ]; then
		say "building $1, once"
		go build -C tools -o "$dir/$1" "$2" >&2 || return 1
	fi
	printf '%s\n' "$dir/$1"
}

part_lint() {
	# A program that was built here is easily committed.
	step tracked sh -c 'bad=$(git ls-tree -r -l HEAD | awk "\$4 > 4194304 { print \$4, \$5 }"); [ -z "$bad" ] || { echo "larger than 4 MiB: $bad"; exit 1; }'
	step gofmt sh -c 'bad=$(gofmt -l .); [ -z "$bad" ] || { echo "not as gofmt has it:" $bad; exit 1; }'
	step vet go vet ./...
	step staticcheck go tool staticcheck ./...
}

part_golangci() {
	local bin
	bin=$(tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint) || bin=false
	step golangci-config "$bin" config verify
	step golangci-lint "$bin" run ./...
}

part_docs() {
	step docs sh -c '
		go generate ./... || exit 1
		changed=$(git status --porcelain -- docs/reference)
		[ -z "$changed" ] || { echo "run \"make docs\" and commit what it writes:"; echo "$changed"; git diff -- docs/reference; exit 1; }'
}

# What is tested on file systems, servers and repositories of its own takes minutes.
storage='/drivers/volume/(btrfs|dobs|ebs|gcepd|loop|mount|sshfs)$|/internal/(backup|definition|mesh|remote)$'

# What -short makes shorter.
longer='/internal/(address|block|cluster|daemon|scaffold)$|/sdk/volume/volumetest$'

# What needs a real Ceph or OpenStack takes minutes too, and 600 MB of packages. With -short the rest of
# these packages is tested with all others.
cloud='/test/cloud/(ceph|openstack|process)$|/drivers/volume/(cinder|rbd)$'

# part_unit leaves out, with -short, what part_e2e runs, and what part_storage does. Each line of a script of
# cmd/remora is a process, which the race detector makes start slowly: what they do is tested with it where it
# is done. The race detector has each process sleep for a second at its end, and there are hundreds of them.
part_unit() {
	# shellcheck disable=SC2046 # the packages are words
	GORACE="atexit_sleep_ms=0 ${GORACE:-}" gotest -race -short -skip '^TestVM' ${CI:+-count=1} $(go list ./... | grep -Ev "/test/e2e|/test/csi$|/cmd/remora$|$storage")
	gotest -short ${CI:+-count=1} ./cmd/remora
	(cd bench && gotest ${CI:+-count=1} ./...) # a module of its own
	(cd internal/csi/csitest/sanity && gotest ${CI:+-count=1} ./...) # likewise
	(cd internal/csi/kubeshim/clientgo && gotest ${CI:+-count=1} ./...) # likewise
}

# part_storage has tests that may run beside others do so, however few processors there are: nearly all of each is
# waiting.
part_storage() {
	# shellcheck disable=SC2046 # the packages are words
	gotest -count=1 -parallel 4 -timeout 20m -skip '^TestVM' $(go list ./... | grep -E "$storage|$longer")
	gotest -count=1 -run '^(TestScripts|TestGuides)$/backup' ./cmd/remora
}

# vm_packages prints the packages with tests that run in the virtual machine.
vm_packages() { grep -rl --include='*_test.go' '^func TestVM' drivers internal | xargs -n1 dirname | sort -u | sed 's|^|./|'; }

# vm_same is left out there: what the Handler does in front of a mount is the same for
# each type, and most of it needs no mount: that is tested on this host. NFS 4 has what has to do with an
# engine, a plugin or a mount that ends; NFS 3 and SMB have what has to do with data.
vm_same='/(nfs3|cifs)/wire|/(nfs3|cifs)/direct/^DifferentNamesAtOnce$|/nfs3/direct/^(RemoveAndCreateByTurns|ReopenKeepsVolumes|VolumesAreApart|NamesAreTakenAsTheyAre)$'
vm_same+='|/nfs4/wire/^(Check[A-DF-Z]|CheckE[mr]|Empty|Garbage|Hanging|Huge|Odd|Panic|Password|Random|Slow|StartWhile)|/xfs/wire'

# part_vm runs what needs more of a kernel than this host may have in a virtual machine, one
# for each package, one after the other.
part_vm() {
	CGO_ENABLED=0 go build -o "$scratch/testvm" ./internal/testvm || return
	gotest -count=1 ./internal/testvm
	# shellcheck disable=SC2046 # the packages are words
	CGO_ENABLED=0 gotest -p 1 -count=1 -timeout 20m -exec "$scratch/testvm" -run '^TestVM' -skip "$vm_same" \
		$(vm_packages | grep -Ev "$cloud")
}

part_e2e() {
	# shellcheck disable=SC2046 # the packages are words
	gotest -race -count=1 -timeout 10m -run '^TestEngine' \
		$(grep -rl --include='*_test.go' '^func TestEngine' sdk | xargs -n1 dirname | sort -u | sed 's|^|./|')
	gotest -count=1 -run '^TestSoak(Killed|FlippedByte)$' ./internal/backup # which -short makes shorter
	gotest -count=1 -run '^Test(SoakKilled|KilledAtEachStep|Interop)' ./internal/managed/store ./internal/managed/registry # likewise
	gotest -count=1 -timeout 40m -parallel 3 ./test/e2e/... # most of each is waiting
	gotest -count=1 -timeout 20m -run '^TestOwnDriver$' ./test/csi # TestDriver wants a CSI driver of somebody else's
}

# part_cloud starts a real Ceph and a real OpenStack. One package at a time: each has servers of
# its own, of a gigabyte, and Cinder takes seconds for each thing it does. What maps images by the kernel
# runs in a virtual machine, with its Ceph.
part_cloud() {
	# shellcheck disable=SC2046 # the packages are words
	gotest -p 1 -count=1 -timeout 60m -skip '^TestVM' $(go list ./... | grep -E "$cloud")
	CGO_ENABLED=0 go build -o "$scratch/testvm" ./internal/testvm || return
	# shellcheck disable=SC2046 # the packages are words
	CGO_ENABLED=0 gotest -count=1 -timeout 60m -exec "$scratch/testvm" -run '^TestVM' $(vm_packages | grep -E "$cloud")
}

part_fuzz() {
	local file name
	grep -rHo --include='*_test.go' --exclude-dir={testdata,bench,.git} '^func Fuzz[A-Za-z0-9_]*' . |
		sort | while IFS=: read -r file name; do
		file=${file#./} name=${name#func }
		say "$name in $(dirname "$file")"
		gotest -run='^$' -fuzz="^$name\$" -fuzztime="${FUZZTIME:-20s}" "./$(dirname "$file")"
	done
}

part_vuln() {
	local bin
	bin=$(tool govulncheck golang.org/x/vuln/cmd/govulncheck) || bin=false
	# Not to have looked is not to be clean: the step is skipped, and seen to be.
	step vuln sh -c '
		out=$("$1" ./... 2>&1); rc=$?
		case $out in
		*"fetching vulnerabilities"*) echo "needs vulndb: $(printf %s "$out" | tr "\n" " ")"; exit 75 ;;
		esac
		printf "%s\n" "$out"; exit $rc' vuln "$bin"
}

for part in "$@"; do
	declare -F "part_$part" >/dev/null || { echo "test/run.sh: no part $part" >&2; exit 2; }
done
# The virtual machine takes one processor, and the tests with engines wait most of the time: where both are wanted
# they run beside each other. What one reports comes after what the other does, whole.
run_beside() {
	local other
	say "$2, beside it"
	set -m # a process group of its own, to end with this
	"part_$2" >"$scratch/beside" &
	other=$!
	set +m
	# shellcheck disable=SC2064 # now
	trap "kill -- -$other 2>/dev/null" EXIT
	"part_$1"
	wait "$other"
	trap - EXIT
	cat "$scratch/beside"
}

# In a function, so that the shell has read all of this before it runs what may take an hour.
main() {
	for part in "$@"; do
		case "$part, $* " in
		"vm, "*e2e*) continue ;;
		esac
		say "$part"
		case "$part, $* " in
		"e2e, "*vm*) run_beside e2e vm ;;
		*) "part_$part" ;;
		esac
	done | "$report"
}
main "$@"; exit
