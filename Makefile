# What can be done with this tree. `make run` to try it, `make test` before a change is handed in.

SHELL := /bin/bash
.DEFAULT_GOAL := build

# Go may be installed without being on PATH.
ifeq ($(shell command -v go 2>/dev/null),)
export PATH := $(PATH):/usr/local/go/bin
endif

# giouring reaches for syscall.munmap by go:linkname, which the linker of Go 1.23 and newer refuses unless told otherwise.
export GOFLAGS := -ldflags=-checklinkname=0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unversioned)
# What the race detector looks at: all but the packages whose memory the kernel writes, which it cannot see.
RACE := ./proto/... ./engine ./engine/backing/... ./engine/gate/... ./engine/sim/... ./cmd/ringnbd ./cmd/tally
FUZZTIME ?= 20s
# Debian packages of the clients and servers that the tests drive, what they need of the system, and the C compiler that the race detector needs.
PACKAGES := qemu-utils libnbd-bin python3-libnbd nbdkit nbd-server nbd-client fio strace e2fsprogs util-linux iproute2 chromium gcc libc6-dev qemu-system-x86 busybox-static xfsprogs

.PHONY: build run test test-kernel race fuzz tidy bench compare conform microbench pgo ci clean packages

build:
	@mkdir -p bin
	go build -trimpath -buildvcs=false -ldflags='-checklinkname=0 -X main.version=$(VERSION)' -o bin/ringnbd ./cmd/ringnbd

# A fresh disk to play with. ARGS are more flags of serve: make run ARGS='--listen unix:/tmp/demo.sock'.
# The server has a session of its own, so that Ctrl-C reaches it once, through the trap.
run: build
	@dir=$$(mktemp -d) || exit 1; trap 'rm -rf "$$dir"' EXIT; \
	mkfifo "$$dir/ready"; \
	setsid bin/ringnbd serve --create 1G $(ARGS) "$$dir/demo.img" > "$$dir/ready" & server=$$!; \
	trap 'kill -TERM $$server 2>/dev/null' INT TERM HUP; \
	if read -r ready uri more < "$$dir/ready"; then \
		echo "A sparse disk of 1 GiB is served at $$uri (Ctrl-C ends it). Try in another terminal:"; \
		echo "  nbdinfo '$$uri'"; \
		echo "  qemu-io -f raw -c 'write -P 90 0 1M' -c 'read -P 90 0 1M' '$$uri'"; \
		echo "  fio --name=demo --ioengine=nbd --uri='$$uri' --rw=randrw --bs=4k --iodepth=32 --time_based --runtime=5"; \
	fi; \
	wait $$server; status=$$?; \
	if [ $$status -gt 128 ]; then wait $$server; status=$$?; fi; \
	exit $$status

# As root on Debian: what the tests would otherwise be skipped for. A failure costs only those tests.
packages:
	@missing=; \
	for p in $(PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then \
		echo "not installed, so tests will be skipped:$$missing (as root on Debian, make installs them)"; exit 0; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing > /dev/null || echo "could not install:$$missing"

# Checks report like tests, as events of go test -json, so that the closing line counts them too.
define events
check() { \
	name=$$1; shift; out=$$("$$@" 2>&1); result=$$?; \
	[ $$result = 0 ] && action=pass || { action=fail; broken=1; printf '%s\n' "$$out"; }; \
	printf '{"Action":"%s","Package":"check","Test":"%s"}\n' $$action $$name; \
}; \
unformatted() { local list; list=$$(gofmt -l .) && echo "$$list" && [ -z "$$list" ]; }; \
raced() { go test -race -tags invariants -timeout 20m -json $(RACE) | sed 's/"Package":"/"Package":"race of /'; }; \
set -o pipefail; broken=0
endef

test: packages build
	@go build -o bin/tally ./cmd/tally
	@$(events); { \
		check gofmt unformatted; \
		check vet go vet ./...; \
		check staticcheck go tool staticcheck ./...; \
		RINGNBD_BIN="$$PWD/bin/ringnbd" go test -timeout 30m -json ./... || broken=1; \
		if command -v "$$(go env CC)" > /dev/null; then raced || broken=1; \
		else printf '{"Action":"%s","Package":"race","Test":"detector","Output":"no C compiler (Debian package gcc)"}\n' output skip; fi; \
		[ $$broken = 0 ]; \
	} | bin/tally

# Debian's kernel in an emulated machine, with ringnbd's exports as its disks: what make test does of it, with a line for each step. KERNEL are more flags of
# go test, such as '-run TestSwap'.
test-kernel: packages build
	@set -o pipefail; RINGNBD_BIN="$$PWD/bin/ringnbd" go test ./cmd/ringnbd/kernel -count=1 -timeout 30m -v $(KERNEL) | grep --line-buffered -Ev '^ *(=== |--- PASS: .*/)' | sed -u 's/^ *[a-z]*_test.go:[0-9]*: /  /'

race:
	go test -race -tags invariants $(RACE)

# Every fuzz target for FUZZTIME, one after another.
fuzz:
	@set -e; for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -parallel 2 $$package; \
		done; \
	done

tidy:
	gofmt -l -w .
	go mod tidy
	go vet ./...
	go tool staticcheck ./...

# The profile that go build takes its cue from (profile-guided optimisation): about three minutes of bounded loads on a ringnbd that was built without one.
pgo:
	@mkdir -p bin
	go build -trimpath -buildvcs=false -pgo=off -o bin/ringnbd-unguided ./cmd/ringnbd
	go run ./bench/pgo -ringnbd bin/ringnbd-unguided -out cmd/ringnbd/default.pgo $(PGO)
	@rm -f bin/ringnbd-unguided

# Every Go benchmark of the tree, once round.
microbench:
	go test -run '^$$' -bench . -benchmem ./...

# ringnbd beside the other servers: tables here, bin/bench.html with plots, every sample in bin/bench.json. BENCH are more flags, such as -quick or
# '-sections disk,null' (go run ./bench/suite -h). README=1 puts the tables into README.md and the samples that they come from into bench/measured.json.gz.
bench: build
	@$(MAKE) -s packages
	go run ./bench/suite -command 'make bench$(if $(BENCH), BENCH="$(BENCH)")' -ringnbd bin/ringnbd -json $(if $(README),bench/measured.json.gz -readme README.md,bin/bench.json) -html bin/bench.html $(BENCH)

# This tree against a revision of it, as ratios that a commit message can quote. COMPARE are more flags (go run ./bench/compare -h).
define compare_usage
usage: make compare BASE=REVISION [NEW=REVISION] [BASE_FLAGS=...] [NEW_FLAGS=...] [COMPARE=...]

  make compare BASE=HEAD                                  the working tree against the last commit
  make compare BASE=v1 NEW=v2                             two revisions
  make compare BASE=. NEW_FLAGS='--poll 50'               two settings of the working tree
  make compare BASE=HEAD COMPARE='-loads null/randread/4k/4x32/unix -pairs 20'
endef
export compare_usage
compare:
	@if [ -z '$(BASE)' ]; then echo "$$compare_usage" >&2; exit 2; fi
	@mkdir -p bin && go build -o bin/compare ./bench/compare
	@exec bin/compare -base '$(BASE)' -new '$(or $(NEW),.)' -base-flags '$(BASE_FLAGS)' -new-flags '$(NEW_FLAGS)' $(COMPARE)

# The conformance suite on ringnbd, qemu-nbd, nbdkit and nbd-server, and the table of all four. CONFORM are more flags (go run ./cmd/ringnbd/conform/table -h).
conform: build
	@$(MAKE) -s packages
	go run ./cmd/ringnbd/conform/table -ringnbd bin/ringnbd -out cmd/ringnbd/conform/TABLE.md $(CONFORM)

ci: test

clean:
	rm -rf bin
