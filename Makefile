# Every target is a command one could type. "make help" lists them.

FUZZTIME ?= 20s
# What "make test" runs, in this order; .ci/run adds what is slow or needs the net.
PARTS ?= lint unit storage vm e2e fuzz

# Of packages; a release sets it.
VERSION ?= 0.0.0-dev

.DEFAULT_GOAL := help
.PHONY: help build plugin demo test unit storage vm e2e cloud soak fuzz csi-driver check-foreign lint fix vuln bench bench-calls bench-storage bench-plugins bench-network bench-members docs docs-check setup packages check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/remora, one static binary
	CGO_ENABLED=0 go build -trimpath -o bin/remora ./cmd/remora

demo: build ## a container writes to a volume, the daemon is killed, another container reads it back
	test/demo.sh

setup: ## install what the tests need (docker.io, podman, ...) through the package manager
	test/setup.sh

test: setup build ## install what is missing, run all tests, end with the count
	FUZZTIME=2000x test/run.sh $(PARTS)

unit: ## the tests of the packages, with the race detector, in under a minute
	test/run.sh unit

storage: ## the tests of drivers and backups on storage of their own; needs root
	test/run.sh storage

vm: ## the tests that need a kernel of their own, in a virtual machine; needs root
	test/run.sh vm

e2e: build ## the tests against real engines; needs root
	test/run.sh e2e

cloud: ## the tests against a real Ceph and a real OpenStack; installs them; needs root
	test/setup.sh cloud
	REMORA_TEST_MUST_RUN=ceph,openstack,vm test/run.sh cloud

soak: build ## the long tests: kills, cuts and flipped bytes, a hundred times each; two hours; needs root
	REMORA_SOAK=1 go test -count=1 -v -timeout 3h -run 'Soak|KilledWhilePaused|PluginKills' ./test/e2e/... ./internal/backup
	REMORA_SOAK=1 go test -count=1 -v -timeout 1h -run '^TestClocksJump$$' ./internal/cluster
	REMORA_SOAK=1 go test -count=1 -v -timeout 3h -run '^TestKilled(RestoreInPlace|RestoreToNew|Create|Proof)$$' ./internal/daemon
	REMORA_SOAK=1 go test -count=1 -v -timeout 1h -run 'Killed$$|ServerRestarts|LinkCut' ./drivers/volume/mount ./drivers/volume/sshfs
	REMORA_SOAK=1 go test -count=1 -v -timeout 3h -run '^TestKills?$$' ./drivers/volume/btrfs ./internal/block
	REMORA_SOAK=1 go test -count=1 -v -timeout 1h -run 'Killed' ./internal/managed/runtime ./internal/managed/store
	REMORA_SOAK=1 go test -count=1 -v -timeout 2h -run '^Test(Soak|Faults|KilledBridge|CrashedDriver)' ./drivers/volume/csi

fuzz: ## each fuzz target for FUZZTIME (20s)
	FUZZTIME=$(FUZZTIME) test/run.sh fuzz

csi-driver: ## prove the driver csi on the CSI driver at REMORA_CSI_ENDPOINT; needs root and docker.io
	go test -count=1 -v -timeout 30m -run '^TestDriver$$' ./test/csi

check-foreign: ## build plugins that others wrote and check them; needs root and the net
	test/foreign/check.sh

lint: ## gofmt, go vet, staticcheck, golangci-lint
	test/run.sh lint golangci

fix: ## let gofmt and go fix rewrite what they can
	gofmt -w . && go fix ./...

vuln: ## known vulnerabilities in what we import; needs the net
	test/run.sh vuln

bench: bench-calls bench-storage bench-plugins bench-network bench-members ## measure against the named peers, write docs/performance.md

bench-calls: ## the part of it about the calls of plugins
	cd bench && go run .

bench-storage: ## the part of it about drivers and backups; needs root, fio and restic
	cd bench && go run . -suite storage

bench-plugins: ## the part of it about managed plugins; needs root, Docker and docker-registry
	cd bench && go run . -suite plugins

bench-network: ## the part of it about the network across hosts; needs root, iperf3, ethtool and wireguard-tools
	cd bench && go run . -suite network

bench-members: ## the part of it about clusters of up to a thousand hosts, in virtual time; an hour or more
	cd bench && go run . -suite members

docs: ## write docs/reference from the code
	go generate ./...

docs-check: ## fail where docs/reference is not what the code says
	test/run.sh docs

packages: build ## dist/*.deb and dist/*.rpm
	mkdir -p dist
	for kind in deb rpm; do VERSION=$(VERSION) ARCH=$$(go env GOARCH) \
		go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0 package -f packaging/nfpm.yaml -p $$kind -t dist || exit 1; done

plugin: ## dist/plugin and dist/plugin-network, each as a .tar too: the bundles of the managed plugins; ADD="rclone s3fs" puts more Debian packages in
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o dist/remora ./cmd/remora
	go run ./packaging/plugin -remora dist/remora -o dist/plugin -add '$(ADD)'

check: ## what CI runs
	.ci/run

clean: ## remove what was built
	rm -rf bin dist
