# The targets of this tree; `make help` lists them. `make run` tries the server, `make test` is what
# a change has to pass.

SHELL := /bin/bash
.DEFAULT_GOAL := build

# Go may be installed without being on PATH.
go := $(or $(shell command -v go 2>/dev/null),$(wildcard /usr/local/go/bin/go))
ifeq ($(shell command -v go 2>/dev/null),)
export PATH := $(PATH):/usr/local/go/bin
endif

# Only targets that compile need Go.
ifneq ($(filter-out help packages clean,$(or $(MAKECMDGOALS),build)),)
needed := $(shell awk '$$1 == "go" { print $$2 }' go.mod)
found := $(if $(go),$(patsubst go%,%,$(shell $(go) env GOVERSION 2>/dev/null)))
ifeq ($(found),)
$(error Go $(needed) or newer is needed, and go is neither on PATH nor in /usr/local/go/bin: \
see https://go.dev/dl)
endif
ifneq ($(needed),$(shell printf '%s\n' '$(needed)' '$(found)' | sort -V | head -n 1))
$(error Go $(needed) or newer is needed, and $(go) is Go $(found): see https://go.dev/dl, \
or put the newer Go first on PATH)
endif
endif

# giouring uses syscall.munmap by go:linkname, which the linker of Go 1.23 and newer refuses without
# this flag. -buildvcs=false is needed in a tree that belongs to another user: git refuses to answer
# there, and go build would fail. The rest of the user's GOFLAGS stays, except -ldflags, which go
# accepts once: LDFLAGS is for the user's.
own_goflags := -ldflags=-checklinkname=0 -buildvcs=false
user_goflags := $(filter-out $(own_goflags),$(if $(go),$(shell $(go) env GOFLAGS 2>/dev/null)))
ifneq ($(findstring -ldflags,$(user_goflags)),)
$(warning GOFLAGS has -ldflags, which this Makefile replaces: give LDFLAGS='...' to make instead)
endif
export GOFLAGS := $(strip $(user_goflags) $(own_goflags))

REVISION := $(shell git -c safe.directory='$(CURDIR)' describe --tags --always --dirty 2>/dev/null \
	|| echo unknown)
# The packages for the race detector: without those whose memory the kernel writes, which the
# detector cannot see.
RACE := ./proto/... ./engine ./engine/backing/... ./engine/gate/... ./engine/layer/overlay \
	./engine/sim/... ./cmd/ringnbd ./cmd/tally
FUZZTIME ?= 20s
# Debian packages: the clients and servers that the tests drive, the system tools that tests use,
# and the C compiler that the race detector needs.
PACKAGES := qemu-utils libnbd-bin python3-libnbd nbdkit nbd-server nbd-client fio strace e2fsprogs \
	util-linux iproute2 chromium gcc libc6-dev qemu-system-x86 busybox-static xfsprogs file \
	debootstrap gdisk fdisk parted dosfstools

.PHONY: help build run test test-kernel clients race fuzz tidy bench results compare conform \
	microbench pgo ci clean packages

define help
make build         bin/ringnbd
make run           build it and serve a fresh disk, with things to try (ARGS='--listen ...')
make test          all tests, in 25 minutes; as root on Debian it installs what they need first
make test-kernel   the tests with Debian's kernel in an emulated machine (KERNEL='-run ...')
make clients       other releases of clients and servers against ringnbd, as a table
make conform       the conformance suite on ringnbd and the other servers (CONFORM='...')
make race          the tests under the race detector
make fuzz          every fuzz target for FUZZTIME ($(FUZZTIME))
make bench         ringnbd and the other servers, as bin/bench.html (BENCH='...')
make results       bench/RESULTS.md and bin/bench.html from the samples that are kept
make compare       this tree against a revision of it (BASE=REVISION)
make microbench    every Go benchmark, once
make pgo           the profile that guides the compiler, in three minutes
make packages      the Debian packages that the tests need: install them as root, or list them
make tidy          format, go mod tidy, vet, staticcheck
make ci            what the continuous integration runs
make clean         remove bin

Without make: go build -ldflags=-checklinkname=0 ./cmd/ringnbd. If go build, go test or an
editor reports "invalid reference to syscall.munmap", this flag is missing:
export GOFLAGS=-ldflags=-checklinkname=0
endef
export help
help:
	@echo "$$help"

# Without cgo the program is one static file, which starts on any Linux, and its threads are Go's.
linked := -checklinkname=0 -X ringnbd/cmd/ringnbd/version.revision=$(REVISION)
# The debug endpoint is HTTP/1 on this machine alone: HTTP/2 would add half a megabyte.
tags := -tags=nethttpomithttp2
build:
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -buildvcs=false $(tags) -ldflags='$(linked) $(LDFLAGS)' \
		-o bin/ringnbd ./cmd/ringnbd

# A fresh disk to try. ARGS are further flags of serve: make run ARGS='--listen unix:/tmp/s'. The
# server has a session of its own, so that Ctrl-C reaches it once, through the trap.
run: build
	@dir=$$(mktemp -d) || exit 1; trap 'rm -rf "$$dir"' EXIT; \
	listen=; case '$(ARGS)' in *--listen*) ;; *) \
		if (exec 3<> /dev/tcp/localhost/10809) 2> /dev/null; then \
			echo "Port 10809 is taken by another server, so this server takes a free port."; \
			listen='--listen localhost:0'; \
		fi;; \
	esac; \
	mkfifo "$$dir/ready"; \
	setsid bin/ringnbd serve --create 1G $$listen $(ARGS) "$$dir/demo.img" > "$$dir/ready" & \
	server=$$!; \
	trap 'kill -TERM $$server 2>/dev/null' INT TERM HUP; \
	if read -r ready uri more < "$$dir/ready"; then \
		echo "A sparse disk of 1 GiB is served at $$uri (Ctrl-C ends it)."; \
		echo "Try in another terminal:"; \
		echo "  bin/ringnbd info '$$uri'"; \
		echo "  nbdinfo '$$uri'    (Debian package libnbd-bin)"; \
		echo "  qemu-io -f raw -c 'write -P 90 0 1M' -c 'read -P 90 0 1M' '$$uri' (qemu-utils)"; \
		echo "  fio --name=demo --ioengine=nbd --uri='$$uri' --rw=randrw --bs=4k --iodepth=32 \\"; \
		echo "      --time_based --runtime=5    (fio)"; \
	fi; \
	wait $$server; status=$$?; \
	if [ $$status -gt 128 ]; then wait $$server; status=$$?; fi; \
	exit $$status

# The packages without which tests are skipped, installed as root on Debian. If that fails, only
# those tests are skipped.
packages:
	@missing=; \
	for p in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' \
			|| missing="$$missing $$p"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then \
		echo "not installed, so tests will be skipped:$$missing"; \
		echo "(as root on Debian, make installs them)"; \
		exit 0; \
	fi; \
	echo "installing what the tests need (up to 500 MB, one to five minutes):$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing > /dev/null \
		|| echo "could not install:$$missing"

# Checks report as tests do, by events of go test -json, so that the closing line counts them, too.
# Status 77 is a skip.
define events
tell() { printf '{"Action":"%s","Package":"check","Test":"%s"}\n' "$$1" "$$2"; }; \
check() { \
	name=$$1; shift; tell start "$$name"; tell run "$$name"; out=$$("$$@" 2>&1); result=$$?; \
	case $$result in \
	0) tell pass "$$name";; \
	77) printf '{"Action":"output","Package":"check","Test":"%s","Output":"%s"}\n' \
			"$$name" "$$(tail -n 1 <<< "$$out" | tr -d '"\\')"; \
		tell skip "$$name";; \
	*) broken=1; printf '%s\n' "$$out"; tell fail "$$name";; \
	esac; \
}; \
unformatted() { local list; list=$$(gofmt -l .) && echo "$$list" && [ -z "$$list" ]; }; \
invariants() { \
	go test -tags invariants -timeout 20m -json ./engine -run '^Test(Sim|Check)' \
		| sed 's/"Package":"/"Package":"invariants of /'; \
}; \
raced() { \
	go test -race -tags invariants -timeout 20m -json $(RACE) \
		| sed 's/"Package":"/"Package":"race of /'; \
}; \
set -o pipefail; broken=0
endef

# With an empty build cache, minutes pass between the checks and the first package.
test: packages build
	@echo "make test: some 25 minutes on two quiet cores, longer on a busy machine"
	@go build -o bin/tally ./cmd/tally
	@$(events); { \
		check gofmt unformatted; \
		check vet go vet ./...; \
		check vet-invariants go vet -tags invariants ./engine/...; \
		check staticcheck go tool staticcheck ./...; \
		RINGNBD_BIN="$$PWD/bin/ringnbd" go test -timeout 30m -json ./... || broken=1; \
		invariants || broken=1; \
		if command -v "$$(go env CC)" > /dev/null; then raced || broken=1; \
		else \
			printf '{"Action":"%s","Package":"race","Test":"detector","Output":"%s"}\n' \
				output 'no C compiler (Debian package gcc)' \
				skip 'no C compiler (Debian package gcc)'; \
		fi; \
		$(if $(MINIMAL),check minimal-debian .ci/minimal;) \
		[ $$broken = 0 ]; \
	} | bin/tally

# QEMU, libnbd, nbdkit, nbd-client and fio of other releases of Debian, unpacked next to the
# installed ones. make test includes this test.
clients: packages build
	@go build -o bin/tally ./cmd/tally
	@set -o pipefail; RINGNBD_BIN="$$PWD/bin/ringnbd" go test -count=1 -json ./cmd/ringnbd/live \
		-run '^TestVersionsOfClientsAndServers$$' | bin/tally

# Debian's kernel in an emulated machine, with ringnbd's exports as its disks: the same tests as in
# make test, with a line for each step. KERNEL are further flags of go test, e.g. '-run TestSwap'.
test-kernel: packages build
	@set -o pipefail; \
	RINGNBD_BIN="$$PWD/bin/ringnbd" \
		go test ./cmd/ringnbd/kernel -count=1 -timeout 30m -v $(KERNEL) \
		| grep --line-buffered -Ev '^ *(=== |--- PASS: .*/)' \
		| sed -u 's/^ *[a-z]*_test.go:[0-9]*: /  /'

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

# The profile for go build (profile-guided optimisation), from about three minutes of bounded loads
# on a ringnbd that was built without a profile.
pgo:
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -buildvcs=false $(tags) -pgo=off \
		-o bin/ringnbd-unguided ./cmd/ringnbd
	go run ./bench/pgo --ringnbd bin/ringnbd-unguided --out cmd/ringnbd/default.pgo $(PGO)
	@rm -f bin/ringnbd-unguided

# Every Go benchmark of the tree, once.
microbench:
	go test -run '^$$' -bench . -benchmem ./...

# ringnbd and the other servers: tables here, bin/bench.html with plots, every sample in
# bin/bench.json. BENCH are further flags, e.g. --quick or '--sections disk,null' (go run
# ./bench/suite --help). README=1 keeps the samples in bench/measured.json.gz and remakes what comes
# from them.
kept := bench/measured.json.gz --results bench/RESULTS.md --readme README.md
bench: build
	@$(MAKE) -s packages
	go run ./bench/suite --command 'make bench$(if $(BENCH), BENCH="$(BENCH)")' \
		--ringnbd bin/ringnbd --html bin/bench.html \
		--json $(if $(README),$(kept),bin/bench.json) $(BENCH)

# bench/RESULTS.md, the summary in README.md and bin/bench.html from bench/measured.json.gz; nothing
# is measured.
results:
	@mkdir -p bin
	go run ./bench/suite --from $(kept) --html bin/bench.html > /dev/null

# This tree against a revision of it, as ratios that a commit message can quote. COMPARE are further
# flags (go run ./bench/compare --help).
define compare_usage
usage: make compare BASE=REVISION [NEW=REVISION] [BASE_FLAGS=...] [NEW_FLAGS=...] [COMPARE=...]

  make compare BASE=HEAD                                  the working tree against the last commit
  make compare BASE=v1 NEW=v2                             two revisions
  make compare BASE=. NEW_FLAGS='--poll 50'               two settings of the working tree
  make compare BASE=HEAD COMPARE='--loads null/randread/4k/4x32/unix --pairs 20'
endef
export compare_usage
compare:
	@if [ -z '$(BASE)' ]; then echo "$$compare_usage" >&2; exit 2; fi
	@mkdir -p bin && go build -o bin/compare ./bench/compare
	@exec bin/compare --base '$(BASE)' --new '$(or $(NEW),.)' \
		--base-flags '$(BASE_FLAGS)' --new-flags '$(NEW_FLAGS)' $(COMPARE)

# The conformance suite on ringnbd, qemu-nbd, nbdkit and nbd-server, and the table of all four.
# CONFORM are further flags (go run ./cmd/ringnbd/conform/table --help).
conform: build
	@$(MAKE) -s packages
	go run ./cmd/ringnbd/conform/table --ringnbd bin/ringnbd \
		--out cmd/ringnbd/conform/TABLE.md $(CONFORM)

# What .ci/run runs: all tests, and some of them once more in a Debian that has only the packages of
# make packages.
ci:
	@$(MAKE) test MINIMAL=1

clean:
	rm -rf bin
