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
	local pkg name flags=()
	go test -json "$@" | tee "$scratch/events" ||
		printf '{"Action":"command-failed","Output":"go test %s"}\n' "${*//\"/}"
	for name in "$@"; do # flags come before packages, which are paths
		case $name in ./* | github.com/*) break ;; esac
		flags+=("$name")
	done
	"$report" failed <"$scratch/events" | while read -r pkg name; do
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
longer='/internal/(block|cluster|daemon|scaffold)$|/sdk/volume/volumetest$'

# What needs a real Ceph or OpenStack takes minutes too, and 600 MB of packages. With -short the rest of
# these packages is tested with all others.
cloud='/test/cloud/(ceph|openstack|process)$|/drivers/volume/(cinder|rbd)$'

# part_unit leaves out, with -short, what part_e2e runs, and what part_storage does. The
# race detector has each process sleep for a second at its end, and there are hundreds of
# them.
part_unit() {
	# shellcheck disable=SC2046 # the packages are words
	GORACE="atexit_sleep_ms=0 ${GORACE:-}" gotest -race -short -skip '^TestVM' ${CI:+-count=1} $(go list ./... | grep -Ev "/test/e2e|$storage")
	(cd bench && gotest ${CI:+-count=1} ./...) # a module of its own
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

# part_vm runs what needs more of a kernel than this host may have in a virtual machine, one
# for each package, one after the other. What the Handler does in front of a mount is the same
# for each type.
part_vm() {
	CGO_ENABLED=0 go build -o "$scratch/testvm" ./internal/testvm || return
	gotest -count=1 ./internal/testvm
	# shellcheck disable=SC2046 # the packages are words
	CGO_ENABLED=0 gotest -p 1 -count=1 -timeout 20m -exec "$scratch/testvm" -run '^TestVM' -skip '/(nfs3|cifs)/wire' \
		$(vm_packages | grep -Ev "$cloud")
}

part_e2e() {
	# shellcheck disable=SC2046 # the packages are words
	gotest -race -count=1 -timeout 10m -run '^TestEngine' \
		$(grep -rl --include='*_test.go' '^func TestEngine' sdk | xargs -n1 dirname | sort -u | sed 's|^|./|')
	gotest -count=1 -run '^TestSoak(Killed|FlippedByte)$' ./internal/backup # which -short makes shorter
	gotest -count=1 -run '^Test(SoakKilled|KilledAtEachStep|Interop)' ./internal/managed/store ./internal/managed/registry # likewise
	gotest -count=1 -timeout 40m ./test/e2e/...
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
for part in "$@"; do
	say "$part"
	"part_$part"
done | "$report"
